"""Controls of a running loop: what is let in, and standing still."""

from __future__ import annotations

import json
import math
import threading

import pytest

from prunus.apps.live.controls import Controls
from prunus.apps.live.loop import Loop
from prunus.apps.pose.options import PoseOptions
from prunus.apps.segmentation.options import SegmentationOptions
from prunus.apps.separation.options import SeparationOptions
from prunus.runtime.errors import UsageError
from prunus.runtime.pipeline.pipeline import Stage


@pytest.fixture
def controls():
    labels = {"mode": "Show", "opacity": "Opacity"}
    return Controls(SegmentationOptions(), labels)


def test_a_form_is_what_the_command_line_says(controls):
    mode, opacity, paused = controls.describe()
    assert mode["label"] == "Show" and mode["choices"] == ("overlay", "blur", "replace")
    assert (opacity["minimum"], opacity["maximum"], opacity["type"]) == (0, 1, "float")
    assert "Strength of the colours" in opacity["help"]
    assert paused["type"] == "bool" and paused["name"] == "paused"
    json.dumps(controls.describe(), allow_nan=False)
    assert controls.values() == {"mode": "overlay", "opacity": 0.5, "paused": False}


def test_changes_are_told_and_taken(controls):
    told = []
    controls.on_change.append(lambda: told.append(controls.values()))
    controls.set({"mode": "blur", "opacity": 1, "paused": True})
    assert told == [{"mode": "blur", "opacity": 1.0, "paused": True}]
    assert type(controls["opacity"]) is float


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"opacity": 1.01}, "expected 0 to 1"),
        ({"opacity": -0.01}, "expected 0 to 1"),
        ({"opacity": math.nan}, "expected a number"),
        ({"opacity": math.inf}, "expected a number"),
        ({"opacity": 10**400}, "expected a number"),
        ({"opacity": "0.3"}, "expected a number"),
        ({"opacity": True}, "expected a number"),
        ({"opacity": None}, "expected a number"),
        ({"opacity": [0.3]}, "expected a number"),
        ({"mode": "blurr"}, "did you mean 'blur'|Unknown mode"),
        ({"mode": 1}, "expected text"),
        ({"paused": 1}, "expected true or false"),
        ({"opacitie": 0.3}, "no control 'opacitie'"),
        ({"source": "/etc/passwd"}, "no control 'source'"),
        ({"": 0}, "no control ''"),
    ],
)
def test_what_is_out_of_range_changes_nothing(controls, changes, said):
    before = controls.values()
    with pytest.raises(UsageError, match=said):
        controls.set({"paused": True, **changes})
    assert controls.values() == before


def test_whole_numbers_stay_whole():
    controls = Controls(SeparationOptions(), {"face": "Face"}, pause=False)
    assert [c["name"] for c in controls.describe()] == ["face"]
    controls.set({"face": 3})
    for wrong in (0, -1, 2.5, "2", True):
        with pytest.raises(UsageError):
            controls.set({"face": wrong})
    with pytest.raises(UsageError, match="no control 'paused'"):
        controls.set({"paused": True})
    assert controls.values() == {"face": 3}


def test_a_source_that_waits_loses_nothing_while_paused():
    controls, passed, third = Controls(PoseOptions(), {}), [], threading.Event()

    def run():
        for item in controls.gate(range(6), live=False):
            passed.append(item)
            if item == 2:
                controls.set({"paused": True})
                third.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert third.wait(10)
    thread.join(0.1)
    assert thread.is_alive() and passed == [0, 1, 2]
    controls.set({"paused": False})
    thread.join(10)
    assert passed == list(range(6))


def test_a_live_source_goes_on_behind_a_pause():
    controls, passed = Controls(PoseOptions(), {}), []

    def source():
        for item in range(9):
            if item in (3, 6):
                controls.set({"paused": item == 3})
            yield item

    passed += controls.gate(source(), live=True)
    assert passed == [0, 1, 2, 6, 7, 8]


def test_the_end_of_a_run_ends_its_pause():
    controls = Controls(PoseOptions(), {})
    controls.set({"paused": True})
    passed = []
    thread = threading.Thread(target=lambda: passed.extend(controls.gate([1], live=False)))
    thread.start()
    controls.close()
    thread.join(10)
    assert not thread.is_alive() and passed == []


@pytest.mark.parametrize(("live", "quiet"), [(True, True), (False, False)])
def test_a_loop_that_ends_while_paused_ends_at_once(live, quiet, capsys):
    controls, shown = Controls(PoseOptions(), {}), []

    def source():
        yield from range(10**9)

    def write(item, _):
        shown.append(item)
        controls.set({"paused": True})
        raise KeyboardInterrupt

    counts = Loop(
        title="test", items=source(), live=live, stages=[Stage("one", int)],
        write=write, note=lambda *_: "", controls=controls, quiet=quiet,
    ).run()  # fmt: skip
    assert counts.interrupted and len(shown) == 1
    assert capsys.readouterr().err == ("" if quiet else "Paused from a page.\n")
    assert not [t for t in threading.enumerate() if t.name in ("capture", "one")]
