"""What a network does with its tokens, found out before any is dropped."""
