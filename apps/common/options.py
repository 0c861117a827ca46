"""Options that several verbs share, each spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prunus.apps.io.sinks.registry import sinks_help
from prunus.apps.io.sources.registry import sources_help
from prunus.runtime.errors import UsageError
from prunus.runtime.options import option, quantity
from prunus.runtime.session.registry import BACKENDS

Arithmetic = Literal["auto", "f32", "bf16"]

# Text, not a path, which would lose the '/' that means a folder.
SINKS = ("--sink", "--output", "-o")
_ARITHMETIC = "OpenVINO's products; auto is bf16 where the card allows it."
_FASTEST_MS, _SLOWEST_MS = 1000 / 30, 1000 / 15  # no camera's rate is a reason to ask for more
_LONGEST_MS = 60_000.0
LEVELS = ("L0", "L1", "L2", "L3")


def device() -> Any:
    """Return the field of ``--device``."""
    return option("cpu, cuda:0, or what the back end knows.", default="cpu", metavar="NAME")


def threads() -> Any:
    """Return the field of ``--threads``."""
    return option("CPU threads; default: all cores.", default=None, minimum=1, metavar="N")


def arithmetic() -> Any:
    """Return the field of ``--arithmetic``."""
    return option(_ARITHMETIC, default="auto", metavar="NAME")


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """Which back end computes, where, and with what arithmetic."""

    backend: str = option(
        f"auto, {', '.join(info.name for info in BACKENDS)}.", default="auto", metavar="NAME"
    )
    device: str = device()
    threads: int | None = threads()
    arithmetic: Arithmetic = option(_ARITHMETIC, default="auto", metavar="NAME")
    cuda_graph: bool = option("TensorRT: queue calls instead of replaying them.", default=True)

    def keywords(self) -> dict[str, Any]:
        """Return the arguments with which every task object is opened."""
        from prunus.runtime.session.base import BackendOptions

        switches = BackendOptions(inference_precision=self.arithmetic, cuda_graph=self.cuda_graph)
        return {
            "backend": self.backend,
            "threads": self.threads,
            "device": self.device,
            "options": switches,
        }


def with_arithmetic(
    backends: Sequence[str], arithmetic: Arithmetic, plain: str = ""
) -> tuple[str, ...]:
    """Return back ends by the names under which ``bench`` and ``check`` tell arithmetics apart.

    Args:
        backends: What stands after ``--backend``; ``openvino-bf16`` says its own.
        arithmetic: For those that do not.
        plain: The arithmetic of ``openvino`` without a suffix.

    Raises:
        UsageError: a back end computes in the number formats of the graph alone.

    >>> with_arithmetic(("onnxruntime", "openvino"), "f32")
    ('onnxruntime', 'openvino-f32')
    """
    names, of_row = [], {row.name: [a.name for a in row.arithmetics] for row in BACKENDS}
    for name in backends:
        row = name.partition("-")[0]
        known = ["f32", "bf16"] if row == "auto" else of_row.get(row, ["f32"])
        switched = name == row and len(known) > 1 and arithmetic not in ("auto", plain)
        if arithmetic != "auto" and arithmetic not in known:
            raise UsageError(
                f"{name} computes in the number formats of the graph; it has no {arithmetic} "
                "switch.",
                "Use --backend openvino, or leave out --arithmetic.",
            )
        names.append(f"{name}-{arithmetic}" if switched else name)
    return tuple(names)


def shape() -> Any:
    """Return the field of ``--shape``."""
    return option(
        "Fix the sizes of an input, NAME:1x3x224x224, in a copy of the model; repeatable.",
        default=(), metavar="NAME:SIZES",
    )  # fmt: skip


def sound_log() -> Any:
    """Return the field of ``--log`` of apps for sound."""
    return option(
        "What devices lost, lacked and corrected, a line of JSON each second, as .jsonl.",
        default=None, metavar="FILE",
    )  # fmt: skip


def wait() -> Any:
    """Return the field of ``--wait``."""
    return option(
        "Milliseconds that a request waits for others to fill the model's batch.",
        default=2.0, minimum=0, maximum=1000, metavar="MS",
    )  # fmt: skip


def inputs() -> Any:
    """Return the field of ``--input``."""
    return option(
        "What an input gets: NAME=FILE.npy, a picture or a sound; or FILE.npz for all; repeatable.",
        default=(), metavar="NAME=FILE",
    )  # fmt: skip


def output(help: str = "Where the result goes.") -> Any:
    """Return the field of ``-o``: one file that the verb writes."""
    return option(help, default=None, flags=("--output", "-o"), metavar="PATH")


def frames_in() -> Any:
    """Return the field of ``--source`` where frames are meant."""
    return option(f"{sources_help()[:-1]}; repeatable.", default=("0",), flags=("--source",))


def frames_out() -> Any:
    """Return the field of ``--sink`` where frames are meant."""
    return option(sinks_help(), default=(), flags=SINKS, metavar="SINK")


def level() -> Any:
    """Return the field of ``--level``."""
    return option("Pruning level, L0 is dense.", default=None, choices=LEVELS, metavar="LEVEL")


def max_frames() -> Any:
    """Return the field of ``--max-frames``."""
    return option("Stop after so many frames.", default=None, minimum=1)


def stride() -> Any:
    """Return the field of ``--stride``."""
    return option("Take every n-th frame of the source.", default=1, minimum=1, metavar="N")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much time a frame may take, and who sees to it."""

    budget: str | None = option(
        "Time a frame may take, e.g. 33ms: variant and rate are chosen so that 9 of 10 keep it. "
        "Default for live sources: their interval, from 1/30 to 1/15 s.",
        default=None, metavar="TIME",
    )  # fmt: skip
    fps: float | None = option(
        "The same as frames per second.", default=None, minimum=0.1, metavar="RATE"
    )
    governor: bool = option("Live sources: always the best variant, however late.", default=True)
    log: Path | None = option(
        "A line of JSON per frame: its times, and the variant that was chosen.", default=None
    )

    def budget_ms(self, live: bool, fps: float) -> float | None:
        """Return the time of a frame in milliseconds, None where nobody governs.

        Args:
            live: The source does not wait.
            fps: Its rate, 0 when unknown.

        Raises:
            UsageError: no such time, two answers, or a budget beside ``--no-governor``.
        """
        if self.budget is not None and self.fps is not None:
            raise UsageError("Got --budget and --fps; expected one of them.", "Leave one out.")
        asked = self.budget is not None or self.fps is not None or self.log is not None
        if not self.governor:
            if asked:
                raise UsageError(
                    "Got --no-governor beside --budget, --fps or --log.", "Leave it out."
                )
            return None
        if self.budget is not None:
            return _milliseconds(self.budget)
        if self.fps is not None:
            return 1000 / self.fps
        if not live and self.log is None:
            return None
        return float(min(max(1000 / fps if fps > 0 else 0.0, _FASTEST_MS), _SLOWEST_MS))


def _milliseconds(text: str) -> float:
    """Return a time in milliseconds.

    >>> _milliseconds("33ms"), _milliseconds("0.1s")
    (33.0, 100.0)
    """
    number, unit = quantity(text, "ms", "s") or (0.0, "ms")
    value = number * (1000 if unit == "s" else 1)
    if not 0 < value <= _LONGEST_MS:
        raise UsageError(
            f"Got --budget {text}; expected a time from above 0 to 60 s.",
            "Example: --budget 33ms",
        )
    return value


def reconnect() -> Any:
    """Return the field of ``--no-reconnect``."""
    return option("End when a network stream breaks off.", default=True)


def separator() -> Any:
    """Return the field of ``--model`` where a pair of graphs is meant."""
    return option(
        "NAME of NAME-lips.onnx and NAME-voice.onnx; default: the one that ships.", default=None
    )


def codec() -> Any:
    """Return the field of ``--model`` where the graphs of a codec are meant."""
    return option(
        "NAME of NAME-encoder.onnx and NAME-decoder.onnx, or a listed name; default: the one that "
        "ships.", default=None, metavar="NAME",
    )  # fmt: skip
