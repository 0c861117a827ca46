"""What the export scripts of segmentation networks share."""
