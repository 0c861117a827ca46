"""Real inputs of dense networks: whole frames, fitted as the card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.export.common.samples import Samples
from prunus.export.precision.calibration import (
    BUNDLED,
    CLIPS,
    bundled_media,
    read_frames,
)
from prunus.runtime.arrays import read_array
from prunus.runtime.audio.windows import window_corners
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.pictures.files import PICTURES, read_picture
from prunus.runtime.tasks.segmentation.card import ScenePreprocess
from prunus.runtime.tasks.segmentation.frame_fit import FrameFit, resize

Images = npt.NDArray[np.uint8]
MAXIMUM = 16  # one image holds hundreds of thousands of judged pixels already


def image_samples(images: Images, source: str) -> Samples:
    """Return images as samples of the input ``image``: uint8 (n, height, width, 3)."""
    return Samples({"image": images}, source, "images")


def load_scenes(
    source: str | Path | None, preprocess: ScenePreprocess, limit: int = MAXIMUM
) -> Samples:
    """Load frames as a network's inputs.

    Args:
        source: A picture, a clip, a folder of pictures, an ``.npz`` with the array ``images`` or a
            ``.npy``; None for the bundled media.
        preprocess: The card's constants.
        limit: At most this many images, and never more than `MAXIMUM`, spread evenly.

    Raises:
        SourceError: nothing usable is there.
        HostError: the bundled media are not installed.
    """
    limit = min(limit, MAXIMUM)
    if source is None:
        frames = [f for path in bundled_media() for f in read_frames(path, max(1, limit - 1))]
        return _fitted(frames[-limit:], BUNDLED, preprocess)
    path = Path(source)
    if path.suffix in (".npz", ".npy"):
        return _arrays(path, preprocess).first(limit)
    if not path.is_dir():
        if path.suffix.lower() not in (*PICTURES, *CLIPS):
            raise SourceError(
                f"Got {path}; expected a picture, a clip, a folder or an array file.",
                f"Give one of: {', '.join((*PICTURES, *CLIPS, '.npz', '.npy'))}.",
            )
        return _fitted(read_frames(path, limit), path.name, preprocess)
    pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not pictures:
        raise SourceError(f"{path} holds no pictures.", f"Put files {', '.join(PICTURES)} there.")
    spread = np.linspace(0, len(pictures) - 1, min(limit, len(pictures))).round().astype(int)
    return _fitted([read_picture(pictures[k]) for k in spread], path.name, preprocess)


def _fitted(frames: list[Any], source: str, preprocess: ScenePreprocess) -> Samples:
    images = [fit_whole(frame, preprocess) for frame in frames]
    return image_samples(np.ascontiguousarray(np.stack(images)), source)


def fit_whole(frame: Images, preprocess: ScenePreprocess) -> Images:
    """Return a frame, or the first window of it, at the input size: uint8 (height, width, 3).

    A frame that `keep_ratio` would give another size is stretched: what is compared here is two
    ways to compute one network, which every picture of the right size can show.
    """
    fit = FrameFit(preprocess)
    rows, columns = fit.size
    scaled = fit.scale(frame)
    if preprocess.fit == "keep_ratio":
        scaled = resize(scaled, fit.size)
    elif preprocess.fit == "sliding":
        y, x = window_corners((scaled.shape[0], scaled.shape[1]), fit.size, preprocess.stride)[0]
        scaled = scaled[y : y + rows, x : x + columns]
    out = np.zeros((rows, columns, 3), np.uint8)
    fit.place(scaled, out)
    return out


def _arrays(path: Path, preprocess: ScenePreprocess) -> Samples:
    images = read_array(path, "images", hint="Save them with numpy.savez(path, images=array).")
    shape = (preprocess.height, preprocess.width, 3)
    if images.ndim != 4 or images.shape[1:] != shape or images.dtype != np.uint8 or not len(images):
        raise UsageError(
            f"The images of {path.name} are {images.dtype} {list(images.shape)}; expected uint8 "
            f"[n, {shape[0]}, {shape[1]}, 3] RGB.",
            "Fit them to the network's input size.",
        )
    return image_samples(np.ascontiguousarray(images), path.name)
