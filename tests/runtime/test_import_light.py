"""`import prunus.runtime`, and every module in it but kernels, loads numpy and nothing heavier."""

import json
import os
import subprocess
import sys

PROGRAM = """
import sys, time
import numpy
before = set(sys.modules)
start = time.perf_counter()
import prunus.runtime
first_ms = 1e3 * (time.perf_counter() - start)
import importlib, json, pkgutil
names = [m.name for m in pkgutil.walk_packages(prunus.runtime.__path__, "prunus.runtime.")]
names = [name for name in names if not name.endswith(".kernel")]  # defined by their compiler
for name in names:
    importlib.import_module(name)
loaded = {m.split(".")[0] for m in set(sys.modules) - before}
allowed = {"prunus", "numpy", *sys.stdlib_module_names}
print(json.dumps({"names": names, "foreign": sorted(loaded - allowed), "ms": first_ms}))
"""
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "cv2",
    "typer",
    "triton",
}


def test_nothing_heavy_is_loaded() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found["names"]) > 12
    assert "prunus.runtime.session.onnxruntime" in found["names"]
    assert not HEAVY & set(found["foreign"])
    assert not [name for name in found["foreign"] if not name.startswith("__editable__")]
    print(f"import prunus.runtime: {found['ms']:.0f} ms after numpy")
