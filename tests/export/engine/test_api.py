"""The list of TensorRT names: complete against our sources, and present in what is installed."""

import ast
import importlib
import importlib.util
import io
import types
from pathlib import Path

import pytest

from prunus.export.engine.api import OPTIONAL_NAMES, REQUIRED_NAMES, main, missing_names

ROOT = Path(__file__).parents[3]
SOURCES = (
    "export/engine/worker.py",
    "export/engine/report.py",
    "runtime/session/tensorrt/session.py",
    "runtime/plugins/library.py",
)
INSTALLED = [n for n in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(n)]
# Attributes of our sources that are Python's or numpy's, though the API has the same words.
OURS = {"start", "name", "__name__", "nbytes", "plugin", "message", *dir(list), *dir(io.BytesIO)}

pytestmark = pytest.mark.trt


@pytest.fixture(params=INSTALLED or [None])
def module(request):
    if request.param is None:
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed (extra trt-rtx)")
    return importlib.import_module(request.param)


def test_installed_binding_has_every_name(module) -> None:
    assert missing_names(module) == []
    assert main([module.__name__]) == 0


def test_every_name_in_our_sources_is_listed(module) -> None:
    """An attribute of our sources that the binding knows must be in the list."""
    known = set(dir(module))
    for thing in vars(module).values():
        if isinstance(thing, type):
            known.update(n for n in dir(thing) if not n.startswith("_"))
    listed = {part for name in REQUIRED_NAMES + OPTIONAL_NAMES for part in name.split(".")}
    used = {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse((ROOT / source).read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert used & known - listed - OURS == set()


def test_every_listed_name_is_used() -> None:
    text = "".join((ROOT / source).read_text() for source in SOURCES)
    # A class that only carries a listed member needs no mention of its own.
    unused = [n for n in REQUIRED_NAMES if "." in n and n.rpartition(".")[2] not in text]
    assert unused == []


def test_missing_names() -> None:
    module = types.SimpleNamespace(A=types.SimpleNamespace(b=1), c=2)
    assert missing_names(module, ("A.b", "A.z", "c", "d.e")) == ["A.z", "d.e"]
