"""Speech separation on numpy arrays: card, separator, streaming, quality."""
