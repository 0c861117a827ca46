"""Options that several verbs share, each spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prunus.apps.io.sinks.registry import sinks_help
from prunus.apps.io.sources.registry import sources_help
from prunus.runtime.errors import UsageError
from prunus.runtime.options import option

Arithmetic = Literal["auto", "f32", "bf16"]

# Text, not a path, which would lose the '/' that means a folder.
SINKS = ("--sink", "--output", "-o")
_ARITHMETIC = "OpenVINO's products; auto is bf16 where the card allows it."
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
        "auto, onnxruntime, openvino or tensorrt.", default="auto", metavar="NAME"
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
    names = []
    for name in backends:
        switched = name in ("auto", "openvino") and arithmetic not in ("auto", plain)
        if arithmetic == "bf16" and not name.startswith(("auto", "openvino")):
            raise UsageError(
                f"{name} computes in the number formats of the graph; it has no bf16 switch.",
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


def inputs() -> Any:
    """Return the field of ``--input``."""
    return option(
        "What an input gets: NAME=FILE.npy, a picture or a sound; or FILE.npz for all; repeatable.",
        default=(), metavar="NAME=FILE",
    )  # fmt: skip


def before() -> Any:
    """Return the field of ``--before``."""
    return option(
        "How pictures become the input: colour=rgb, mean=0,0,0, std=255,255,255, fit=letterbox; "
        "repeatable.", default=(), metavar="KEY=VALUE",
    )  # fmt: skip


def output(help: str = "Where the result goes.") -> Any:
    """Return the field of ``-o``: one file that the verb writes."""
    return option(help, default=None, flags=("--output", "-o"), metavar="PATH")


def frames_in() -> Any:
    """Return the field of ``--source`` where frames are meant."""
    return option(sources_help(), default="0")


def frames_out() -> Any:
    """Return the field of ``--sink`` where frames are meant."""
    return option(sinks_help(), default=(), flags=SINKS, metavar="SINK")


def level() -> Any:
    """Return the field of ``--level``."""
    return option("Pruning level, L0 is dense.", default=None, choices=LEVELS, metavar="LEVEL")


def max_frames() -> Any:
    """Return the field of ``--max-frames``."""
    return option("Stop after so many frames.", default=None, minimum=1)


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
