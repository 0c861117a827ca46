"""The blocks of a network: where their parts are, one in two halves, all of them with cuts."""
