"""OpenVINO, and what its graphs need before compilation."""
