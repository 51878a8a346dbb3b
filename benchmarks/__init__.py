"""What it costs: measured side by side with what could be written by hand, and with other frameworks."""
