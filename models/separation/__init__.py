"""Audio-visual speech separation networks."""
