"""Real inputs for calibrating int8 and for judging an export: crops of people, as the card says.

The same source gives the same bytes on every machine with the same decoder.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.export.common.samples import Samples
from prunus.runtime.arrays import read_array
from prunus.runtime.errors import HostError, SourceError, UsageError
from prunus.runtime.pictures.files import PICTURES, read_picture
from prunus.runtime.tasks.pose.card import ImagePreprocess

Crops = npt.NDArray[np.uint8]
CLIPS = (".mp4", ".avi", ".mkv", ".mov")
BUNDLED = "bundled clip and portrait"
_PEOPLE = ("pedestrians.mp4", "portrait.jpg")  # of those in apps/media: photographs


def crop_samples(images: Crops, source: str) -> Samples:
    """Return crops as samples of the input ``image``: uint8 (n, height, width, 3) RGB."""
    return Samples({"image": images}, source, "crops")


def load_calibration(
    source: str | Path | None, preprocess: ImagePreprocess, limit: int = 64
) -> Samples:
    """Load crops of people.

    Args:
        source: A folder of pictures of one person each, an ``.npz`` with the array ``crops`` or a
            ``.npy``, a picture or a clip in which people are found; None for the bundled media.
        preprocess: Size and colour order of the crops.
        limit: At most this many crops, spread evenly.

    Raises:
        SourceError: nothing usable is there.
        HostError: the bundled media or the people finder are not installed.
    """
    if source is None:
        files = bundled_media()
        crops = [crop for path in files for crop in find_people(path, preprocess, limit)]
        return _calibration(crops, BUNDLED, preprocess).first(limit)
    path = Path(source)
    if path.suffix in (".npz", ".npy"):
        made = "Save it with numpy.savez(path, crops=array)."
        stored = read_array(path, "crops", hint=made)
        return _calibration(stored, path.name, preprocess).first(limit)
    if path.is_dir():
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not pictures:
            raise SourceError(
                f"{path} holds no pictures.",
                f"Put files {', '.join(PICTURES)} there, one person each.",
            )
        spread = np.linspace(0, len(pictures) - 1, min(limit, len(pictures))).round().astype(int)
        crops = [whole_crop(read_picture(pictures[k]), preprocess) for k in spread]
        return _calibration(crops, path.name, preprocess)
    return _calibration(find_people(path, preprocess, limit), path.name, preprocess).first(limit)


def bundled_media() -> list[Path]:
    """Return the clip and the portrait of people that come with prunus, sorted by name.

    Clips for other purposes are left out: number formats are calibrated and judged on photographs.

    Raises:
        HostError: they are not installed.
    """
    from prunus.models.zoo import shipped_file

    # Looked up, not imported: the exporter must not depend on the applications.
    spec = importlib.util.find_spec("prunus.apps")
    folders = list(spec.submodule_search_locations or []) if spec else []
    purpose = "A comparison on the bundled clip (--calibration takes your own pictures)"
    found = [shipped_file(Path(f) / "media" / name, purpose) for f in folders for name in _PEOPLE]
    files = [path for path in found if path.is_file()]
    if len(files) < len(_PEOPLE):
        raise HostError(
            "The bundled pictures of people are not installed.",
            "Give your own with --calibration FOLDER (one person per picture).",
        )
    return files


def find_people(path: Path, preprocess: ImagePreprocess, limit: int = 64) -> list[Crops]:
    """Return crops of the people in a picture or clip, found by MoveNet MultiPose.

    Args:
        path: The file.
        preprocess: Size, padding and colour order of the crops.
        limit: Of a clip, as many frames are looked at as could fill this many crops.

    Raises:
        SourceError: the file cannot be read or shows nobody.
    """
    from prunus.models.zoo import model_path
    from prunus.runtime.pictures.crop import CropGeometry
    from prunus.runtime.tasks.pose.people import PeopleFinder

    geometry = CropGeometry.of(preprocess)
    crops: list[Crops] = []
    with PeopleFinder.open(model_path("movenet_multipose"), "onnxruntime", threads=1) as finder:
        for frame in read_frames(path, max(1, limit // 2)):
            # Weak finds are mostly background, which would widen the ranges for nothing.
            boxes = [pose.box for pose in finder(frame) if pose.score >= 0.25]
            if not boxes:
                continue
            windows = geometry.windows(np.asarray(boxes, np.float64))
            out = np.empty((len(boxes), geometry.height, geometry.width, 3), np.uint8)
            geometry.crop_into(frame, windows, out)
            crops.extend(out)
    if not crops:
        raise SourceError(f"No people were found in {path}.", "Give pictures of people.")
    return crops


def read_frames(path: Path, count: int) -> list[Any]:
    """Return up to `count` evenly spaced frames, uint8 (h, w, 3) BGR; a picture is one frame.

    Raises:
        SourceError: the file cannot be read.
    """
    if path.suffix.lower() not in CLIPS:
        return [read_picture(path)]
    from prunus.runtime.pictures.opencv import load_cv2

    cv2 = load_cv2()
    clip = cv2.VideoCapture(str(path))
    frames = []
    while True:
        fine, frame = clip.read()
        if not fine:
            break
        frames.append(frame)
    clip.release()
    if not frames:
        raise SourceError(f"Cannot read {path} as a video.", "Give a clip that OpenCV can decode.")
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [frames[k] for k in chosen]


def whole_crop(frame: Any, preprocess: ImagePreprocess) -> Crops:
    """Return the whole picture as one crop, uint8 (h, w, 3) RGB: it shows one person already."""
    from prunus.runtime.pictures.crop import CropGeometry

    geometry = CropGeometry.of(preprocess)
    box = np.array([[0.0, 0.0, frame.shape[1] - 1.0, frame.shape[0] - 1.0]])
    out = np.empty((1, geometry.height, geometry.width, 3), np.uint8)
    geometry.crop_into(frame, geometry.windows(box), out)
    crop: Crops = out[0]
    return crop


def _calibration(crops: Any, source: str, preprocess: ImagePreprocess) -> Samples:
    images = np.asarray(crops)
    shape = (preprocess.height, preprocess.width, 3)
    if images.ndim != 4 or images.shape[1:] != shape or images.dtype != np.uint8 or not len(images):
        raise UsageError(
            f"The crops of {source} are {images.dtype} {list(images.shape)}; expected uint8 "
            f"[n, {shape[0]}, {shape[1]}, 3] RGB.",
            "Crop people at the network's input size.",
        )
    return crop_samples(np.ascontiguousarray(images), source)
