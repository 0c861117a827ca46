"""Human pose networks."""
