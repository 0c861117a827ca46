"""Blocks of the codec papers that no shipped or exported model uses."""
