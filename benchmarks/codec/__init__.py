"""Codecs: speed, quality beside peers, quantisers."""
