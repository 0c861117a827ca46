"""The voice picker: speed, words, and the clip of two voices."""
