"""UniTransPose."""
