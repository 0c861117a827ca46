"""EDAFormer: speed, peers, and blocks of its siblings."""
