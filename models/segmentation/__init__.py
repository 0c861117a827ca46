"""Semantic segmentation networks in PyTorch."""
