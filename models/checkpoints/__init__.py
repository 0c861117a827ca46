"""Import of public checkpoints into the networks of this package."""
