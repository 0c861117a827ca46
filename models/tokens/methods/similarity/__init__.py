"""Merge or thin out tokens that resemble each other."""
