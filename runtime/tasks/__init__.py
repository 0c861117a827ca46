"""Tasks on top of a session: arrays in, results in the units of the task out."""
