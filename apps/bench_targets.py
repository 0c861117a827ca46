"""What `prunus bench` runs besides plain sessions: PyTorch on the same network, and whole poses.

Each function is a target of `prunus.runtime.runner`: called in a process of its own as
``function(inputs, threads, *arguments)``, it returns a call without arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.runtime.card import ModelCard

Inputs = Mapping[str, npt.NDArray[Any]]
MEDIA = Path(__file__).parent / "media"
_COPIES = 4  # different crops that the runs cycle through


def torch_network(
    inputs: Inputs, threads: int | None, path: str, mode: str
) -> Callable[[], object]:
    """Run the PyTorch network that an artifact was exported from, in float32.

    Args:
        inputs: ``image`` as `portrait_crops` gives it.
        threads: CPU threads.
        path: The artifact; its card names network and weights.
        mode: ``eager`` or ``compile`` (torch.compile with its defaults).
    """
    import torch

    from prunus.export.evitpose import reference_module
    from prunus.runtime.artifact import read_card

    if threads is not None:
        torch.set_num_threads(threads)
    module: Any = reference_module(read_card(path)).eval()
    if mode == "compile":
        module = torch.compile(module)
    images = [torch.from_numpy(np.ascontiguousarray(i)) for i in inputs["image"]]
    turn = iter(range(1 << 62))

    def call() -> object:
        with torch.inference_mode():
            return module(images[next(turn) % len(images)])

    return call


def people(
    inputs: Inputs, threads: int | None, backend: str, count: str, *paths: str
) -> Callable[[], object]:
    """Estimate several people in one frame: crops, network and joints in image pixels.

    Args:
        inputs: Unused; the frame is the bundled portrait.
        threads: CPU threads.
        backend: As in `prunus.runtime.open`.
        count: How many people, as text.
        paths: Model files, one per batch size.
    """
    from prunus.apps.pictures import read_picture
    from prunus.runtime.tasks.pose import PoseEstimator

    estimator = PoseEstimator.open(paths, backend, threads)
    frame = read_picture(MEDIA / "portrait.jpg")
    boxes = portrait_boxes(frame, int(count))
    return lambda: estimator(frame, boxes)


def portrait_boxes(frame: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float64]:
    """Return `count` different boxes around the person of the portrait."""
    height, width = frame.shape[:2]
    shift = np.linspace(-0.04, 0.04, count) if count > 1 else np.zeros(1)
    whole = np.array([0.02 * width, 0.02 * height, 0.72 * width, height])
    moved: npt.NDArray[np.float64] = whole + shift[:, None] * np.array([width, height] * 2)
    return moved


def portrait_crops(card: ModelCard) -> dict[str, npt.NDArray[Any]]:
    """Return real inputs: (copies, *input shape) uint8 crops of the portrait.

    Raises:
        UsageError: the model does not take crops of people.
    """
    from prunus.apps.pictures import read_picture
    from prunus.runtime.tasks.crop import CropGeometry

    if card.preprocess is None or card.preprocess.fit != "udp_affine":
        raise UsageError(
            f"{card.name} does not take crops of people, so there is nothing real to feed it.",
            "Bench pose models.",
        )
    frame = read_picture(MEDIA / "portrait.jpg")
    geometry = CropGeometry.of(card.preprocess)
    spec = card.inputs[0]
    stack = np.zeros((_COPIES, *spec.shape), np.uint8)
    flat = stack.reshape(-1, *spec.shape[1:])
    geometry.crop_into(frame, geometry.windows(portrait_boxes(frame, len(flat))), flat)
    return {spec.name: stack}
