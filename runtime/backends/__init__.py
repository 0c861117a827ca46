"""Back ends, one file each; each imports its own library only when it is opened."""
