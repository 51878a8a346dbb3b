"""The nodes that the runner brings along."""
