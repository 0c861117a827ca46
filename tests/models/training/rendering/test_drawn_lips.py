"""Drawn lips follow the sound, and look like those of real faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.models.training.rendering.drawn_lips import (
    RATE_HZ,
    STEP,
    Mouth,
    lip_clip,
    lip_points,
    random_mouth,
    speech_shape,
)
from prunus.runtime.tasks.faces.boxes import FaceFinder
from prunus.runtime.tasks.faces.finder import FaceTracker
from prunus.runtime.tasks.faces.mesh import LIPS, FaceMesh
from prunus.runtime.tasks.faces.mouth import INSIDE, LIP, MouthCropper, align
from prunus.runtime.tasks.separation.card import MouthPreprocess


def _syllables(seconds: float, hertz: float) -> np.ndarray:
    """Bursts of a third of a second, silent in between."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    burst = (time % 0.66 < 0.33) * 0.2
    return (burst * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_the_mouth_opens_with_loudness_and_shuts_in_silence() -> None:
    opening, _ = speech_shape(_syllables(3.3, 300))
    loud = (np.arange(len(opening)) / 25 + 0.02) % 0.66 < 0.33
    inner = loud & np.roll(loud, 1) & np.roll(loud, -1)
    outer = ~loud & ~np.roll(loud, 1) & ~np.roll(loud, -1)
    assert opening[inner].min() > 0.7 and opening[outer].max() < 0.35
    silent, round_ = speech_shape(np.zeros(RATE_HZ, np.float32))
    assert len(silent) == 25 and not silent.any() and not round_.any()


def test_a_low_centroid_rounds_the_lips() -> None:
    low, high = (speech_shape(_syllables(2.0, hertz))[1].max() for hertz in (200, 1500))
    assert low > 0.8 > 0.1 > high
    wide, narrow = (np.ptp(lip_points(0.5, r, Mouth())[:, 0]) for r in (0.0, 1.0))
    assert narrow < 0.75 * wide


def test_points_have_the_order_of_the_mesh() -> None:
    points = lip_points(0.6, 0.0, Mouth())
    assert points.shape == (20, 2)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    x, y = points.T
    assert x.argmin() == 0 and x.argmax() == 6
    assert (y[1:6] < y[7:12].min()).all()  # the upper lip lies above the lower one
    assert (y[13:16] < y[17:20].min()).all() and (np.diff(x[1:6]) > 0).all()
    shut = lip_points(0.0, 0.0, Mouth())
    np.testing.assert_allclose(shut[13:16, 1], shut[17:20, 1], atol=1e-9)


def test_a_clip_shows_what_is_said_a_crop_per_frame() -> None:
    sound = _syllables(2.0, 300)
    rng = np.random.default_rng(0)
    crops = lip_clip(sound, Mouth(lead=0.0), rng)
    assert crops.shape == (50, 88, 88) and crops.dtype == np.uint8
    dark = (crops < (LIP + INSIDE) / 2).sum(axis=(1, 2))
    opening = speech_shape(sound)[0]
    assert np.corrcoef(dark, opening)[0, 1] > 0.95
    assert len(lip_clip(sound[: STEP + 1], Mouth(), rng)) == 2
    ahead = lip_clip(sound, Mouth(lead=2.0), rng)
    early = (ahead < (LIP + INSIDE) / 2).sum(axis=(1, 2))
    assert np.corrcoef(early[:-2], dark[2:])[0, 1] > np.corrcoef(early, dark)[0, 1]


@pytest.fixture(scope="module")
def portrait_lips() -> tuple[np.ndarray, np.ndarray]:
    picture = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))
    with (
        FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as finder,
        FaceMesh.open(zoo.model_path("facemesh"), "onnxruntime", 1) as mesh,
    ):
        points = FaceTracker().update(picture, finder, mesh)[0].points
    matrix = align(points)
    lips = points[list(LIPS), :2] @ matrix[:, :2].T + matrix[:, 2]
    cropper = MouthCropper(MouthPreprocess(frames=1, drawing="lips"), 0)
    return lips - lips.mean(axis=0), cropper.push(picture, points)[0]


def test_a_real_mouth_is_within_what_people_are_drawn_from(portrait_lips) -> None:
    lips, crop = portrait_lips
    rng = np.random.default_rng(1)
    drawn = [lip_points(rng.random(), 0.5 * rng.random(), random_mouth(rng)) for _ in range(400)]
    nearest = min(np.abs(lips - d).mean() for d in drawn)
    assert nearest < 2.5  # pixels of 88
    sizes = np.array([[np.ptp(d[:, 0]), np.ptp(d[:, 1])] for d in drawn])
    real = np.array([np.ptp(lips[:, 0]), np.ptp(lips[:, 1])])
    assert (sizes.min(axis=0) < real).all() and (real < sizes.max(axis=0)).all()
    made = lip_clip(_syllables(2.0, 300), random_mouth(rng), rng)
    assert set(np.unique(crop)) >= {150, 105, 45} <= set(np.unique(made))
