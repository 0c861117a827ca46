"""Top-down pose: person boxes in, joints in image pixels out, in batches of fixed sizes.

A static graph has one batch size. `PoseEstimator` takes one session per size and covers any number
of people with the cheapest mix of runs; slots that stay empty are black and not read. With a single
session of batch 1 it degrades to one run per person.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.tokens import token_output, told_blocks
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.pictures.crop import CropGeometry, check_boxes, check_frame
from prunus.runtime.pictures.tensor import to_tensor
from prunus.runtime.protocols import Closable
from prunus.runtime.tasks.calls import Buffers, StageClock
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.heatmaps import joints_of_heatmaps
from prunus.runtime.tasks.pose.movenet import rows_to_pixels
from prunus.runtime.tasks.registry import require_task

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session

Floats = npt.NDArray[np.float32]

# One more run costs about as much as this many more people in a run: dispatch, input copy and the
# layers that do not fill the machine. Only the choice of runs depends on it, never the result.
_RUN_OVERHEAD = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class CropTokens:
    """What a network's cuts did to the patches of one person's crop.

    Attributes:
        window: Left, top, width and height of the crop in image pixels.
        maps: Block -> int32 (rows, columns): the token that stands for each patch after the cut at
            that block, -1 where it is gone.
    """

    window: tuple[float, float, float, float]
    maps: Mapping[int, npt.NDArray[np.int32]]


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth: identity it is
class Pose:
    """One person in one frame.

    Attributes:
        keypoints: float32 (joints, 3) of x, y in image pixels and score in 0..1.
        box: x0, y0, x1, y1 in image pixels.
        score: 0..1, how sure the model is that this is a person.
        track_id: Identity over time, -1 when nobody tracks.
        age_s: Seconds since the joints were read; above 0 where they were moved on meanwhile.
        tokens: Which patches survived, where all files of the network tell.
    """

    keypoints: Floats
    box: tuple[float, float, float, float]
    score: float
    track_id: int = -1
    age_s: float = 0.0
    tokens: CropTokens | None = None


def _input_pixels(rows: Floats, height: int, width: int) -> Floats:
    return rows


_DECODERS: Mapping[str, Callable[[Floats, int, int], Floats]] = {
    "udp_dark": _input_pixels,
    "regression": _input_pixels,
    "movenet": rows_to_pixels,
    "heatmaps": joints_of_heatmaps,
}


class PoseEstimator(Closable):
    """Estimate the joints of people whose boxes are known; any number of threads may share it.

    Args:
        sessions: Session per batch size, or one session.

    Raises:
        ArtifactError: a card is not that of a pose network, the cards belong to different
            networks, or a key is not the batch size of its session.
    """

    def __init__(self, sessions: Mapping[int, Session] | Session) -> None:
        table = dict(sessions) if isinstance(sessions, Mapping) else {_batch(sessions): sessions}
        if not table:
            raise ArtifactError(
                "Got no sessions; expected at least one.", "Open one with prunus.runtime.open."
            )
        self.sessions: dict[int, Session] = dict(sorted(table.items()))
        self.card = next(iter(self.sessions.values())).card
        self.preprocess, self.postprocess = _contract(self.sessions)
        self.geometry = CropGeometry.of(self.preprocess)
        crop = (self.geometry.height, self.geometry.width, 3)
        # A cut that one of the files does not tell is not told of anybody.
        own = [told_blocks(o.name for o in s.card.outputs) for s in self.sessions.values()]
        self._told = tuple(block for block in own[0] if all(block in told for told in own))
        self._decode = _DECODERS[self.postprocess.decoder]
        self._clock = StageClock("crop", "infer", "decode")
        self._buffers = {
            size: Buffers((session.card.inputs[0].shape[0], *crop))
            for size, session in self.sessions.items()
        }

    @staticmethod
    def open(
        path_or_paths: str | Path | Sequence[str | Path],
        backend: str = "auto",
        threads: int | None = None,
        *,
        device: str = "cpu",
        options: BackendOptions | None = None,
    ) -> PoseEstimator:
        """Open one model file, or several of the same network with different batch sizes.

        The arguments after the files are those of `prunus.runtime.open`.
        """
        from prunus.runtime.session.base import open as open_session

        paths = [path_or_paths] if isinstance(path_or_paths, (str, Path)) else list(path_or_paths)
        with ExitStack() as stack:  # what is open is closed where a later file fails
            sessions = [
                stack.enter_context(
                    open_session(p, backend, threads=threads, device=device, options=options)
                )
                for p in paths
            ]
            estimator = PoseEstimator({_batch(s): s for s in sessions})
            stack.pop_all()
        return estimator

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes at hand, ascending."""
        return tuple(self.sessions)

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of this thread's last call by part: ``crop``, ``infer`` and ``decode``."""
        return self._clock.stage_ms

    def __call__(self, frame_bgr: npt.NDArray[np.uint8], boxes: npt.NDArray[Any]) -> list[Pose]:
        """Estimate one pose per box, in the order of the boxes.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            boxes: (people, 4) of x0, y0, x1, y1 in image pixels; parts outside the frame are fine.

        Returns:
            One pose per box; its score is the mean score of its joints. Nobody in, nobody out.

        Raises:
            TensorError: the frame or the boxes have a wrong shape, dtype or values.
        """
        return self.many([frame_bgr], [boxes])[0]

    def many(
        self, frames_bgr: Sequence[npt.NDArray[np.uint8]], boxes: Sequence[npt.NDArray[Any]]
    ) -> list[list[Pose]]:
        """Estimate the people of several frames, of any sizes, in runs that they share.

        Args:
            frames_bgr: uint8 (height, width, 3) BGR each.
            boxes: (people, 4) for each frame, as for a single call.

        Returns:
            The poses of each frame.

        Raises:
            TensorError: as for a single call.
        """
        for frame in frames_bgr:
            check_frame(frame)
        each = [check_boxes(one) for one in boxes]
        times = self._clock.start()
        owners = [frame for frame, own in zip(frames_bgr, each, strict=True) for _ in own]
        if not owners:
            return [[] for _ in each]
        corners = np.concatenate(each)
        windows = self.geometry.windows(corners)
        read, maps = self._joints(owners, windows, times)
        joints = self.geometry.to_image(read, windows)
        poses = iter(
            Pose(
                k,
                (float(b[0]), float(b[1]), float(b[2]), float(b[3])),
                float(np.clip(k[:, 2], 0, 1).mean()),
                tokens=self._tokens(person, windows, maps),
            )
            for person, (k, b) in enumerate(zip(joints, corners, strict=True))
        )
        return [list(islice(poses, len(own))) for own in each]

    def _joints(
        self,
        owners: Sequence[npt.NDArray[np.uint8]],
        windows: npt.NDArray[np.float64],
        times: dict[str, float],
    ) -> tuple[Floats, Mapping[int, npt.NDArray[np.int32]]]:
        """Return the joints, in crop pixels, of each window of its own frame; then its tokens."""
        parts, at = [], 0
        cuts: dict[int, list[npt.NDArray[np.int32]]] = {block: [] for block in self._told}
        for size in split_batches(len(windows), self.batch_sizes):
            session, batch = self.sessions[size], windows[at : at + size]
            with self._buffers[size].borrowed() as buffer:
                began = time.perf_counter_ns()
                for k, frame in enumerate(owners[at : at + len(batch)]):
                    self.geometry.crop_into(frame, batch[k : k + 1], buffer[k : k + 1])
                # What the last borrower left here is somebody else's picture.
                buffer[len(batch) :] = 0
                cropped = time.perf_counter_ns()
                spec, wanted = session.card.inputs[0], session.card.outputs[0].name
                out = session.run({spec.name: to_tensor(buffer, spec, self.preprocess)})
            inferred = time.perf_counter_ns()
            decoded = self._decode(out[wanted], self.geometry.height, self.geometry.width)
            for block, seen in cuts.items():
                seen.append(out[token_output(block)][: len(batch)])
            parts.append(decoded[: len(batch)].astype(np.float32, copy=False))
            _count(times, began, cropped, inferred, time.perf_counter_ns())
            at += len(batch)
        joints = np.concatenate(parts)
        if not np.isfinite(joints).all():
            raise TensorError(
                f"{self.card.name} returned joints that are not finite.",
                "Compare the model with its source: prunus check MODEL.onnx",
            )
        return joints, {block: np.concatenate(seen) for block, seen in cuts.items()}

    def _tokens(
        self,
        person: int,
        windows: npt.NDArray[np.float64],
        maps: Mapping[int, npt.NDArray[np.int32]],
    ) -> CropTokens | None:
        plan = self.card.tokens
        if not maps or plan is None or plan.grid is None:
            return None
        left, top, width, height = (float(v) for v in windows[person])
        grids = {block: rows[person].reshape(plan.grid) for block, rows in maps.items()}
        return CropTokens((left, top, width, height), grids)

    def close(self) -> None:
        """Close every session."""
        for session in self.sessions.values():
            session.close()


