"""A picture as the input of a network of which the card says no more than how pictures go in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError
from prunus.runtime.pictures.crop import Frame, check_frame
from prunus.runtime.pictures.tensor import picture_spec, to_tensor
from prunus.runtime.tasks.segmentation.card import ScenePreprocess
from prunus.runtime.tasks.segmentation.frame_fit import FrameFit


def picture_feed(card: ModelCard, frame_bgr: Frame) -> dict[str, npt.NDArray[Any]]:
    """Return the picture input of a network by its name.

    Args:
        card: Its `preprocess` says how a whole frame is fitted.
        frame_bgr: uint8 (height, width, 3) BGR, any size; every place of a batch gets it.

    Raises:
        ArtifactError: the card does not say how, or no input takes pictures.
        TensorError: the frame has a wrong shape or dtype.
    """
    if not isinstance(card.preprocess, ScenePreprocess) or card.preprocess.fit == "sliding":
        raise ArtifactError(
            f"{card.name} does not say how a picture becomes its input.",
            "Say it with --before colour=rgb --before mean=... --before std=..., here or for good "
            "with: prunus card add",
        )
    check_frame(frame_bgr)
    spec, fit = picture_spec(card.inputs, card.name), FrameFit(card.preprocess)
    slots = np.empty((spec.shape[0], *fit.size, 3), np.uint8)
    fit.place(fit.scale(frame_bgr), slots[0])
    slots[1:] = slots[0]
    return {spec.name: to_tensor(slots, spec, card.preprocess)}
