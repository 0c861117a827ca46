"""Let a few queries, learned or given, read the tokens."""
