"""Watch a run in a browser."""
