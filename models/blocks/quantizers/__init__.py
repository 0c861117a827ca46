"""Quantisers of neural codecs behind one interface."""
