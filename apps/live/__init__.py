"""The loop of all live apps, and its clocks."""
