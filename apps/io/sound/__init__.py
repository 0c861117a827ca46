"""Sound devices, packets over the network, and the clocks between them."""
