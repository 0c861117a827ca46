"""Training of EDAFormer on people."""
