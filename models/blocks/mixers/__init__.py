"""Mixing many tokens through a few others: groups and latents, proxies, convolutions."""
