"""Fold neighbouring tokens together, whatever they show."""
