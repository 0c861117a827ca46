"""Speech codecs on numpy arrays: card, coder, loss concealment."""
