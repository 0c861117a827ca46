"""Recover a network that prunes tokens."""
