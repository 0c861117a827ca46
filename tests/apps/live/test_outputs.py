"""Where each of several sources goes."""

from __future__ import annotations

import pytest

from prunus.apps.live.loop import check_outputs
from prunus.apps.live.outputs import own_path
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("uri", "own"),
    [
        ("out.mp4", "out-yard.mp4"), ("a/people.jsonl", "a/people-yard.jsonl"),
        ("frames/", "frames/yard/"), ("frames", "frames/yard/"), ("-", "-"), ("null:", "null:"),
        ("web:0.0.0.0:80?token=x.y", "web:0.0.0.0:80?token=x.y"), ("window:", "window:"),
    ],
)  # fmt: skip
def test_files_are_named_after_their_source_and_the_rest_is_shared(uri, own):
    assert own_path(uri, "yard") == own


def test_a_file_that_one_source_would_get_is_not_another_source(tmp_path):
    yard, taken = tmp_path / "yard.mp4", tmp_path / "out-yard.mp4"
    for path in (yard, taken):
        path.write_bytes(b"x")
    sources = (str(yard), str(taken))
    check_outputs(sources[:1], (str(tmp_path / "out.mp4"),))
    with pytest.raises(UsageError, match=r"out-yard.mp4 is both source and output"):
        check_outputs(sources, (str(tmp_path / "out.mp4"),))