def _count(times: dict[str, float], *instants_ns: int) -> None:
    for part, start, end in zip(times, instants_ns, instants_ns[1:], strict=False):
        times[part] += (end - start) / 1e6


def split_batches(people: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Cover a number of people with runs of the given batch sizes at the least cost.

    Args:
        people: How many there are.
        sizes: Batch sizes at hand, ascending.

    Returns:
        Batch sizes to run, descending; only the last may have empty slots.

    >>> split_batches(5, (1, 4, 8)), split_batches(3, (1, 4, 8)), split_batches(7, (1, 4, 8))
    ((4, 1), (4,), (8,))
    """
    whole, rest = divmod(people, sizes[-1])
    return (sizes[-1],) * whole + _split_rest(rest, sizes)


@lru_cache(maxsize=256)
def _split_rest(people: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for count in range(1, people + 1):
        options = []
        for size in sizes:
            cost, runs = best[max(count - size, 0)]
            options.append(
                (cost + size + _RUN_OVERHEAD, tuple(sorted((*runs, size), reverse=True)))
            )
        best.append(min(options, key=lambda option: (option[0], len(option[1]))))
    return best[people][1]


def _batch(session: Session) -> int:
    return int(session.card.inputs[0].shape[0])


def _contract(sessions: Mapping[int, Session]) -> tuple[ImagePreprocess, KeypointPostprocess]:
    """Return the constants that all sessions share, or say what does not fit."""
    first = next(iter(sessions.values())).card
    fix = "Give files of one pose network, one per batch size, made by: prunus export evitpose"
    for size, session in sessions.items():
        card = session.card
        require_task(card.name, card.task, "pose", fix)
        if not isinstance(card.postprocess, KeypointPostprocess):
            raise ArtifactError(f"{card.name} does not say how its joints are read.", fix)
        prepare = card.preprocess
        if not isinstance(prepare, ImagePreprocess) or prepare.fit != "udp_affine":
            raise ArtifactError(f"{card.name} does not take affine crops of people.", fix)
        if _batch(session) != size:
            raise ArtifactError(f"{card.name} has batch {_batch(session)}; expected {size}.", fix)
        same = (card.model, card.variant, card.preprocess, card.postprocess, card.weights)
        if same != (first.model, first.variant, first.preprocess, first.postprocess, first.weights):
            raise ArtifactError(f"{card.name} and {first.name} are different networks.", fix)
    assert isinstance(first.preprocess, ImagePreprocess)  # for the type checker; refused above
    assert isinstance(first.postprocess, KeypointPostprocess)
    return first.preprocess, first.postprocess
