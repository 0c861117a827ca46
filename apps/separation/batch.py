"""One voice of any number of clips, as `prunus run separation` separates it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.batch.task import BatchTask, Found, uninterrupted
from prunus.apps.common.model_files import find_model, separation_models
from prunus.apps.io.sources.clip import CLIPS
from prunus.apps.separation.app import run_separation
from prunus.apps.separation.models import FACES, open_models
from prunus.apps.separation.options import (
    SeparationBatchOptions,
    SeparationChoice,
    SeparationOptions,
)
from prunus.runtime.audio.files import SoundReader

_FULL = 32768  # of 16-bit samples


class SeparationBatch(BatchTask):
    """A row per second of the voice; see `BatchTask`."""

    suffixes = CLIPS
    columns = (("face", "int64"), ("samples", "list<int16>"))
    options: SeparationBatchOptions

    def files(self) -> tuple[Path, ...]:
        """See `BatchTask`."""
        return separation_models(self.options.model)

    def helpers(self) -> tuple[Path, ...]:
        """See `BatchTask`."""
        return tuple(map(find_model, FACES))

    def open(self, stack: ExitStack) -> None:
        """See `BatchTask`."""
        self._models = open_models(self.options, self.options.compute.keywords(), stack)

    def media(self, source: Path) -> str:
        """See `BatchTask`."""
        return ".wav"

    def run(self, source: Path, folder: Path, media: Path | None, seat: Any) -> Found:
        """See `BatchTask`."""
        voice = media or folder / "voice.wav"
        options = SeparationOptions(
            **self.chosen(SeparationChoice), source=str(source),
            sinks=(str(voice),), overlay=False, compute=self.options.compute,
        )  # fmt: skip
        done = uninterrupted(run_separation(options, quiet=True, models=self._models))
        faces = {str(number): seconds for number, seconds in done.faces.items()}
        facts = {"sample_rate_hz": self._models.separator.sample_rate_hz, "faces_seconds": faces}
        return Found(_rows(voice, done.chosen), facts, done.notes, done.warnings)


def _rows(path: Path, face: int) -> Iterator[dict[str, Any]]:
    """Yield the voice second by second, as 16-bit samples."""
    with SoundReader(path) as sound:
        for second, block in enumerate(sound.blocks(sound.sample_rate_hz)):
            samples = np.round(block * _FULL).astype(np.int16)
            yield {"seconds": float(second), "face": face, "samples": samples}
