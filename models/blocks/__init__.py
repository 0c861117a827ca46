"""Blocks of the seed papers that no shipped model uses; docs/blocks.md says what each is for."""
