"""Where frames and sound come from: files, cameras, streams."""
