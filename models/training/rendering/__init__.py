"""Rendered people and heads, with exact labels."""
