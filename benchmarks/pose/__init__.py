"""Pose networks: speed, and UniTransPose in its two forms."""
