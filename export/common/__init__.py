"""The road from a module to a file, and the registry of export scripts."""
