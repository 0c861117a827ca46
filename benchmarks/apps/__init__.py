"""The live loop and batches: people followed, sources together, Ray beside plain processes."""
