"""Faces on numpy arrays: card, finder, mesh, mouth crops."""
