"""Cards for ONNX files of other exporters."""
