"""CPU time by stage."""

import threading
import time

from prunus.apps.live.stage_clocks import StageClocks


def _burn(seconds: float) -> float:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def test_time_goes_to_the_stage_that_took_it_in_whatever_thread() -> None:
    clocks = StageClocks()
    first, second = clocks.clocked("first", _burn), clocks.clocked("second", _burn)
    answers: list[float] = []
    threads = [
        threading.Thread(target=lambda: answers.append(first(0.08))),
        threading.Thread(target=lambda: answers.append(second(0.02))),
        threading.Thread(target=_burn, args=(0.04,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = clocks.found()
    assert sorted(answers) == [0.02, 0.08]
    assert list(found) == ["first", "second", "other"]
    assert 0.08 <= found["first"] < 0.12 and 0.02 <= found["second"] < 0.06
    assert found["other"] >= 0.035


def test_a_stage_that_fails_is_counted_too() -> None:
    clocks = StageClocks()

    def fail(seconds: float) -> None:
        _burn(seconds)
        raise ValueError

    stage = clocks.clocked("stage", fail)
    for _ in range(2):
        try:
            stage(0.01)
        except ValueError:
            pass
    assert clocks.found()["stage"] >= 0.02
