"""The kernel in Triton's interpreter, as a function."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def run_kernel():
    """Return a function that runs the kernel on numpy arrays in a child process."""
    pytest.importorskip("triton", reason="triton is not installed (extra plugin)")
    pytest.importorskip("torch", reason="torch is not installed (extra models)")
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("interpreter.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def run(inputs, heads, scale, combine, dtype="float32", tile=None):
        request = {
            "inputs": inputs,
            "dtype": dtype,
            "tile": tile,
            "attributes": {"heads": heads, "scale": scale, "combine": combine},
        }
        pickle.dump(request, child.stdin)
        child.stdin.flush()
        result = pickle.load(child.stdout)
        if isinstance(result, Exception):
            raise result
        return result

    yield run
    child.stdin.close()
    child.wait(timeout=30)
