"""Regular expressions of a subset that means the same on every database, and takes no longer than it may."""
