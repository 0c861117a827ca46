"""Semantic segmentation: a frame in, a class per pixel of it out.

Graphs that give class numbers have resized and taken the maximum already; their numbers are brought
to the frame's size by the nearest pixel. Graphs that give logits are resized twice, to the input
and to the frame, as the published protocol does. Large frames can go through in windows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.windows import window_corners
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.pictures.crop import Frame, check_frame, resample
from prunus.runtime.pictures.opencv import load_cv2
from prunus.runtime.pictures.tensor import to_tensor
from prunus.runtime.protocols import Closable
from prunus.runtime.tasks.calls import Buffers, OneStream, StageClock, in_turn
from prunus.runtime.tasks.registry import require_task
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess
from prunus.runtime.tasks.segmentation.frame_fit import FrameFit, resize

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session
    from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing

Classes = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]
Batch = npt.NDArray[np.uint8]
_CHANNELS_AT_ONCE = 64  # OpenCV resizes up to 512 channels; few at a time stay in the cache


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth: identity it is
class Mask:
    """What was seen in one frame.

    Attributes:
        classes: (h, w) uint8 or int32 class number of each pixel of the frame.
        foreground: (h, w) float32 0..1, how sure the foreground is; None where the card has none.
    """

    classes: Classes
    foreground: Floats | None = None


class Segmenter(Closable):
    """Segment frames of any size with one static graph.

    Any number of threads may share one without smoothing. One that steadies masks belongs to one
    stream; several of them may share the session.

    Args:
        session: An open session of a segmentation model.
        smoothing: Steadies the masks of successive frames; None for pictures.

    Raises:
        ArtifactError: the card is not that of a segmentation network.
    """

    def __init__(self, session: Session, smoothing: MaskSmoothing | None = None) -> None:
        self.session, self.smoothing = session, smoothing
        self.card = session.card
        self.preprocess, self.postprocess = _contract(self.card)
        self.fit = FrameFit(self.preprocess)
        batch = self.card.inputs[0].shape[0]
        self._buffers = Buffers((batch, *self.fit.size, 3))
        self._clock = StageClock("fit", "infer", "decode")
        self._stream: AbstractContextManager[None] = (
            nullcontext() if smoothing is None else OneStream("A segmenter that steadies masks")
        )

    @staticmethod
    def open(
        path: str | Path,
        backend: str = "auto",
        threads: int | None = None,
        *,
        device: str = "cpu",
        options: BackendOptions | None = None,
        smoothing: MaskSmoothing | None = None,
    ) -> Segmenter:
        """Open a model file; the arguments are those of `prunus.runtime.open`."""
        from prunus.runtime.session.base import open as open_session

        session = open_session(path, backend, threads=threads, device=device, options=options)
        try:
            return Segmenter(session, smoothing)
        except ArtifactError:
            session.close()
            raise

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of this thread's last call by part: ``fit``, ``infer`` and ``decode``."""
        return self._clock.stage_ms

    @in_turn
    def __call__(self, frame_bgr: Frame) -> Mask:
        """Segment one frame.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR, any size.

        Returns:
            Classes, and the foreground's probability where the model gives one, in frame pixels.

        Raises:
            TensorError: the frame has a wrong shape or dtype, or the model gave no finite numbers.
            UsageError: the frame does not become the model's input size (``keep_ratio`` only), or
                two threads feed one stream of steadied masks.
        """
        return self._one(frame_bgr, self.smoothing)

    def _one(self, frame_bgr: Frame, steady: MaskSmoothing | None) -> Mask:
        check_frame(frame_bgr)
        began = time.perf_counter_ns()
        times = self._clock.start()
        scaled = self.fit.scale(frame_bgr)
        with self._buffers.borrowed() as buffer:
            if self.preprocess.fit != "sliding":
                self.fit.place(scaled, buffer[0])
                buffer[1:] = 0
            times["fit"] = (time.perf_counter_ns() - began) / 1e6
            size = (frame_bgr.shape[0], frame_bgr.shape[1])
            mask = self._mask(scaled, size, buffer, times, steady)
        total = (time.perf_counter_ns() - began) / 1e6
        times["decode"] = total - times["fit"] - times["infer"]
        return mask

    @property
    def places(self) -> int:
        """How many frames `many` takes: the batch, 1 where frames slide or masks are steadied."""
        alone = self.preprocess.fit == "sliding" or self.smoothing is not None
        return 1 if alone else self.card.inputs[0].shape[0]

    def many(
        self, frames_bgr: Sequence[Frame], steady: Sequence[MaskSmoothing | None] = ()
    ) -> list[Mask]:
        """Segment frames of any sizes in one run, as single calls would.

        Args:
            frames_bgr: 1 to `places` of uint8 (height, width, 3) BGR.
            steady: What steadies the masks of each frame's stream, for a segmenter that has no
                smoothing of its own; nothing does where it is left out.

        Raises:
            TensorError: too many of them, or as a single call does.
            UsageError: as a single call does.
        """
        streams = tuple(steady) or (self.smoothing,) * len(frames_bgr)
        if len(frames_bgr) == 1:
            with self._stream:
                return [self._one(frames_bgr[0], streams[0])]
        if not 1 <= len(frames_bgr) <= self.places:
            raise TensorError(
                f"Got {len(frames_bgr)} frames; {self.card.name} takes 1 to {self.places} in a run."
            )
        for frame in frames_bgr:
            check_frame(frame)
        began = time.perf_counter_ns()
        times = self._clock.start()
        scaled = [self.fit.scale(frame) for frame in frames_bgr]
        with self._buffers.borrowed() as buffer:
            for one, slot in zip(scaled, buffer, strict=False):
                self.fit.place(one, slot)
            buffer[len(scaled) :] = 0
            times["fit"] = (time.perf_counter_ns() - began) / 1e6
            raw = self._run(buffer, times)
        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames_bgr]
        masks = [
            self._decoded(r, s, n, own)
            for r, s, n, own in zip(raw, scaled, sizes, streams, strict=False)
        ]
        total = (time.perf_counter_ns() - began) / 1e6
        times["decode"] = total - times["fit"] - times["infer"]
        return masks

    def _mask(
        self,
        scaled: Frame,
        size: tuple[int, int],
        buffer: Batch,
        times: dict[str, float],
        steady: MaskSmoothing | None,
    ) -> Mask:
        """Return the mask, at the frame's size, of a scaled frame that is placed already."""
        if self.preprocess.fit == "sliding":
            return self._from_logits(self._slide(scaled, buffer, times), size, steady)
        return self._decoded(self._run(buffer, times)[0], scaled, size, steady)

    def _decoded(
        self,
        raw: npt.NDArray[Any],
        scaled: Frame,
        size: tuple[int, int],
        steady: MaskSmoothing | None,
    ) -> Mask:
        """Return the mask, at the frame's size, of what the graph gave for its place."""
        inside = (scaled.shape[0], scaled.shape[1])
        if self.postprocess.decoder == "class_ids":
            kind = _number_dtype(len(self.postprocess.classes))
            numbers = raw[: inside[0], : inside[1]].astype(kind, copy=False)
            if steady is not None:
                numbers = steady.classes(numbers)
            return self._from_classes(numbers, size)
        full = _to_input(raw, self.fit.size)[: inside[0], : inside[1]]
        if self.postprocess.decoder == "logits":
            return self._from_logits(full, size, steady)
        probability = np.clip(full[..., 0], 0.0, 1.0)
        if steady is not None:
            probability = steady.probability(probability)
        sure = resample(probability, size)
        return Mask((sure >= 0.5).astype(np.uint8), sure)

    def _run(self, buffer: Batch, times: dict[str, float]) -> npt.NDArray[Any]:
        spec = self.card.inputs[0]
        feed = to_tensor(buffer, spec, self.preprocess)
        began = time.perf_counter_ns()
        outputs = self.session.run({spec.name: feed})
        times["infer"] += (time.perf_counter_ns() - began) / 1e6
        raw = outputs[self.card.outputs[0].name]
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise TensorError(
                f"{self.card.name} returned numbers that are not finite.",
                "Compare the model with its source: prunus check MODEL.onnx",
            )
        return raw

    def _slide(self, scaled: Frame, buffer: Batch, times: dict[str, float]) -> Floats:
        """Return the logits (h, w, classes) of a scaled frame, averaged over windows."""
        height, width = scaled.shape[:2]
        rows, columns = self.fit.size
        corners = window_corners((height, width), self.fit.size, self.preprocess.stride)
        total = np.zeros((height, width, len(self.postprocess.classes)), np.float32)
        count = np.zeros((height, width, 1), np.float32)
        batch = len(buffer)
        for first in range(0, len(corners), batch):
            group = corners[first : first + batch]
            for (y, x), slot in zip(group, buffer, strict=False):
                self.fit.place(scaled[y : y + rows, x : x + columns], slot)
            buffer[len(group) :] = 0
            for (y, x), raw in zip(group, self._run(buffer, times), strict=False):
                part = total[y : y + rows, x : x + columns]
                part += _to_input(raw, self.fit.size)[: part.shape[0], : part.shape[1]]
                count[y : y + rows, x : x + columns] += 1
        total /= count
        return total

    def _from_logits(
        self, logits: Floats, size: tuple[int, int], steady: MaskSmoothing | None
    ) -> Mask:
        numbers = best_class(logits, size).astype(_number_dtype(len(self.postprocess.classes)))
        if steady is not None:
            numbers = steady.classes(numbers)
        return self._from_classes(numbers, size)

    def _from_classes(self, numbers: Classes, size: tuple[int, int]) -> Mask:
        numbers = resize(numbers, size, nearest=True)
        kept = self.postprocess.foreground
        foreground = (numbers == kept).astype(np.float32) if kept >= 0 else None
        return Mask(numbers, foreground)

    def close(self) -> None:
        """Close the session."""
        self.session.close()


