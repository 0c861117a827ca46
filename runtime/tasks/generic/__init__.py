"""Any network: tensors in, tensors out."""
