"""The same with other frameworks, as their documentation shows it."""
