"""Masks of any number of pictures and videos, as `prunus run segmentation` makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prunus.apps.batch.task import BatchTask, Found, drawn_ending, entries, uninterrupted
from prunus.apps.batch.together import Seat, Together
from prunus.apps.common.model_files import segmentation_model
from prunus.apps.io.sources.clip import CLIPS
from prunus.apps.segmentation.app import run_segmentation
from prunus.apps.segmentation.options import (
    SegmentationBatchOptions,
    SegmentationChoice,
    SegmentationOptions,
)
from prunus.runtime.card.artifact import read_card
from prunus.runtime.pictures.files import PICTURES
from prunus.runtime.tasks import batches


class SegmentationBatch(BatchTask):
    """A row per frame; see `BatchTask`."""

    suffixes = (*PICTURES, *CLIPS)
    columns = (
        ("frame", "int64"), ("width", "int64"), ("height", "int64"), ("classes", "map<double>"),
        ("mask", "binary"),
    )  # fmt: skip
    options: SegmentationBatchOptions

    def files(self) -> tuple[Path, ...]:
        """See `BatchTask`."""
        return (segmentation_model(self.options.model),)

    def places(self) -> int:
        """See `BatchTask`."""
        return batches.places_of(read_card(*self.files()))

    def open(self, stack: ExitStack) -> None:
        """See `BatchTask`."""
        from prunus.runtime.tasks.segmentation.segmenter import Segmenter

        [path] = self.files()
        opened = stack.enter_context(Segmenter.open(path, **self.options.compute.keywords()))
        self._session = opened.session

    def seats(self, count: int) -> tuple[_Seat, ...]:
        """See `BatchTask`."""
        card = self._session.card

        def run(feeds: Sequence[batches.Feed]) -> Sequence[batches.Feed]:
            if batches.places_of(card) == 1:
                return [self._session.run(feed) for feed in feeds]
            outputs = self._session.run(batches.join(card, feeds))
            return batches.split(outputs, [1] * len(feeds))

        shared = Together(run, count)
        return tuple(_Seat(self._session, shared, member) for member in range(count))

    def media(self, source: Path) -> str:
        """See `BatchTask`."""
        return drawn_ending(source)

    def run(self, source: Path, folder: Path, media: Path | None, seat: _Seat) -> Found:
        """See `BatchTask`."""
        from prunus.runtime.tasks.segmentation.segmenter import Segmenter

        listed, masks = folder / "shares.jsonl", folder / "masks"
        options = SegmentationOptions(
            **self.chosen(SegmentationChoice),
            sources=(str(source),), json_out=listed,
            masks=str(masks) if self.options.masks else None,
            sinks=() if media is None else (str(media),), compute=self.options.compute,
        )  # fmt: skip
        done = uninterrupted(run_segmentation(
            options, quiet=True,
            opener=lambda path, **_: Segmenter(seat),  # type: ignore[arg-type]
        ))  # fmt: skip
        classes = self._session.card.postprocess.classes  # type: ignore[union-attr]
        return Found(_rows(listed, masks), {"frames": done.frames, "classes": classes},
                     faults=done.warnings)  # fmt: skip


def _rows(path: Path, masks: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of `prunus run segmentation` with the bytes of the masks' files."""
    for entry in entries(path):
        entry["classes"] = list(entry["classes"].items())
        if "mask" in entry:
            entry["mask"] = (masks / entry["mask"]).read_bytes()
        yield entry


class _Seat(Seat):
    """A session of one place in the batch of a session that other inputs share; stays open."""

    def __init__(self, session: Any, shared: Together[Any, Any], member: int) -> None:
        super().__init__(shared, member)
        self._session = session
        card = session.card
        if batches.places_of(card) > 1:
            one = {
                side: tuple(dataclasses.replace(s, shape=(1, *s.shape[1:])) for s in specs)
                for side, specs in (("inputs", card.inputs), ("outputs", card.outputs))
            }
            card = dataclasses.replace(card, **one)
        self.card = card

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feed: batches.Feed) -> batches.Feed:
        """See `Session`."""
        outputs: batches.Feed = self._shared.call(self._member, feed)
        return outputs

    def close(self) -> None:
        """Do nothing: the session is everybody's."""
