"""Kernel and engines on a GPU: `make gpu`."""
