"""Runners that a check compares, where what they need is not on every machine."""

from contextlib import ExitStack

from prunus.export.engine import build
from prunus.export.verify import runners


class _Session:
    description = "on a GPU"

    def __init__(self) -> None:
        self.closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.closed = True


def test_an_engine_is_built_in_the_folder_and_closed_with_the_rest(monkeypatch, tmp_path) -> None:
    calls, session = [], _Session()
    monkeypatch.setattr(build, "build_engine", lambda *given: calls.append(given))
    monkeypatch.setattr(runners, "open_session", lambda *given: calls.append(given) or session)
    with ExitStack() as stack:
        made = runners.engine_runner(tmp_path / "net.onnx", "tensorrt_rtx", tmp_path / "e", stack)
        assert not session.closed
    engine = tmp_path / "e" / "net.engine"
    assert calls == [(tmp_path / "net.onnx", engine, "tensorrt_rtx"), (engine, "tensorrt")]
    assert session.closed and made.name == "tensorrt_rtx on a GPU"
