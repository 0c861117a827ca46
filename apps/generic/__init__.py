"""`prunus run tensors`: any network, on arrays, pictures and sounds."""
