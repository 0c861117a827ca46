"""Adding a source or a sink is one file and one row; no module imports in a circle."""

import ast
import contextlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.codec.endpoints import CodeSink, CodeSource
from prunus.apps.io import rows
from prunus.apps.io.frames import Frame, SoundSource, SourceInfo
from prunus.apps.io.rows import Row
from prunus.apps.io.sinks import registry as sinks
from prunus.apps.io.sources import registry as sources
from prunus.runtime.audio.packets import Group

ROOT = Path(__file__).parents[3]
ALL = (*sources.SOURCES, *sinks.SINKS)


@pytest.mark.parametrize("row", ALL, ids=lambda row: f"{row.items} {row.help or row.scheme}")
def test_rows_can_be_opened_and_told_apart(row: Row) -> None:
    assert callable(row.load())
    assert row.scheme or row.suffixes or row.pattern or row.folder or row.other


@pytest.mark.parametrize("table", [sources.SOURCES, sinks.SINKS])
def test_no_scheme_has_two_rows(table) -> None:
    named = [(row.items, row.scheme) for row in table if row.scheme]
    assert len(named) == len(set(named))


def test_a_source_is_added_by_one_row(monkeypatch) -> None:
    class Dots:
        def __init__(self) -> None:
            self.info = SourceInfo("dots", 2, 2, 10.0, 3, live=False)
            self.warnings: list[str] = []

        def __iter__(self):
            for k in range(3):
                yield Frame(k, np.full((2, 2, 3), k, np.uint8), "", 0, seconds=k / 10)

        def close(self) -> None:
            pass

    module = types.ModuleType("dots_source")
    module.open_dots = lambda uri: Dots()
    monkeypatch.setitem(sys.modules, "dots_source", module)
    row = Row("dots:", "dots_source:open_dots", scheme="dots")
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, row))
    assert [f.seconds for f in sources.open_source("dots:3")] == [0.0, 0.1, 0.2]
    assert "dots:" in sources.sources_help()


def test_a_sink_is_added_by_one_row_and_works_on_the_command_line(monkeypatch, prunus) -> None:
    taken: list[float | None] = []

    class Tally:
        def __init__(self, uri: str) -> None:
            self.name = uri

        def write(self, frame, drawn) -> None:
            taken.append(frame.seconds)

        def close(self) -> None:
            taken.append(-1.0)

    module = types.ModuleType("tally_sink")
    module.open_tally = lambda uri, info: Tally(uri)
    monkeypatch.setitem(sys.modules, "tally_sink", module)
    row = Row("tally:", "tally_sink:open_tally", scheme="tally")
    monkeypatch.setattr(sinks, "SINKS", (*sinks.SINKS, row))
    assert "tally:" in sinks.sinks_help()
    with contextlib.closing(
        sinks.open_sink("tally:x", SourceInfo("video", 2, 2, 5, 1, False))
    ) as sink:
        assert sink.name == "tally:x"
    taken.clear()
    ran = prunus("run", "pose", "--source", "synthetic:64x48@0*2", "--sink", "tally:", "--single")
    assert ran.code == 0, ran.err
    assert taken == [None, None, -1.0]


def test_sound_and_codes_are_added_by_a_row_each(monkeypatch, prunus, tiny_codec) -> None:
    """A source and a sink of each, through `prunus run codec` both ways."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    heard: list[np.ndarray] = []
    groups: list[Group] = []
    ends: list[object] = []

    class Hum(SoundSource):
        sample_rate_hz = 24_000

        def blocks(self, size):
            tone = np.sin(np.arange(24_000) / 20).astype(np.float32)
            yield from np.split(tone, range(size, 24_000, size))

    class Ear:
        name = "an ear"

        def write(self, sound):
            heard.append(sound)

        def finish(self, samples):
            ends.append(samples)

    class Kept(CodeSource):
        title, voice, samples, damage = "kept", None, 24_000, ""

        def groups(self):
            yield from groups

    class Keeper(CodeSink):
        def begin(self, voice):
            ends.append(voice)

        def write(self, group):
            groups.append(group)

        def finish(self, samples):
            ends.append(samples)

    module = types.ModuleType("dummy_ends")
    module.hum = lambda uri, form: Hum()
    module.ear = lambda uri, form, stack: stack.callback(ends.append, "closed") and Ear()
    module.kept = lambda uri, form: Kept()
    module.keeper = lambda uri, form, stack: Keeper()
    monkeypatch.setitem(sys.modules, "dummy_ends", module)
    more = (Row("hum:", "dummy_ends:hum", "sound", scheme="hum"),
            Row("kept:", "dummy_ends:kept", "codes", scheme="kept"))  # fmt: skip
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, *more))
    more = (Row("ear:", "dummy_ends:ear", "sound", scheme="ear"),
            Row("keeper:", "dummy_ends:keeper", "codes", scheme="keeper"))  # fmt: skip
    monkeypatch.setattr(sinks, "SINKS", (*sinks.SINKS, *more))

    words = ("run", "codec", "--model", tiny_codec("wavtokenizer"), "--backend", "onnxruntime")
    ran = prunus(*words, "--source", "hum:", "--sink", "ear:", "--sink", "keeper:")
    assert ran.code == 0, ran.err
    first = np.concatenate(heard)
    assert len(first) == 24_000 and np.abs(first).max() > 0 and groups
    assert ends.count(24_000) == 2 and ends.count("closed") == 1
    heard.clear()
    ran = prunus(*words, "--source", "kept:", "--sink", "ear:")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(np.concatenate(heard), first, atol=2e-4)
    refused = prunus(*words, "--source", "kept:", "--sink", "keeper:")
    assert refused.code == 2 and "both codes" in refused.err


@pytest.mark.parametrize(
    ("app", "items"),
    [("pose", ("frames",)), ("codec", ("sound", "codes")), ("separation", ("av", "sound"))],
)
def test_the_help_of_the_command_line_comes_from_the_rows(prunus, app, items) -> None:
    shown = " ".join(prunus("run", app, "--help").out.split())
    for row in (*sources.SOURCES, *sinks.SINKS):
        heard = row in sinks.SINKS or row.items != "sound" or app == "codec"
        if row.items in items and heard:
            assert row.help in shown


def test_names_are_listed_as_a_phrase() -> None:
    table = [Row("a", "m:a", scheme="a"), Row("b:", "m:b", scheme="b"), Row("", "m:b", scheme="c")]
    assert rows.listed(table, "frames") == "a or b:"
    assert rows.named(table, "b:1", "av", "frames") is table[1]
    assert rows.named(table, "b:1", "av") is None
    assert rows.listed(table, "av") == ""


def _imports(path: Path) -> set[str]:
    """Return what a module imports anywhere: inside functions and for type checking, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_nothing_imports_in_a_circle() -> None:
    folders = ("io", "live", "web", "common")
    files = [p for f in folders for p in sorted((ROOT / "apps" / f).rglob("*.py"))]
    names = {"prunus." + ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files}
    arrows = {name: (_imports(path) & names.keys()) - {name} for name, path in names.items()}
    while free := [name for name, targets in arrows.items() if not targets]:
        for name in free:
            del arrows[name]
        arrows = {name: targets - set(free) for name, targets in arrows.items()}
    assert not arrows, f"a circle among {sorted(arrows)}"
