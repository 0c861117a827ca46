"""TensorFlow.js graphs into ONNX."""
