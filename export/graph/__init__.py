"""Graph work: trace, simplify, audit, functions, compact constants."""
