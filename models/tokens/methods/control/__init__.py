"""Plain selections that every method has to beat."""
