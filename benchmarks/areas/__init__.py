"""What is compared: a module for each area, with `measure(settings)` that gives its rows."""
