"""Measuring: rounds in turns, child processes, load, databases, tables."""
