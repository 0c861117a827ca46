"""Benchmarks and their records: `python -m benchmarks.TOPIC.NAME` in the root of a checkout."""
