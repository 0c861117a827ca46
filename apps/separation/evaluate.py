"""`prunus eval separation`: every voice of every mixture, by its own, by swapped, by frozen lips.

A separator that looks must do worse with the lips of somebody else, and worse with lips that do not
move; one that scores the same without them has learned to listen only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from prunus.apps.common.model_files import separation_models
from prunus.apps.common.scores import save
from prunus.apps.common.speech_metrics import RATE_HZ, Heard, Judge, open_judges
from prunus.apps.common.tables import plain_table
from prunus.apps.separation.mixtures import (
    Audio,
    Crops,
    Mixture,
    find_mixtures,
    read_mouths,
    read_sound,
)
from prunus.apps.separation.options import Lips, SeparationEvalOptions
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import MissingDependencyError, SourceError
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.separation.quality import improvement, load_bss_eval
from prunus.runtime.tasks.separation.separator import SpeechSeparator

LIPS: tuple[Lips, ...] = get_args(Lips)


@dataclass(frozen=True, slots=True)
class SeparationEvaluation:
    """What was found.

    Attributes:
        model: Name of the separator.
        weights: SHA-256 of its weights.
        trained: False for random weights.
        names: ``NAME/s1`` and so on.
        scores: Lips -> score -> one value per name, NaN where a judge could not tell.
        missing: Lines about packages that are not installed.
    """

    model: str
    weights: str
    trained: bool
    names: tuple[str, ...]
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    missing: tuple[str, ...]

    def mean(self, lips: str, score: str) -> float:
        """Return the mean over the voices that could be judged, NaN without any."""
        values = [v for v in self.scores[lips][score] if not math.isnan(v)]
        return sum(values) / len(values) if values else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: NaN is null."""
        return {
            "model": self.model,
            "weights": self.weights,
            "trained": self.trained,
            "names": list(self.names),
            "means": {
                lips: {score: _plain(self.mean(lips, score)) for score in found}
                for lips, found in self.scores.items()
            },
            "scores": {
                lips: {score: [_plain(v) for v in values] for score, values in found.items()}
                for lips, found in self.scores.items()
            },
            "missing": list(self.missing),
        }

    def to_text(self) -> str:
        """Return the table."""
        columns = list(next(iter(self.scores.values()), {}))
        rows = [
            (f"{lips} lips", *(f"{self.mean(lips, score):.2f}" for score in columns))
            for lips in self.scores
        ]
        title = f"{self.model}: {len(self.names)} voices"
        parts = [plain_table(title, ("", *columns), rows)]
        if not self.trained:
            parts.append("note: the separator is UNTRAINED: every score of it is that of noise")
        parts += [f"note: {line}" for line in self.missing]
        return "\n\n".join(parts)


def evaluate(options: SeparationEvalOptions, progress: Progress) -> SeparationEvaluation:
    """Judge a separator on mixtures; raises PrunusError."""
    conditions = tuple(lips for lips in LIPS if lips in options.lips)
    missing: list[str] = []
    judges = []
    for name in options.judge or ("pesq", "stoi"):
        try:
            judges += open_judges([name])[0]
        except MissingDependencyError as error:
            if options.judge:
                raise
            missing.append(f"{error.message} {error.hint}")
    found = find_mixtures(options.folder, options.mouths, options.limit)
    voice = separation_models(options.model)[1]
    with SpeechSeparator.open(voice, **options.compute.keywords()) as opened:
        result = evaluate_separation(
            opened, found, judges, lips=conditions, hop_s=options.hop, missing=missing,
            progress=progress,
        )  # fmt: skip
    save(result, options.output)
    return result


def evaluate_separation(
    separator: SpeechSeparator,
    mixtures: Sequence[Mixture],
    judges: Sequence[Judge] = (),
    *,
    lips: Sequence[Lips] = ("own",),
    hop_s: float | None = None,
    missing: Sequence[str] = (),
    progress: Progress | None = None,
) -> SeparationEvaluation:
    """Judge a separator, as a stream like any other.

    Args:
        separator: Open.
        mixtures: See `find_mixtures`.
        judges: See `apps.speech_judges`; SI-SDR is always measured.
        lips: Conditions.
        hop_s: See `SpeechSeparator.stream`.
        missing: Lines about judges that are not installed.
        progress: Told about each mixture.

    Raises:
        SourceError: a file cannot be read, or a voice is not as long as its mixture.
    """
    steps, notes = progress or Silent(), list(missing)
    try:
        load_bss_eval()
    except MissingDependencyError as error:
        notes.append(f"{error.message} {error.hint}")
    names: list[str] = []
    scores: dict[str, dict[str, list[float]]] = {condition: {} for condition in lips}
    for k, item in enumerate(mixtures):
        steps.update(k, len(mixtures), item.name)
        mixture, voices, mouths = _read(item, separator)
        for index, clean in enumerate(voices):
            names.append(f"{item.name}/{item.voices[index].parent.name}")
            for condition in lips:
                crops = _shown(mouths, index, condition)
                rate = separator.mouth.frame_rate_hz
                heard = separator.separate(
                    mixture, ((crop, j / rate) for j, crop in enumerate(crops)), hop_s=hop_s
                )
                found = improvement(clean, mixture, heard)
                one, two = (resample(s, separator.sample_rate_hz, RATE_HZ) for s in (clean, heard))
                found |= {j.name: j.score(Heard(one, two)) for j in judges}
                for score, value in found.items():
                    scores[condition].setdefault(score, []).append(value)
    steps.update(len(mixtures), len(mixtures), "done")
    card = separator.voice.card
    return SeparationEvaluation(
        f"{card.model} {card.variant.removesuffix('-voice')}",
        card.weights.sha256,
        separator.trained,
        tuple(names),
        {c: {s: tuple(v) for s, v in found.items()} for c, found in scores.items()},
        tuple(notes),
    )


def _read(item: Mixture, separator: SpeechSeparator) -> tuple[Audio, list[Audio], list[Crops]]:
    rate = separator.sample_rate_hz
    mixture = read_sound(item.mix, rate)
    voices = [read_sound(path, rate) for path in item.voices]
    for path, voice in zip(item.voices, voices, strict=True):
        if len(voice) != len(mixture) or not len(voice):
            raise SourceError(
                f"{path} has {len(voice)} samples at {rate} Hz; its mixture has {len(mixture)}.",
                "Cut them to the same length.",
            )
    return mixture, voices, [read_mouths(path, separator.mouth.size) for path in item.mouths]


def _shown(mouths: Sequence[Crops], index: int, lips: Lips) -> Crops:
    if lips == "swapped":
        return mouths[(index + 1) % len(mouths)]
    own = mouths[index]
    return np.repeat(own[:1], len(own), axis=0) if lips == "frozen" else own


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
