"""What the export scripts of speech codecs share."""
