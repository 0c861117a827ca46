"""Follow faces from frame to frame, with numbers that stay.

Each face is read in a square around its landmarks of the frame before. The detector runs every n
frames, when nobody is followed, and at once when a face gets lost, so that a quick move is caught
within the same frame.

Numbers start at 1, from left to right among faces that appear together. A face that is out of
sight for up to `timeout_frames` goes on where it was last; one that stays away longer is
*remembered* for `memory_seconds` by a small picture of it. A face that appears and looks like a
remembered one gets its number back, wherever it appears; any other gets the next free number.
Numbers are never given to somebody else while they are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError
from prunus.runtime.pictures.crop import resample, warp
from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.faces.boxes import FaceBox
from prunus.runtime.tasks.faces.mesh import LIPS, Square, square_of_box, square_of_points
from prunus.runtime.tasks.pose.assignment import assign
from prunus.runtime.tasks.pose.similarity import box_iou

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Finder = Callable[[Frame], list[FaceBox]]
Mesh = Callable[[Frame, Sequence[Square]], list[tuple[Floats, float]]]

_LOOK = 24  # side of the small picture by which a face is remembered
_LOOK_PADDING = 1.15  # hair and chin tell people apart, the room behind them does not
_LEARN = 0.2  # share of the newest look in the remembered one


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """Settings of the tracker.

    Attributes:
        every: The detector runs on each n-th frame.
        confirm_frames: A face gets its number when it was seen in so many frames in a row: chance
            likenesses in a street or a curtain do not last.
        padding: How much larger than the face its square is.
        minimum_score: A square that shows a face less surely counts as "not seen".
        minimum_match: Least overlap (IoU) of a detected box with the face that it continues.
        same_face: Two faces that overlap more are one, and the older number stays.
        same_look: Least likeness, -1 to 1, of a returning face to a remembered one.
        timeout_frames: A face is remembered, no longer followed, after so many unseen frames.
        missed_finds: The same after the detector missed it so often in a row.
        memory_seconds: How long a face that left keeps its number.
    """

    every: int = 10
    confirm_frames: int = 1
    padding: float = 1.5
    minimum_score: float = 0.5
    minimum_match: float = 0.2
    same_face: float = 0.5
    same_look: float = 0.7
    timeout_frames: int = 12
    missed_finds: int = 5
    memory_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.every < 1 or self.confirm_frames < 1:
            raise UsageError(
                f"Got every={self.every}, confirm_frames={self.confirm_frames}; "
                "expected at least 1."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in one frame.

    Attributes:
        face_id: Number of the face, from 1.
        points: float32 (468, 3) of x, y in image pixels and depth on the same scale.
        box: x0, y0, x1, y1 around the landmarks in image pixels; it may leave the frame.
        score: 0..1, how sure the mesh network is.
        mouth_inside: Share of the lips' landmarks that lie inside the frame.
    """

    face_id: int
    points: Floats
    box: Box
    score: float
    mouth_inside: float


@dataclass(slots=True, eq=False)
class _Track:
    face_id: int
    points: Floats
    look: Floats
    score: float = 0.0
    seen: int = 1
    unseen: int = 0
    missed_finds: int = 0

    def box(self) -> Box:
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(slots=True, eq=False)
class _Memory:
    face_id: int
    look: Floats
    seconds: float


