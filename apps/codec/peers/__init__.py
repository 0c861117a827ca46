"""Other codecs to stand beside, one row each in `registry`."""
