"""Blocks that do EDAFormer's work another way, for comparison on the same network."""
