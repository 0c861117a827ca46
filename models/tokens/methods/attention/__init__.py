"""Keep the patches that attention points at."""
