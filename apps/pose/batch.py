"""People and joints of any number of pictures and videos, as `prunus run pose` finds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.batch.task import BatchTask, Found, drawn_ending, entries, uninterrupted
from prunus.apps.batch.together import Seat, Together
from prunus.apps.common.model_files import find_model, pose_models
from prunus.apps.io.frames import Frame, Source
from prunus.apps.io.sources.clip import CLIPS
from prunus.apps.pose.app import run_pose
from prunus.apps.pose.options import PoseBatchOptions, PoseChoice, PoseOptions
from prunus.apps.pose.steps import Steps, Work, variants_of
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import UsageError
from prunus.runtime.pictures.files import PICTURES

if TYPE_CHECKING:
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator

Boxes = npt.NDArray[np.float64]
_NOBODY = np.zeros((0, 4))


class PoseBatch(BatchTask):
    """A row per person and frame; see `BatchTask`."""

    suffixes = (*PICTURES, *CLIPS)
    columns = (
        ("frame", "int64"), ("track_id", "int64"), ("age_s", "double"), ("score", "double"),
        ("bbox", "list<double>"), ("keypoints", "list<double>"),
    )  # fmt: skip
    options: PoseBatchOptions

    def files(self) -> tuple[Path, ...]:
        """See `BatchTask`; raises UsageError for several variants, too."""
        variants = variants_of(pose_models(self.options.models, self.options.level))
        if len(variants) > 1:
            raise UsageError(
                f"Got {len(variants)} variants ({', '.join(v.name for v in variants)}); a batch "
                "computes with one.",
                "Give the files of one variant.",
            )
        return variants[0].files

    def helpers(self) -> tuple[Path, ...]:
        """See `BatchTask`."""
        return (find_model(self.options.finder),)

    def places(self) -> int:
        """See `BatchTask`."""
        return max(read_card(path).inputs[0].shape[0] for path in self.files())

    def open(self, stack: ExitStack) -> None:
        """See `BatchTask`."""
        from prunus.runtime.tasks.pose.estimator import PoseEstimator
        from prunus.runtime.tasks.pose.people import PeopleFinder

        compute, [finder] = self.options.compute, self.helpers()
        self._estimator: PoseEstimator = stack.enter_context(
            PoseEstimator.open(self.files(), **compute.keywords())
        )
        backend = "auto" if compute.backend == "tensorrt" else compute.backend
        self._finder = stack.enter_context(PeopleFinder.open(finder, backend, compute.threads))

    def seats(self, count: int) -> tuple[_Seat, ...]:
        """See `BatchTask`."""

        def run(calls: Sequence[tuple[Any, Boxes]]) -> list[list[Pose]]:
            return self._estimator.many(*zip(*calls, strict=True))

        shared = Together(run, count)
        return tuple(_Seat(self._estimator, shared, member) for member in range(count))

    def media(self, source: Path) -> str:
        """See `BatchTask`."""
        return drawn_ending(source)

    def run(self, source: Path, folder: Path, media: Path | None, seat: _Seat) -> Found:
        """See `BatchTask`."""
        listed = folder / "people.jsonl"
        options = PoseOptions(
            **self.chosen(PoseChoice), sources=(str(source),), json_out=listed,
            overlay=media is not None, sinks=() if media is None else (str(media),),
            compute=self.options.compute,
        )  # fmt: skip
        opener = partial(self._steps, seat)
        done = uninterrupted(run_pose(options, quiet=True, opener=opener))
        facts = {"frames": done.frames, "joints": self._estimator.postprocess.joints}
        return Found(_rows(listed), facts, faults=done.warnings)

    def _steps(
        self,
        seat: _Seat,
        options: PoseOptions,
        sources: Sequence[Source[Frame]],
        stack: ExitStack,
        *,
        quiet: bool,
    ) -> Steps:
        [source] = sources
        steps = _InStep(seat, options, source)
        steps.finder = self._finder
        if options.conf is not None:
            steps.believe(options.conf)
        return steps

    @staticmethod
    def coco(row: Mapping[str, Any], image_id: int, file_name: str) -> dict[str, Any]:
        """Return a row as an entry of COCO's results, as `prunus run pose --json-out` writes it."""
        kept = {k: v for k, v in row.items() if k != "frame" and v is not None}
        return {"image_id": image_id, "category_id": 1, "file_name": file_name, **kept}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of `prunus run pose` as rows; a picture is frame 0."""
    for entry in entries(path):
        yield {**entry, "frame": entry["image_id"] if "seconds" in entry else 0}


class _Seat(Seat):
    """An estimator whose runs are shared with other inputs."""

    def __init__(self, estimator: PoseEstimator, shared: Together[Any, Any], member: int) -> None:
        super().__init__(shared, member)
        self._estimator, self.calls = estimator, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._estimator, name)

    def many(self, images: Sequence[Any], boxes: Sequence[Boxes]) -> list[list[Pose]]:
        """See `PoseEstimator`; of the one source of its run."""
        self.calls += 1
        [image], [own] = images, boxes
        found: list[Pose] = self._shared.call(self._member, (image, own))
        return [found]


class _InStep(Steps):
    """Steps that have the others wait for one frame at most, also where nobody is seen."""

    def __init__(self, seat: _Seat, options: PoseOptions, source: Source[Frame]) -> None:
        super().__init__(options, [source.info], [seat])  # type: ignore[list-item]
        self._seat = seat

    def __call__(self, works: Mapping[int, Work]) -> Mapping[int, Work]:
        """See `Steps`."""
        before = self._seat.calls
        works = super().__call__(works)
        if self._seat.calls == before:
            self._seat.many([works[0].frame.image], [_NOBODY])
        return works
