"""What the export scripts of pose networks share."""