def best_class(logits: Floats, size: tuple[int, int]) -> Classes:
    """Return the arg-max (height, width) of logits (h, w, classes) enlarged bilinearly to a size.

    A few channels are enlarged at a time, so that memory stays small for many classes and large
    frames; of equal logits the first class wins.
    """
    best = np.full(size, -np.inf, np.float32)
    winner = np.zeros(size, np.int32)
    for first in range(0, logits.shape[2], _CHANNELS_AT_ONCE):
        part = np.ascontiguousarray(logits[:, :, first : first + _CHANNELS_AT_ONCE])
        part = resize(part, size).reshape(*size, -1)
        own = part.argmax(axis=2)
        value = np.take_along_axis(part, own[..., None], axis=2)[..., 0]
        better = value > best
        best[better], winner[better] = value[better], own[better] + first
    return winner


def _to_input(raw: Floats, size: tuple[int, int]) -> Floats:
    """Return (h, w, channels) at input size of an output (channels, h / stride, w / stride)."""
    parts = [
        resize(np.ascontiguousarray(raw[k : k + _CHANNELS_AT_ONCE].transpose(1, 2, 0)), size)
        for k in range(0, len(raw), _CHANNELS_AT_ONCE)
    ]
    return np.concatenate([p.reshape(*size, -1) for p in parts], axis=2).astype(np.float32)


def _number_dtype(classes: int) -> type[np.integer[Any]]:
    return np.uint8 if classes <= 256 else np.int32


def _contract(card: ModelCard) -> tuple[ScenePreprocess, MaskPostprocess]:
    fix = "Give a file made by: prunus export edaformer"
    before, after = card.preprocess, card.postprocess
    require_task(card.name, card.task, "segmentation", fix)
    if not isinstance(before, ScenePreprocess) or not isinstance(after, MaskPostprocess):
        raise ArtifactError(f"{card.name} does not say how frames become masks.", fix)
    if before.fit == "sliding" and after.decoder != "logits":
        raise ArtifactError(
            f"{card.name} slides over frames but gives no logits to average.",
            "Export it with --logits.",
        )
    load_cv2()
    return before, after
