"""FreeCodec and the encoders it is made of."""
