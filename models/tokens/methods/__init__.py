"""Token reducers, a file each, in folders by what they go by (the survey's four mechanisms)."""
