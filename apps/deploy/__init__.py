"""Models handed to servers that are not ours."""
