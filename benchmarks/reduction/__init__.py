"""Parts of `benchmarks/token_reduction.py`: networks, their cases and rivals, tables."""
