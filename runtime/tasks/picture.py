"""What networks of one picture have in common: both sides of the card, a buffer, an end."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import ArtifactError
from prunus.runtime.pictures.letterbox import letterbox_into
from prunus.runtime.protocols import Closable
from prunus.runtime.tasks.calls import Buffers
from prunus.runtime.tasks.pose.card import ImagePreprocess

if TYPE_CHECKING:
    from prunus.runtime.session.base import Session

_Post = TypeVar("_Post")
_Own = TypeVar("_Own", bound="PictureNetwork[Any]")


class PictureNetwork(Closable, Generic[_Post]):
    """A session and its card; any number of threads may share it.

    Args:
        session: An open session; closing this closes it.
        post: What the card must hold as postprocessing.
        what: What such a model is called, for messages.
        example: A file of that kind.

    Raises:
        ArtifactError: the model is another one.
    """

    def __init__(self, session: Session, post: type[_Post], what: str, example: str) -> None:
        card = session.card
        before, after = card.preprocess, card.postprocess
        if not isinstance(before, ImagePreprocess) or not isinstance(after, post):
            raise ArtifactError(
                f"{card.name} is a model for {card.task}; expected {what}.", f"Give {example}."
            )
        self.session, self.preprocess, self.postprocess = session, before, after
        self._buffers = Buffers(card.inputs[0].shape)

    @classmethod
    def open(
        cls: type[_Own], path: str | Path, backend: str = "auto", threads: int | None = None
    ) -> _Own:
        """Open a model file."""
        from prunus.runtime.session.base import open as open_session

        with ExitStack() as undo:
            session = undo.enter_context(open_session(path, backend, threads=threads))
            network: _Own = cls(session)  # type: ignore[call-arg, arg-type]
            undo.pop_all()
        return network

    def _run(self, buffer: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        return self.session.run({self.session.card.inputs[0].name: buffer})

    def _run_whole(
        self, frame_bgr: npt.NDArray[np.uint8]
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float64]]:
        """Run on a letterboxed frame; return the outputs, and input pixels per frame pixel."""
        spec = self.preprocess
        with self._buffers.borrowed() as buffer:
            scale = letterbox_into(
                frame_bgr, buffer[0], rgb=spec.colour == "rgb", pad_value=spec.pad_value
            )
            return self._run(buffer), scale

    def close(self) -> None:
        """Close the session; safe to call twice."""
        self.session.close()
