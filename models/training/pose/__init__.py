"""Training of EViTPose."""
