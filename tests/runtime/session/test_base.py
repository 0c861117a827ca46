"""Opening files, checking inputs, and who owns an answer, over every back end that is installed."""

import dataclasses
import importlib.metadata
import math
import os
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest

import prunus.runtime as runtime
from prunus.runtime.errors import UsageError
from prunus.runtime.session import base, registry
from prunus.runtime.session.base import BackendOptions

ONNX_BACKENDS = [b.name for b in registry.BACKENDS if ".onnx" in b.suffixes and b.installed]


def expected(inputs):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    return inputs["image"].astype(np.float32) @ weight * inputs["gain"]


@pytest.mark.parametrize("backend", [*ONNX_BACKENDS, "auto"])
def test_answers_match_numpy_and_belong_to_the_caller(artifact, tiny_inputs, card, backend) -> None:
    with runtime.open(artifact, backend, threads=1) as session:
        assert session.card == card
        assert backend in ("auto", session.backend)
        first = session.run(tiny_inputs)["keypoints"]
        np.testing.assert_allclose(first, expected(tiny_inputs), rtol=1e-6)
        kept = first.copy()
        doubled = {**tiny_inputs, "gain": tiny_inputs["gain"] * 2}
        second = session.run(doubled)["keypoints"]
        np.testing.assert_allclose(second, kept * 2, rtol=1e-6)
        assert np.array_equal(first, kept), "a later call changes no answer"
        assert not np.shares_memory(first, second)
        second[:] = 0  # nor does a caller who works in place
        np.testing.assert_allclose(session.run(tiny_inputs)["keypoints"], kept, rtol=1e-6)
    session.close()
    assert np.array_equal(first, kept), "nor the end of the session"


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_eight_threads_get_the_answers_to_their_own_inputs(
    write_artifact, card, hammer, backend
) -> None:
    rows = 4096
    wide = [dataclasses.replace(s, shape=(rows, *s.shape[1:])) for s in (card.inputs[0],)]
    outputs = tuple(dataclasses.replace(s, shape=(rows, *s.shape[1:])) for s in card.outputs)
    card = dataclasses.replace(card, inputs=(*wide, card.inputs[1]), outputs=outputs)
    path = write_artifact(card, batch=rows)
    rng = np.random.default_rng(0)
    feeds = [
        {"image": rng.integers(0, 256, (rows, 4), np.uint8), "gain": np.float32([k + 1])}
        for k in range(8)
    ]
    with runtime.open(path, backend, threads=1) as session:
        answers = hammer(lambda feed: session.run(feed)["keypoints"], feeds, rounds=100)
    for feed, got in zip(feeds, answers, strict=True):
        wanted = expected(feed)
        assert len(got) == 100
        assert all(np.allclose(one, wanted, rtol=1e-5) for one in got)


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_memory_does_not_grow_per_call(write_artifact, card, backend) -> None:
    rows = 1 << 16
    shape = {"image": (rows, 4), "gain": (1,), "keypoints": (rows, 3)}
    inputs, outputs = (
        tuple(dataclasses.replace(s, shape=shape[s.name]) for s in specs)
        for specs in (card.inputs, card.outputs)
    )
    path = write_artifact(dataclasses.replace(card, inputs=inputs, outputs=outputs), batch=rows)
    feed = {"image": np.ones((rows, 4), np.uint8), "gain": np.float32([1])}
    with runtime.open(path, backend, threads=1) as session:
        for _ in range(20):
            session.run(feed)
        before = _resident_bytes()
        for _ in range(200):
            session.run(feed)
        grown = _resident_bytes() - before
    assert grown < 20 * rows * 3 * 4, "a tenth of what 200 kept answers would take"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_inputs_of_any_memory_layout_are_only_read(artifact, tiny_inputs, backend) -> None:
    image = np.zeros(9, np.uint8)[1:].reshape(4, 2).T
    image[:] = tiny_inputs["image"]
    gain = np.frombuffer(b"\0" + np.float32(0.5).tobytes(), np.float32, 1, 1)
    assert not image.flags.c_contiguous and not gain.flags.writeable and not gain.flags.aligned
    with runtime.open(artifact, backend, threads=1) as session:
        found = session.run({"image": image, "gain": gain})["keypoints"]
    np.testing.assert_allclose(found, expected(tiny_inputs), rtol=1e-6)
    assert np.array_equal(image, tiny_inputs["image"])


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_bytes_open_like_a_file_and_need_a_card(artifact, tiny_inputs, card, backend) -> None:
    data = artifact.read_bytes()
    with runtime.open(data, backend, threads=1, card=card) as session:
        np.testing.assert_allclose(
            session.run(tiny_inputs)["keypoints"], expected(tiny_inputs), rtol=1e-6
        )
    with pytest.raises(UsageError, match="without a card"):
        runtime.open(data, backend)


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_each_thread_reads_the_time_of_its_own_run(artifact, tiny_inputs, backend) -> None:
    seen = []
    with runtime.open(artifact, backend, threads=1) as session:
        assert math.isnan(session.run_ms)
        session.run(tiny_inputs)
        assert 0 < session.run_ms < 60_000
        other = threading.Thread(target=lambda: seen.append(session.run_ms))
        other.start()
        other.join()
    assert math.isnan(seen[0])


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_a_closed_session_says_so(artifact, tiny_inputs, backend) -> None:
    session = runtime.open(artifact, backend, threads=1)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="has been closed"):
        session.run(tiny_inputs)


