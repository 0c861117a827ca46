"""Sessions: one contract over ONNX Runtime, OpenVINO and TensorRT."""
