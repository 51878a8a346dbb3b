"""Recorded runs: what became of each workflow that was run."""
