"""What a judge of speech is given, and what it says.

All hear mono float32 at 16 kHz. Several come as weights inside packages whose own code needs much
more; only the weights are used, with our own feature extraction.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError

Audio = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
RATE_HZ = 16000
EXTRA = "eval-audio"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a judge is given.

    Attributes:
        original: (T,) at 16 kHz.
        decoded: (T,) at 16 kHz, aligned to it.
        text: What is really said, None when nobody wrote it down.
    """

    original: Audio
    decoded: Audio
    text: str | None = None


class Judge(Protocol):
    """Returns a score; NaN where it cannot tell, for example because a sound is silent.

    Attributes:
        name: Head of its column.
        compares: It needs the original, so that it has nothing to say about the original itself.
    """

    name: str
    compares: bool

    def score(self, heard: Heard) -> float:
        """Judge one sound."""


def load(package: str, purpose: str, extra: str = EXTRA) -> Any:
    """Import a package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError(package, extra, purpose) from None


def file_in(package: str, place: str, purpose: str, hint: str = "") -> Path:
    """Return a file or folder inside a package, without running any of the package's code.

    Args:
        package: Its name.
        place: Inside the package, with slashes.
        purpose: What needs it.
        hint: How to install it, where it is not by the extra.

    Raises:
        MissingDependencyError: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / place).exists():
            return Path(folder) / place
    error = MissingDependencyError(package, EXTRA, purpose)
    if spec is not None:
        error.message = f"The package '{package}' lacks {place}, which {purpose.lower()} needs."
    error.hint = hint or error.hint
    raise error


def session(path: Path, purpose: str) -> Any:
    """Open a judge's network in ONNX Runtime, with one thread."""
    runtime = load("onnxruntime", purpose)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
