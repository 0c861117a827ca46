"""Neural speech codecs: reference networks, and the graphs that are deployed."""
