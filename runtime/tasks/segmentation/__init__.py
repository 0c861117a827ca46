"""Segmentation on numpy arrays: card, frame fit, segmenter, accuracy."""
