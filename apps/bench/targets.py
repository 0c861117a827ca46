"""What `prunus bench` runs besides plain sessions: PyTorch on the same network, and whole poses.

Each function is a target of `prunus.runtime.measure.runner`: called in a process of its own as
``function(inputs, threads, *arguments)``, it returns a call without arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.common.media import PEDESTRIANS, PORTRAIT, bundled
from prunus.runtime.errors import MissingDependencyError, UsageError
from prunus.runtime.tasks.pose.card import ImagePreprocess
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard

Inputs = Mapping[str, npt.NDArray[Any]]
_COPIES = 4  # different crops that the runs cycle through
_MOVED = 24  # pixels from the first to the last window of the portrait
_FACE = (44, 142, 157)  # top, left and side of the square around the portrait's face, in pixels


def torch_network(
    inputs: Inputs, threads: int | None, path: str, mode: str
) -> Callable[[], object]:
    """Run the PyTorch network that an artifact was exported from, in float32.

    Args:
        inputs: As `real_inputs` gives them.
        threads: CPU threads.
        path: The artifact; its card names network and weights.
        mode: ``eager`` or ``compile`` (torch.compile with its defaults).
    """
    import torch

    from prunus.export.common.registry import reference_module
    from prunus.runtime.card.artifact import read_card
    from prunus.runtime.measure.runner import samples

    if threads is not None:
        torch.set_num_threads(threads)
    card = read_card(path)
    module: Any = reference_module(card)
    if mode == "compile":
        module = torch.compile(module)
    feeds = [
        [torch.from_numpy(feed[spec.name]) for spec in card.inputs]
        for feed in samples(card, inputs)
    ]
    turns = itertools.cycle(feeds)

    def call() -> object:
        with torch.inference_mode():
            return module(*next(turns))

    return call


def people(
    inputs: Inputs, threads: int | None, backend: str, count: str, *paths: str
) -> Callable[[], object]:
    """Estimate several people in one frame: crops, network and joints in image pixels.

    Args:
        inputs: Unused; the frame is the bundled portrait.
        threads: CPU threads.
        backend: As for `scene`.
        count: How many people, as text.
        paths: Model files, one per batch size.
    """
    from prunus.runtime.measure.runner import benchmarked
    from prunus.runtime.pictures.files import read_picture
    from prunus.runtime.tasks.pose.estimator import PoseEstimator

    name, options = benchmarked(backend)
    estimator = PoseEstimator.open(paths, name, threads, options=options)
    frame = read_picture(PORTRAIT)
    boxes = portrait_boxes(frame, int(count))
    return lambda: estimator(frame, boxes)


def scene(inputs: Inputs, threads: int | None, backend: str, path: str) -> Callable[[], object]:
    """Take a frame from video to drawn mask: decode, fit, infer, class map, paint.

    Args:
        inputs: Unused; frames are those of the bundled clip, over and over.
        threads: CPU threads, of the model and of OpenCV.
        backend: As in `prunus.runtime.open`; ``openvino-f32`` and ``openvino-bf16`` fix its
            arithmetic.
        path: Model file.
    """
    from prunus.apps.pose.overlay import draw_panel
    from prunus.apps.segmentation.overlay import Look, MaskPainter
    from prunus.runtime.measure.runner import benchmarked
    from prunus.runtime.pictures.opencv import load_cv2
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter

    cv2, (name, options) = load_cv2(), benchmarked(backend)
    if threads is not None:
        cv2.setNumThreads(threads)
    segmenter = Segmenter.open(path, name, threads, options=options)
    paint = MaskPainter(segmenter.postprocess, Look(subject=segmenter.postprocess.foreground))
    film = str(bundled(PEDESTRIANS))
    capture = cv2.VideoCapture(film)

    def call() -> object:
        done, frame = capture.read()
        if not done:
            capture.open(film)
            frame = capture.read()[1]
        mask = segmenter(frame)
        times = "  ".join(f"{k} {v:.1f}" for k, v in segmenter.stage_ms.items())
        return draw_panel(paint.legend(paint(frame, mask), mask), [segmenter.card.name, times])

    return call


def portrait_boxes(frame: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float64]:
    """Return `count` different boxes around the person of the portrait."""
    height, width = frame.shape[:2]
    shift = np.linspace(-0.04, 0.04, count) if count > 1 else np.zeros(1)
    whole = np.array([0.02 * width, 0.02 * height, 0.72 * width, height])
    moved: npt.NDArray[np.float64] = whole + shift[:, None] * np.array([width, height] * 2)
    return moved


def has_real_inputs(card: ModelCard) -> bool:
    """Tell whether `real_inputs` knows what to feed: pictures, or a model of our export scripts."""
    if isinstance(card.preprocess, ImagePreprocess | ScenePreprocess):
        return True
    from prunus.export.common.registry import has_network

    return has_network(card)


def real_inputs(card: ModelCard, copies: int = _COPIES) -> dict[str, npt.NDArray[Any]]:
    """Return real inputs of a model, (copies, *input shape) each, by input name.

    People and scenes need the runtime alone; for other models the export script finds inputs.

    Args:
        card: Of the model.
        copies: Different inputs, fewer where there are no more.

    Raises:
        UsageError: nothing real is known to feed this model.
        MissingDependencyError: the script's packages are not installed.
    """
    if _takes_crops(card):
        return portrait_crops(card, copies)
    if isinstance(card.preprocess, ImagePreprocess):
        return portrait_windows(card, copies)
    if isinstance(card.preprocess, ScenePreprocess):
        return clip_frames(card, copies)
    try:
        from prunus.export.common.registry import load_samples
        from prunus.export.common.samples import full_batches
    except ImportError as error:
        name = error.name or "torch"
        raise MissingDependencyError(name, "export", f"Real inputs for {card.name}") from None
    batch = card.inputs[0].shape[0]
    found = load_samples(card, None, copies * batch)
    feeds = full_batches(found.arrays, batch)
    return {name: np.stack([feed[name] for feed in feeds]) for name in found.arrays}


def _takes_crops(card: ModelCard) -> bool:
    return isinstance(card.preprocess, ImagePreprocess) and card.preprocess.fit == "udp_affine"


def clip_frames(card: ModelCard, copies: int = _COPIES) -> dict[str, npt.NDArray[Any]]:
    """Return real inputs of a dense network: (copies, *input shape) frames of the clip."""
    from prunus.runtime.pictures.opencv import load_cv2
    from prunus.runtime.pictures.tensor import picture_size, picture_spec, to_tensor

    assert isinstance(card.preprocess, ScenePreprocess)  # for the type checker
    cv2, spec = load_cv2(), picture_spec(card.inputs, card.name)
    height, width = picture_size(spec)
    capture = cv2.VideoCapture(str(bundled(PEDESTRIANS)))
    try:
        frames = [capture.read()[1] for _ in range(copies * spec.shape[0])]
    finally:
        capture.release()
    colours = slice(None, None, -1 if card.preprocess.colour == "rgb" else 1)
    resized = np.stack([cv2.resize(frame, (width, height))[:, :, colours] for frame in frames])
    tensors = to_tensor(resized, spec, card.preprocess)
    return {spec.name: tensors.reshape(copies, *spec.shape)}


def portrait_windows(card: ModelCard, copies: int) -> dict[str, npt.NDArray[Any]]:
    """Return real inputs of a finder or of a face mesh: (copies, *input shape) of the portrait.

    A finder gets all of it, a network that stretches its square the face; each copy is moved a
    little.
    """
    from prunus.runtime.pictures.files import read_picture
    from prunus.runtime.pictures.opencv import load_cv2
    from prunus.runtime.pictures.tensor import picture_size, picture_spec, to_tensor

    assert isinstance(card.preprocess, ImagePreprocess)  # for the type checker
    cv2, spec, frame = load_cv2(), picture_spec(card.inputs, card.name), read_picture(PORTRAIT)
    top, left, side = _FACE if card.preprocess.fit == "stretch" else (0, 0, len(frame) - _MOVED)
    height, width = picture_size(spec)
    colours = slice(None, None, -1 if card.preprocess.colour == "rgb" else 1)
    count = copies * spec.shape[0]
    windows = [
        frame[top + k : top + k + side, left + k : left + k + side, colours]
        for k in (_MOVED * n // count for n in range(count))
    ]
    resized = np.stack([cv2.resize(np.ascontiguousarray(w), (width, height)) for w in windows])
    tensors = to_tensor(resized, spec, card.preprocess)
    return {spec.name: tensors.reshape(copies, *spec.shape)}


def portrait_crops(card: ModelCard, copies: int = _COPIES) -> dict[str, npt.NDArray[Any]]:
    """Return real inputs: (copies, *input shape) crops of the portrait.

    Raises:
        UsageError: the model does not take crops of people.
    """
    from prunus.runtime.pictures.crop import CropGeometry
    from prunus.runtime.pictures.files import read_picture
    from prunus.runtime.pictures.tensor import to_tensor

    if not isinstance(card.preprocess, ImagePreprocess) or card.preprocess.fit != "udp_affine":
        raise UsageError(
            f"{card.name} does not take crops of people, so there is nothing real to feed it.",
            "Bench pose models.",
        )
    frame = read_picture(PORTRAIT)
    geometry = CropGeometry.of(card.preprocess)
    spec = card.inputs[0]
    crops = np.zeros((copies * spec.shape[0], geometry.height, geometry.width, 3), np.uint8)
    geometry.crop_into(frame, geometry.windows(portrait_boxes(frame, len(crops))), crops)
    tensors = to_tensor(crops, spec, card.preprocess)
    return {spec.name: tensors.reshape(copies, *spec.shape)}
