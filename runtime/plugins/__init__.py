"""TensorRT plugins: kernels, the code that builds their libraries, and how engines find them."""
