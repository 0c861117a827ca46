"""Speech for training: clips, batches, pitch."""
