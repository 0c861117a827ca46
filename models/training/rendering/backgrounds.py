"""Provide person-free pictures to put behind rendered people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Pictures without people that scikit-image and OpenCV's documentation package install.
_SKIMAGE = (
    "brick.png",
    "coffee.png",
    "rocket.jpg",
    "grass.png",
    "gravel.png",
    "chelsea.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "hubble_deep_field.jpg",
    "coins.png",
)
_OPENCV = (
    "building.jpg",
    "home.jpg",
    "graf1.png",
    "leuvenA.jpg",
    "leuvenB.jpg",
    "aero1.jpg",
    "aero3.jpg",
    "aloeL.jpg",
    "fruits.jpg",
    "baboon.jpg",
    "butterfly.jpg",
    "board.jpg",
    "box_in_scene.png",
    "stuff.jpg",
    "rubberwhale1.png",
    "squirrel_cls.jpg",
    "blox.jpg",
    "apple.jpg",
    "orange.jpg",
    "smarties.png",
    "sudoku.png",
    "chicky_512.png",
    "ela_original.jpg",
    "tmpl.png",
)


def median_frame(
    video: Path, first: int = 0, last: int = 600, count: int = 41
) -> np.ndarray | None:
    """Return the median of ``count`` frames of a fixed camera: the scene without people.

    Returns RGB uint8 (H,W,3), or None when the video cannot be read.
    """
    import cv2

    capture = cv2.VideoCapture(str(video))
    frames = []
    wanted = set(np.linspace(first, last - 1, count).astype(int).tolist())
    for index in range(last):
        done, frame = capture.read()
        if not done:
            break
        if index in wanted:
            frames.append(frame)
    capture.release()
    if not frames:
        return None
    return np.asarray(np.median(np.stack(frames), 0).astype(np.uint8)[..., ::-1])


class Backgrounds:
    """Cut random person-free patches out of photographs, a street scene, gradients and noise."""

    def __init__(self, opencv_data: Path | None = None, more: Sequence[np.ndarray] = ()) -> None:
        """Load what is installed.

        Args:
            opencv_data: Folder of OpenCV's sample data (Debian package ``opencv-doc``), which
                holds ``vtest.avi``; None or a missing folder leaves those pictures out.
            more: Further person-free pictures, RGB uint8 (H,W,3).
        """
        import cv2

        paths = [_skimage_folder() / name for name in _SKIMAGE]
        if opencv_data is not None:
            paths += [opencv_data / name for name in _OPENCV]
        loaded = [cv2.imread(str(path)) for path in paths if path.is_file()]
        self.photographs = [image[..., ::-1] for image in loaded if image is not None]
        self.photographs += more
        video = None if opencv_data is None else opencv_data / "vtest.avi"
        self.street = median_frame(video) if video is not None and video.is_file() else None

    def photograph(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Return a random patch, RGB uint8 (H,W,3), of a photograph, a gradient or noise."""
        if not self.photographs or rng.random() < 0.12:
            return _plain(rng, height, width)
        image = self.photographs[rng.integers(len(self.photographs))]
        patch = _patch(rng, image, height, width, float(rng.uniform(0.25, 1.0)))
        return patch[:, ::-1] if rng.random() < 0.5 else patch

    def street_patch(
        self, rng: np.random.Generator, height: int, width: int, pixels: float
    ) -> np.ndarray:
        """Return a patch of the street scene that covers ``pixels`` of its rows."""
        if self.street is None:
            return self.photograph(rng, height, width)
        return _patch(rng, self.street, height, width, pixels / self.street.shape[0])


def _skimage_folder() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("skimage")
    return Path(spec.origin).parent / "data" if spec and spec.origin else Path("missing")


def _patch(
    rng: np.random.Generator, image: np.ndarray, height: int, width: int, share: float
) -> np.ndarray:
    import cv2

    rows, cols = image.shape[:2]
    h = int(np.clip(rows * share, 8, rows))
    w = int(np.clip(h * width / height, 8, cols))
    y, x = rng.integers(rows - h + 1), rng.integers(cols - w + 1)
    cut = np.ascontiguousarray(image[y : y + h, x : x + w])
    mode = cv2.INTER_AREA if h > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (width, height), interpolation=mode))


def _plain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a gradient between four random corner colours with coarse noise on it."""
    import cv2

    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    if rng.random() < 0.5:  # near-uniform walls are as common as colourful scenes
        corners = corners[:1, :1] + rng.normal(0, 15, (2, 2, 3)).astype(np.float32)
    picture = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    cells = int(rng.integers(4, 40))
    grain = rng.normal(0, rng.uniform(0, 35), (cells, cells, 3)).astype(np.float32)
    picture = picture + cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(picture, 0, 255).astype(np.uint8))
