"""Local-global attention: definition, custom operator, index tables, gradient."""
