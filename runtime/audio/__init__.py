"""Sound: files, resampling, streaming, packets, the .pcodec format, quality."""
