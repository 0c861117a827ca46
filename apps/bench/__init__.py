"""What `prunus bench` runs: runners in turns, and the networks and inputs they need."""
