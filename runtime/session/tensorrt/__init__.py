"""TensorRT 10, 11 and RTX, and the CUDA driver calls around them."""
