"""The same answers written by hand with the least that gives them: what there is to reach."""
