"""`prunus batch`: any number of files through a model, on one machine or on a Ray cluster."""
