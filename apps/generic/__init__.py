"""Any network: run on arrays, pictures and sounds, and given a card."""
