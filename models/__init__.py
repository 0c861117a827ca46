"""PyTorch reference networks, token reducers, checkpoints and training recipes."""
