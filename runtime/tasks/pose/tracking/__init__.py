"""People over time: who is who, when to look for somebody new, whose joints to read."""