def test_threads_below_one_are_refused(artifact) -> None:
    with pytest.raises(UsageError, match="0 threads"):
        runtime.open(artifact, threads=0)


class Counting(base.BaseSession):
    """Counts the calls inside; each stays until it is let go."""

    backend = "test"

    def __init__(self, card, at_once) -> None:
        super().__init__(card, "counting", BackendOptions(), at_once=at_once)
        self.lock, self.inside, self.most, self.order = threading.Lock(), 0, 0, []
        self.arrived, self.go, self.freed_at = threading.Semaphore(0), threading.Semaphore(0), -1

    def _infer(self, inputs):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(int(inputs["image"][0, 0]))
        self.arrived.release()
        self.go.acquire()
        with self.lock:
            self.inside -= 1
        return {}

    def _free(self) -> None:
        self.freed_at = self.inside


def _start(session, number, inputs):
    feed = {**inputs, "image": np.full_like(inputs["image"], number)}
    thread = threading.Thread(target=session.run, args=(feed,))
    thread.start()
    return thread


class Queue(deque):
    """The waiting line of a session; says when somebody joined it."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = threading.Semaphore(0)

    def append(self, ticket) -> None:
        super().append(ticket)
        self.joined.release()


@pytest.mark.parametrize("at_once", [1, 3])
def test_as_many_calls_as_allowed_the_others_in_order(card, tiny_inputs, at_once) -> None:
    session = Counting(card, at_once)
    session._turns._waiting = line = Queue()
    threads = []
    for number in range(8):
        threads.append(_start(session, number, tiny_inputs))
        line.joined.acquire()
    for _ in threads:
        session.arrived.acquire()
        session.go.release()
    for thread in threads:
        thread.join()
    assert session.most == at_once
    # Those who were let in together may note themselves in any order.
    assert all(abs(place - number) < at_once for place, number in enumerate(session.order))


def test_closing_waits_for_calls_that_have_begun(card, tiny_inputs, monkeypatch) -> None:
    session, shut = Counting(card, 1), threading.Event()
    running = _start(session, 1, tiny_inputs)
    session.arrived.acquire()
    wait_for = session._turns._changed.wait_for

    def told(condition):
        shut.set()
        return wait_for(condition)

    monkeypatch.setattr(session._turns._changed, "wait_for", told)
    closing = threading.Thread(target=session.close)
    closing.start()
    shut.wait()
    assert session.freed_at == -1, "freed under a running call"
    with pytest.raises(UsageError, match="has been closed"):
        session.run(tiny_inputs)
    session.go.release()
    running.join()
    closing.join()
    assert session.freed_at == 0


def test_an_interrupted_wait_holds_nobody_up(card, tiny_inputs, monkeypatch) -> None:
    session = Counting(card, 1)
    running = _start(session, 1, tiny_inputs)
    session.arrived.acquire()

    def interrupted(condition, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(session._turns._changed, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run(tiny_inputs)
    monkeypatch.undo()
    session.go.release()
    running.join()
    session.go.release()
    session.run(tiny_inputs)
    assert len(session.order) == 2


def test_a_failed_run_gives_its_turn_back(card, tiny_inputs, monkeypatch) -> None:
    session = Counting(card, 1)
    session.go.release()

    def failing(inputs):
        raise RuntimeError("planted")

    monkeypatch.setattr(session, "_infer", failing)
    with pytest.raises(RuntimeError, match="planted"):
        session.run(tiny_inputs)
    monkeypatch.undo()
    session.run(tiny_inputs)
    session.close()


def test_rows_name_real_switches_and_words() -> None:
    known = set(BackendOptions.__dataclass_fields__)
    used = {name for info in registry.BACKENDS for name in info.settings}
    assert used == known, "a switch that no back end reads, or the other way round"
    assert "openvino-bf16" in registry.words() and "tensorrt" not in registry.words()
    for word in registry.words():
        name, arithmetic = registry.split_word(word)
        assert word == (name if arithmetic == "auto" else f"{name}-{arithmetic}")
    with pytest.raises(UsageError, match="did you mean 'openvino-bf16'"):
        registry.split_word("openvino-bf17")
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        registry.split_word("openvin")
    row = registry.find("openvino")
    assert [row.budget("f32", p) for p in ("fp32", "fp16", "int8")] == ["fp32", "fp16", "int8"]
    assert [row.budget("bf16", p) for p in ("fp32", "fp16", "int8")] == ["fp16", "fp16", "int8"]


def test_extras_of_rows_are_declared() -> None:
    declared = importlib.metadata.metadata("prunus").get_all("Provides-Extra")
    assert {p.extra for info in registry.BACKENDS for p in info.packages} <= set(declared)


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_reports_name_the_switches_that_were_read(artifact, backend) -> None:
    options = BackendOptions(check_finite=True)
    with runtime.open(artifact, backend, threads=1, options=options) as session:
        told = session.settings
    assert told["check_finite"] is True and "cuda_graph" not in told
    assert ("inference_precision" in told) == (backend == "openvino")
