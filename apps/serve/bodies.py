"""From the bytes of a request to the input of a model, and from its result to those of an answer.

What a body is, its own first bytes say; the header ``Content-Type`` is not needed. What an answer
is, the header ``Accept`` says among the rows of `ANSWERS`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.api import Predictor, Result
from prunus.results import (
    FacesResult,
    MaskResult,
    PoseResult,
    SpeechResult,
    TensorResult,
    VoicesResult,
)
from prunus.runtime.arrays import read_arrays, write_arrays
from prunus.runtime.card.artifact import file_holding
from prunus.runtime.errors import SourceError, TensorError, UsageError, nearest
from prunus.runtime.pictures.opencv import load_cv2

_HEADER = 1 << 16  # of one array in an .npz, far above what any needs
_ENTRY, _CHANCE = b"PK\x01\x02", 1000  # numbers may spell this too, but not so often
JSON = "application/json"
NPZ = "application/x-npz"
_NAME = Path("The body")


class UnknownBodyError(UsageError):
    """The body is of no kind that this model takes."""


class NoAnswerError(UsageError):
    """The model's answer has no form that the caller accepts."""


@dataclass(frozen=True, slots=True)
class Body:
    """One kind of body.

    Attributes:
        takes: What a model must take for it, as `Predictor.takes` says it.
        media: Its media types, for the OpenAPI document.
        begins: Tells it by its first bytes.
        read: Gets the bytes and the model; returns what the model is called on.
    """

    takes: str
    media: tuple[str, ...]
    begins: Callable[[bytes], bool]
    read: Callable[[bytes, Predictor], Any]


def read_body(data: bytes, model: Predictor) -> Any:
    """Return what a model is called on.

    Raises:
        UnknownBodyError: it is of no kind that the model takes.
        SourceError: it is damaged, or a sound of another rate.
        TensorError: arrays that do not fit the model.
    """
    wanted = [body for body in BODIES if body.takes in model.takes]
    known = ", ".join(media for body in wanted for media in body.media)
    for body in BODIES:
        if body.begins(data):
            if body not in wanted:
                raise UnknownBodyError(
                    f"Got a body of {body.media[0]}; {model.name} takes {known}."
                )
            return body.read(data, model)
    raise UnknownBodyError(
        f"Got a body of {len(data)} bytes that begins like none of {known}.",
        "Send the bytes of the file as they are, without a form around them.",
    )


def _picture(data: bytes, model: Predictor) -> npt.NDArray[np.uint8]:
    from prunus.runtime.pictures.files import picture_of

    return picture_of(data, _NAME)


def _sound(data: bytes, model: Predictor) -> npt.NDArray[np.float32]:
    from prunus.runtime.audio.files import SoundReader

    wanted = model.estimator.format.sample_rate_hz
    try:
        with file_holding(data, ".wav", str(_NAME)) as path, SoundReader(path) as reader:
            if reader.sample_rate_hz != wanted:
                raise SourceError(
                    f"Got a sound of {reader.sample_rate_hz} Hz; expected {wanted} Hz.",
                    "Resample it first.",
                )
            if short := reader.ends_early:
                raise SourceError(f"The sound is cut off: {short}.", "Send it whole.")
            blocks = list(reader.blocks())
    except UsageError as error:
        raise SourceError(error.message, error.hint) from None
    if not blocks:
        raise SourceError("The sound has no samples.", "Send it whole.")
    return np.concatenate(blocks)


def _arrays(data: bytes, model: Predictor) -> dict[str, npt.NDArray[Any]]:
    specs = {spec.name: spec for spec in model.estimator.card.inputs}
    if data.count(_ENTRY) > len(specs) + _CHANCE:  # before a list of them takes memory
        raise SourceError("The body holds too many arrays.", f"{model.name} takes {len(specs)}.")

    def admit(name: str, size: int) -> None:
        if name not in specs:
            raise TensorError(
                f"Got an array named '{name[:80]}'{nearest(name[:80], list(specs))}, which is no "
                "input.",
                f"{model.name} takes: {', '.join(s.describe() for s in specs.values())}.",
            )
        spec = specs[name]
        if size > math.prod(spec.shape) * np.dtype(spec.dtype).itemsize + _HEADER:
            raise TensorError(f"Input '{name}' has {size} bytes; expected {spec.describe()}.")

    feed = read_arrays(data, admit=admit, hint="Make it with numpy.savez.")
    model.items(feed)
    return feed


BODIES = (
    Body(
        "picture", ("image/jpeg", "image/png"),
        lambda data: data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n", _picture,
    ),
    Body(
        "sound", ("audio/wav",),
        lambda data: data[:4] == b"RIFF" and data[8:12] == b"WAVE", _sound,
    ),
    Body(
        "clip", ("video/mp4", "video/webm"),
        lambda data: data[4:8] == b"ftyp" or data[:4] == b"\x1a\x45\xdf\xa3",
        lambda data, model: data,
    ),
    Body("tensors", (NPZ,), lambda data: data[:4] == b"PK\x03\x04", _arrays),
)  # fmt: skip


def _json(result: Result) -> bytes:
    return result.to_json().encode()


def _mask(result: MaskResult) -> bytes:
    numbers = result.mask.classes
    dtype = np.uint8 if len(result.post.classes) <= 256 else np.uint16
    done, data = load_cv2().imencode(".png", numbers.astype(dtype))
    assert done, "OpenCV writes PNG"
    return bytes(data)


def _wav(result: SpeechResult) -> bytes:
    from prunus.runtime.audio.files import write_wav

    file = io.BytesIO()
    write_wav(file, iter([result.sound]), result.sample_rate_hz)
    return file.getvalue()


def _npz(result: TensorResult) -> bytes:
    return _arrays_file(result.tensors)


def _voices(result: VoicesResult) -> bytes:
    return _arrays_file({f"voice_{number}": voice for number, voice in result.voices.items()})


def _arrays_file(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    write_arrays(file, arrays)
    return file.getvalue()


# What a result may be sent as; the first where the caller does not say.
ANSWERS: Mapping[type[Any], Mapping[str, Callable[[Any], bytes]]] = {
    PoseResult: {JSON: _json},
    FacesResult: {JSON: _json},
    MaskResult: {JSON: _json, "image/png": _mask},
    SpeechResult: {JSON: _json, "audio/wav": _wav},
    VoicesResult: {JSON: _json, NPZ: _voices},
    TensorResult: {NPZ: _npz, JSON: _json},
}


def write_answer(result: Result, accept: str) -> tuple[bytes, str]:
    """Return the answer and its media type, the first row that the header ``Accept`` allows.

    Raises:
        NoAnswerError: it allows none.
    """
    allowed = [word.partition(";")[0].strip().lower() for word in accept.split(",") if word.strip()]
    rows = ANSWERS[type(result)]
    named = [word for word in allowed if word in rows]
    for media in named or rows:
        if named or not allowed or {"*/*", f"{media.partition('/')[0]}/*"} & set(allowed):
            return rows[media](result), media
    raise NoAnswerError(f"Got Accept: {accept[:200]}; this answer comes as {', '.join(rows)}.")
