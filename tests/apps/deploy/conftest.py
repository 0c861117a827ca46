"""Triton's own description of a configuration."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parsed():
    """Return a reader of `config.pbtxt` by Triton's protobuf, which refuses unknown fields."""
    client = pytest.importorskip("tritonclient", reason="could not import 'tritonclient'")
    text_format = pytest.importorskip("google.protobuf.text_format")
    # The folder around it needs gRPC, which nothing else here does.
    path = Path(client.__path__[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda text: text_format.Parse(text, module.ModelConfig())
