"""The separator proper, from a mixture and lip features to one voice."""
