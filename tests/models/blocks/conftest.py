"""Exports of blocks that no shipped model uses: CI makes them all, `make test` none."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of this folder that export as slow."""
    for item in items:
        if HERE in item.path.parents and "run_onnx" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
