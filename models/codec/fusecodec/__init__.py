"""FuseCodec and SpeechTokenizer, on which it is built."""
