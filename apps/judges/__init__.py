"""Judges of speech, one row each in `registry`."""
