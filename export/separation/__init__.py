"""What the export script of the separator needs."""