@dataclass(slots=True, eq=False)
class FaceTracker:
    """Follow the faces of one camera or clip; each needs a tracker of its own.

    Example:
        >>> tracker = FaceTracker()
        >>> faces = tracker.update(frame_bgr, finder, mesh, seconds=0.04)

    Attributes:
        options: Settings.
        found: Whether the detector ran in the last frame.
    """

    options: FaceOptions = field(default_factory=FaceOptions)
    found: bool = False
    _tracks: list[_Track] = field(default_factory=list)
    _left: list[_Memory] = field(default_factory=list)
    _frame: int = 0
    _next: int = 1
    _stream: AbstractContextManager[None] = field(
        default_factory=lambda: OneStream("A face tracker")
    )

    @in_turn
    def update(
        self, frame_bgr: Frame, finder: Finder, mesh: Mesh, seconds: float = -1.0
    ) -> list[Face]:
        """Take one frame; return the faces seen in it, lowest number first.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            finder: Finds faces in a frame, e.g. a `FaceFinder`.
            mesh: Reads landmarks in squares, e.g. a `FaceMesh`.
            seconds: Time of the frame, for the memory; 25 frames a second when left out.
        """
        now = seconds if seconds >= 0 else self._frame / 25
        lost = self._follow(frame_bgr, mesh)
        self.found = lost or not self._tracks or self._frame % self.options.every == 0
        if self.found:
            self._find(frame_bgr, finder(frame_bgr), mesh)
        self._drop_doubles()
        self._let_go(now)
        self._number(frame_bgr, now)
        self._frame += 1
        size = np.array([frame_bgr.shape[1], frame_bgr.shape[0]])
        seen = [t for t in self._tracks if t.unseen == 0 and t.face_id]
        return [_face(track, size) for track in sorted(seen, key=lambda t: t.face_id)]

    def _follow(self, frame: Frame, mesh: Mesh) -> bool:
        """Read each followed face again; return whether one got lost."""
        live = [t for t in self._tracks if t.unseen == 0]
        squares = [square_of_points(t.points, self.options.padding) for t in live]
        lost = len(live) < len(self._tracks)
        for track, square, (points, score) in zip(live, squares, mesh(frame, squares), strict=True):
            moved = square_of_points(points, self.options.padding)
            ok = score >= self.options.minimum_score and _plausible(square, moved)
            if ok:
                track.points, track.score = points, score
                track.seen += 1
            else:
                track.unseen, lost = 1, True
        for track in self._tracks:
            track.unseen += track.unseen > 0 and track not in live
        return lost

    def _find(self, frame: Frame, found: Sequence[FaceBox], mesh: Mesh) -> None:
        pairs = self._match(found)
        matched = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            track.missed_finds = 0 if row in matched else track.missed_finds + 1
        for row, column in pairs:
            track = self._tracks[row]
            if track.unseen:
                self._read(frame, track, found[column], mesh)
            if not track.unseen:
                look = look_of(frame, track.points)
                track.look = _unit((1 - _LEARN) * track.look + _LEARN * look)
        for column in sorted(set(range(len(found))) - {column for _, column in pairs}):
            self._start(frame, found[column], mesh)

    def _read(self, frame: Frame, track: _Track, face: FaceBox, mesh: Mesh) -> None:
        square = square_of_box(face, self.options.padding)
        points, score = mesh(frame, [square])[0]
        if score >= self.options.minimum_score:
            track.points, track.score, track.unseen = points, score, 0

    def _match(self, found: Sequence[FaceBox]) -> list[tuple[int, int]]:
        if not found or not self._tracks:
            return []
        first = np.array([t.box() for t in self._tracks], np.float64)
        second = np.array([f.box for f in found], np.float64)
        return assign(box_iou(first, second), self.options.minimum_match)

    def _start(self, frame: Frame, face: FaceBox, mesh: Mesh) -> None:
        square = square_of_box(face, self.options.padding)
        points, score = mesh(frame, [square])[0]
        if score < self.options.minimum_score:
            return
        self._tracks.append(_Track(0, points, look_of(frame, points), score))

    def _number(self, frame: Frame, now: float) -> None:
        """Give numbers, old ones or new ones, to the faces that have been seen often enough."""
        wanted = self.options.confirm_frames
        new = [t for t in self._tracks if not t.face_id and t.seen >= wanted]
        self._left = [m for m in self._left if now - m.seconds <= self.options.memory_seconds]
        for track in sorted(new, key=lambda t: t.box()[0]):
            track.look = look_of(frame, track.points)
            alike = [float(m.look @ track.look) for m in self._left]
            if alike and max(alike) >= self.options.same_look:
                track.face_id = self._left.pop(int(np.argmax(alike))).face_id
            else:
                track.face_id, self._next = self._next, self._next + 1

    def _drop_doubles(self) -> None:
        kept: list[_Track] = []
        newest = self._next  # faces without a number come last
        for track in sorted(self._tracks, key=lambda t: (t.unseen, t.face_id or newest)):
            box = np.array([track.box()])
            others = np.array([t.box() for t in kept]).reshape(-1, 4)
            if track.unseen == 0 and (box_iou(box, others) > self.options.same_face).any():
                continue
            kept.append(track)
        self._tracks = kept

    def _let_go(self, now: float) -> None:
        limit, finds = self.options.timeout_frames, self.options.missed_finds

        def gone(track: _Track) -> bool:
            if not track.face_id:
                return track.unseen > 0
            return track.unseen > limit or track.missed_finds >= finds

        for track in self._tracks:
            if gone(track) and track.face_id:
                self._left.append(_Memory(track.face_id, track.look, now))
        self._tracks = [t for t in self._tracks if not gone(t)]


def look_of(frame_bgr: Frame, points: Floats) -> Floats:
    """Return what a face looks like: float32 (576,), mean 0 and length 1, upright and grey."""
    matrix = square_of_points(points, _LOOK_PADDING).to_frame(4 * _LOOK)
    small = resample(warp(frame_bgr, matrix, (4 * _LOOK, 4 * _LOOK)), (_LOOK, _LOOK))
    return _unit(small.mean(axis=2).astype(np.float32).ravel())


def _unit(values: Floats) -> Floats:
    centred = values - values.mean()
    unit: Floats = (centred / max(float(np.linalg.norm(centred)), 1e-6)).astype(np.float32)
    return unit


def _plausible(before: Square, after: Square) -> bool:
    """Tell whether a face can have become that from one frame to the next."""
    return 0.6 < after.side / max(before.side, 1e-6) < 1.6


def _face(track: _Track, size: npt.NDArray[np.int_]) -> Face:
    lips = track.points[list(LIPS), :2]
    inside = ((lips >= 0) & (lips <= size - 1)).all(1).mean()
    return Face(track.face_id, track.points, track.box(), track.score, float(inside))
