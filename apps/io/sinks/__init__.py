"""Where frames and sound go: files, folders, windows, pages."""
