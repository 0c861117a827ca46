"""The local-global attention node and its body of standard operators."""
