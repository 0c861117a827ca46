"""The benchmark of sibling blocks runs, and prints what it checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _run(*arguments):
    command = [sys.executable, "-m", "benchmarks.segmentation.siblings", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_siblings_are_exported_checked_and_counted(tmp_path) -> None:
    out = tmp_path / "siblings.json"
    run = _run(
        "--size", "64x64", "--only", "gcnet", "--export-only", "-o", out
    )
    assert run.returncode == 0, run.stderr
    cases = json.loads(out.read_text())["cases"]
    assert set(cases) == {"edaformer", "gcnet"}
    # 4,949,264 parameters of the published network without conv_seg's 19,350.
    assert cases["edaformer"]["parameters"] == 4_949_264 - 19_350
    assert cases["gcnet"]["macs"] < cases["edaformer"]["macs"]
    assert "gcnet" in run.stdout and "M parameters" in run.stdout


def test_wrong_sizes_are_explained_in_two_lines(tmp_path) -> None:
    run = _run("--size", "100x64", "-o", tmp_path / "none.json")
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "error: Got an input of 100x64; expected multiples of 32.",
        "hint: Nearest: 96x64.",
    ]
    assert not list(tmp_path.iterdir())
