"""Networks that label pictures for training."""
