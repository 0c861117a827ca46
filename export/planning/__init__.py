"""Plan which tokens to drop: measured latency, judged accuracy, and what is best."""
