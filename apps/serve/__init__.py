"""Any model behind HTTP: one request, one answer, the same as `prunus.load` gives."""
