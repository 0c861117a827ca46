"""Segmentation: the live app, its overlay, label maps, evaluation."""
