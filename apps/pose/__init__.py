"""Human pose: the live app, its overlay, COCO files, evaluation."""
