"""Quantisers of one interface: features to codes, codes to vectors, and their training losses."""
