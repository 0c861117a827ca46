"""The `prunus` command: one file per verb."""
