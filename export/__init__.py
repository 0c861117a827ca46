"""From a PyTorch network to a checked ONNX artifact and a TensorRT engine."""
