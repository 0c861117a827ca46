"""Number formats of a graph: half, bfloat16, int8 and its calibration."""
