"""Small inputs for a batch, and its command."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

NONE = ("--ray", "none", "--backend", "onnxruntime")


@pytest.fixture
def folder(tmp_path, portrait, video) -> Path:
    """Return a folder of two pictures, in and below it, and a video of 12 frames."""
    inside = tmp_path / "in"
    (inside / "below").mkdir(parents=True)
    shutil.copy(portrait, inside / "000000000007.jpg")
    shutil.copy(portrait, inside / "below" / "000000000009.jpg")
    shutil.copy(video, inside / "walk.mp4")
    (inside / "notes.txt").write_text("no input")
    return inside


@pytest.fixture
def batch(prunus, tmp_path):
    """Return a caller of `prunus batch`; it gives the exit code, its JSON and what was said."""

    def run(task, *words, out=tmp_path / "out", code=0, how=NONE):
        ran = prunus("batch", task, *words, "--out", out, "--json", *how)
        assert ran.code == code, ran.err
        return (json.loads(ran.out) if ran.out else None), ran.err

    return run


def state_of(out: Path) -> dict[str, str]:
    """Return the hash of each file of results, by its name."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def state():
    """Return `state_of`."""
    return state_of


@pytest.fixture
def rows_of():
    """Return a reader of all rows of a folder of results, or of its quarantine."""

    def read(out, table="results"):
        import pyarrow.parquet as parquet

        return parquet.read_table(out / table).to_pylist() if (out / table).is_dir() else []

    return read
