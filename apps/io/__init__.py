"""Where pictures and sound come from and go to."""
