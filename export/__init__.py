"""From a PyTorch network to a checked ONNX artifact and a TensorRT engine."""

if __name__ != "prunus.export":
    raise ImportError(
        f"Imported as '{__name__}', expected 'prunus.export'. "
        "Install prunus first: pip install -e ."
    )
