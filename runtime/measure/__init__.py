"""Latency, and fair comparisons of runners in processes of their own."""
