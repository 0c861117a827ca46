"""Static token reduction: which tokens survive, as constants of the graph."""
