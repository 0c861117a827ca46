"""Training of NsfCodec."""
