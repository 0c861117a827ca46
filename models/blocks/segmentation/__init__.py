"""Token mixers of segmentation papers related to EDAFormer."""
