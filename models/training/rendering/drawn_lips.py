"""Lips that speak a given sound, drawn as networks for drawn lips see real ones.

No licensed collection of talking faces comes with any package, so the lips are made from the voice:
loudness opens the jaw, a low spectral centroid rounds the lips. What is drawn is what
`runtime.tasks.mouth` draws from the landmarks of a real face, which is the bridge between both.
Proportions are those that the face mesh gave on seven portraits of three people, closed and open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.faces.mouth import draw_lips

Floats = npt.NDArray[np.float64]
RATE_HZ, FPS = 16_000, 25
STEP = RATE_HZ // FPS
_WINDOW = 1024  # samples of the spectrum around a frame
_RANGE_DB = 28.0  # below the loud parts by this much, the mouth is closed
_ROUND_HZ = (250.0, 800.0)  # spectral centroids of round and of spread lips
# Places along the half width, in the order of `face_mesh.LIPS`.
_UPPER = np.array([-0.6, -0.28, 0.0, 0.28, 0.6])
_LOWER = np.array([0.53, 0.28, 0.0, -0.28, -0.53])
_INNER = np.array([-0.25, 0.0, 0.25])


@dataclass(frozen=True, slots=True)
class Mouth:
    """A person's lips in the aligned face picture, and how they move.

    Attributes:
        half_width: Pixels from the middle to a corner of the closed mouth.
        upper: Thickness of the upper lip in pixels.
        lower: Thickness of the lower lip in pixels.
        widest: Pixels between the lips when the jaw is open most.
        smile: Pixels by which the corners lie above the middle.
        turn: Roll in radians that alignment left.
        lead: Frames by which the lips are ahead of the sound.
        tremble: Noise of the landmarks in pixels.
        vigour: Exponent of the opening: below 1 the mouth opens early.
    """

    half_width: float = 28.0
    upper: float = 5.5
    lower: float = 7.0
    widest: float = 14.0
    smile: float = 0.0
    turn: float = 0.0
    lead: float = 0.0
    tremble: float = 0.3
    vigour: float = 1.0


def random_mouth(rng: np.random.Generator) -> Mouth:
    """Draw a person."""
    return Mouth(
        half_width=rng.uniform(22, 33),
        upper=rng.uniform(3.5, 7.0),
        lower=rng.uniform(4.5, 9.0),
        widest=rng.uniform(8, 22),
        smile=rng.uniform(-3, 5),
        turn=rng.normal(0, 0.06),
        lead=rng.uniform(-0.5, 1.5),
        tremble=rng.uniform(0.1, 0.6),
        vigour=rng.uniform(0.7, 1.4),
    )


def speech_shape(sound: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return how open and how round a mouth is that says this, per frame.

    Args:
        sound: (T,) float32 at 16 kHz.

    Returns:
        Two arrays (ceil(T / 640),) in 0..1, smoothed over three frames.
    """
    frames = -(-len(sound) // STEP)
    pad = (_WINDOW - STEP) // 2
    wide = np.pad(sound.astype(np.float64), (pad, frames * STEP - len(sound) + _WINDOW - pad))
    windows = np.lib.stride_tricks.sliding_window_view(wide, _WINDOW)[::STEP][:frames]
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), axis=1)) ** 2
    hertz = np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ)
    power = spectrum.sum(axis=1) / _WINDOW**2
    level = 10 * np.log10(power + 1e-10)
    opening = np.clip((level - np.percentile(level, 95) + _RANGE_DB) / _RANGE_DB, 0, 1)
    opening *= power > 1e-8  # silence keeps the mouth shut, whatever is loudest in it
    centroid = (spectrum * hertz).sum(axis=1) / (spectrum.sum(axis=1) + 1e-12)
    low, high = _ROUND_HZ
    rounding = np.clip((high - centroid) / (high - low), 0, 1) * (opening > 0.2)
    return _smooth(opening), _smooth(rounding)


def lip_points(opening: float, rounding: float, mouth: Mouth) -> Floats:
    """Return the 20 landmarks (20, 2) around their mean, in pixels of the aligned face."""
    half = mouth.half_width * (1 - 0.35 * rounding)
    upper, lower = (t * (1 + 0.3 * rounding) for t in (mouth.upper, mouth.lower))
    gap = mouth.widest * opening
    rise, fall = -0.3 * gap, 0.7 * gap  # the jaw moves, the upper lip hardly

    def contour(places: Floats, middle: float) -> Floats:
        return np.stack([places * half, middle * (1 - places**2)], axis=1)

    inner_upper, inner_lower = contour(_INNER, rise), contour(_INNER[::-1], fall)
    left, right = np.array([[-half, 0.0]]), np.array([[half, 0.0]])
    points = np.concatenate([
        left, contour(_UPPER, rise - upper), right, contour(_LOWER, fall + lower),
        0.9 * left, inner_upper, 0.9 * right, inner_lower,
    ])  # fmt: skip
    points[:, 1] -= mouth.smile * (points[:, 0] / mouth.half_width) ** 2
    c, s = np.cos(mouth.turn), np.sin(mouth.turn)
    turned: Floats = points @ np.array([[c, s], [-s, c]])
    turned -= turned.mean(axis=0)
    return turned


def lip_clip(
    sound: npt.NDArray[np.float32], mouth: Mouth, rng: np.random.Generator, size: int = 88
) -> npt.NDArray[np.uint8]:
    """Draw the mouth that says a sound.

    Args:
        sound: (T,) float32 at 16 kHz.
        mouth: Whose.
        rng: For the tremble of landmarks.
        size: Rows and columns of a crop.

    Returns:
        uint8 (ceil(T / 640), size, size), a crop per 1/25 s.
    """
    opening, rounding = (_shifted(track, mouth.lead) for track in speech_shape(sound))
    crops = np.empty((len(opening), size, size), np.uint8)
    for k, (wide, round_) in enumerate(zip(opening**mouth.vigour, rounding, strict=True)):
        points = lip_points(float(wide), float(round_), mouth)
        points += rng.normal(0, mouth.tremble, points.shape)
        # As in the crop of a real face, whose corner lies on whole pixels.
        centre = points.mean(axis=0)
        crops[k] = draw_lips(points + size // 2 + (centre - np.round(centre)), size)
    return crops


def _smooth(track: Floats) -> Floats:
    padded = np.pad(track, 1, mode="edge")
    smooth: Floats = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return smooth


def _shifted(track: Floats, lead: float) -> Floats:
    places = np.arange(len(track)) + lead
    moved: Floats = np.interp(places, np.arange(len(track)), track)
    return moved
