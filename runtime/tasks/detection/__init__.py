"""People and faces found in a frame; the finders live beside pose and faces."""
