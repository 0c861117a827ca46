"""The model card and the files that carry it."""
