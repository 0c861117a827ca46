"""What devices count: in the log once a second, and at once where sound was lost."""

import json
from contextlib import ExitStack

import pytest

from prunus.apps.live.sound_watch import SoundWatch
from prunus.runtime.errors import UsageError


class _Speaker:
    def __init__(self) -> None:
        self.underflows = 0

    def counts(self) -> dict[str, float]:
        return {"underflows": self.underflows, "speaker_waits_ms": 60, "speaker_device_ms": 40}


def test_a_line_a_second_and_one_for_each_fault(tmp_path) -> None:
    now, path, speaker = [0.0], tmp_path / "run.jsonl", _Speaker()
    with ExitStack() as stack:
        watch = SoundWatch(path, {"model": "toy"}, stack, lambda: now[0])
        watch.ends = [object(), speaker, None]  # files count nothing
        for k in range(50):
            now[0] = 0.1 * k
            speaker.underflows = 1 if k >= 15 else 0
            watch.tell(0.1 * k)
        watch.tell(5.0, last=True)
        assert watch.finish() == ((str(path),), [])
        assert watch.declared_ms(0.06) == 160.0
    head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert head == {"model": "toy"}
    assert [line["seconds"] for line in lines] == [0.0, 1.0, 1.5, 2.5, 3.5, 4.5, 5.0]
    assert lines[-1]["underflows"] == 1 and lines[1]["underflows"] == 0


def test_without_a_log_nothing_is_written_and_a_wrong_name_is_told(tmp_path) -> None:
    with ExitStack() as stack:
        watch = SoundWatch(None, {}, stack)
        watch.tell(1.0)
        assert watch.finish() == ((), []) and watch.counts() == {}
        with pytest.raises(UsageError, match="jsonl"):
            SoundWatch(tmp_path / "run.txt", {}, stack)
    assert not list(tmp_path.iterdir())
