"""Token reduction: methods on trained networks, and a cut that a network is fine-tuned with."""
