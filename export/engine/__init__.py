"""TensorRT and TensorRT-RTX engines from ONNX files, built in a child process."""
