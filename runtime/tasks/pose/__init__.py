"""Human pose on numpy arrays: card, crops, estimator, people finder, tracking, accuracy."""
