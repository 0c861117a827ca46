"""Static token pruning from PyTorch to ONNX and TensorRT, and a light runtime for live models."""

__version__ = "0.1.0"
