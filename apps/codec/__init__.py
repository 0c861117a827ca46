"""Speech codecs: encode and decode files, live sound, evaluation."""
