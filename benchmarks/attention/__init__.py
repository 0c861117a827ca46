"""The local-global operator in ONNX Runtime."""
