"""Training of Dolphin nano."""
