"""The encoder of lip pictures."""
