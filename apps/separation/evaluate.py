"""`prunus eval separation`: every voice of every mixture, by its own, by swapped, by frozen lips.

A separator that looks must do worse with the lips of somebody else, and worse with lips that do not
move; one that scores the same without them has learned to listen only. The mixture and the clean
voice stand beside: what was there before, and what could be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from prunus.apps.common.model_files import separation_models
from prunus.apps.common.scores import save
from prunus.apps.common.tables import plain_table
from prunus.apps.judges.judge import RATE_HZ, Heard, Judge
from prunus.apps.judges.registry import open_judges
from prunus.apps.judges.scorecard import Scorecard, columns, shown, word_notes
from prunus.apps.judges.texts import Texts
from prunus.apps.judges.words import normalised
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
JUDGES = ("pesq", "stoi", "dnsmos", "wer", "speaker")
MIXTURE, CLEAN = "mixture", "clean"


@dataclass(frozen=True, slots=True)
class SeparationEvaluation:
    """What was found.

    Attributes:
        model: Name of the separator.
        weights: SHA-256 of its weights.
        trained: False for random weights.
        names: ``NAME/s1`` and so on.
        rows: The mixture, the voice by each kind of lips, the clean voice.
        notes: Packages that are not installed, and what word errors were counted against.
    """

    model: str
    weights: str
    trained: bool
    names: tuple[str, ...]
    rows: tuple[Scorecard, ...]
    notes: tuple[str, ...]

    def mean(self, name: str, score: str) -> float:
        """Return the mean of a row over the voices that could be judged, NaN without any."""
        return next(row for row in self.rows if row.name == name).mean(score)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: NaN is null."""
        return {
            "model": self.model,
            "weights": self.weights,
            "trained": self.trained,
            "names": list(self.names),
            "words": list(self.rows[0].words),
            "means": {row.name: row.to_dict()["means"] for row in self.rows},
            "scores": {row.name: row.to_dict()["scores"] for row in self.rows},
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return the table."""
        names = columns(self.rows)
        rows = [
            (row.name + " lips" * (row.name in LIPS), *(shown(row.mean(n), n) for n in names))
            for row in self.rows
        ]
        title = f"{self.model}: {len(self.names)} voices"
        parts = [plain_table(title, ("", *names), rows)]
        if not self.trained:
            parts.append("note: the separator is UNTRAINED: every score of it is that of noise")
        parts += [f"note: {line}" for line in self.notes]
        return "\n\n".join(parts)


def evaluate(options: SeparationEvalOptions, progress: Progress) -> SeparationEvaluation:
    """Judge a separator on mixtures; raises PrunusError."""
    conditions = tuple(lips for lips in LIPS if lips in options.lips)
    judges, notes = open_judges(options.judge, JUDGES)
    found = find_mixtures(options.folder, options.mouths, options.limit)
    voice = separation_models(options.model)[1]
    with SpeechSeparator.open(voice, **options.compute.keywords()) as opened:
        result = evaluate_separation(
            opened, found, judges, lips=conditions, hop_s=options.hop, notes=notes,
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
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> SeparationEvaluation:
    """Judge a separator, as a stream like any other.

    Args:
        separator: Open.
        mixtures: See `find_mixtures`.
        judges: See `prunus.apps.judges`; SI-SDR is always measured.
        lips: Conditions.
        hop_s: See `SpeechSeparator.stream`.
        notes: Lines about judges that are not installed.
        progress: Told about each mixture.

    Raises:
        SourceError: a file cannot be read, or a voice is not as long as its mixture.
    """
    steps, said, texts = progress or Silent(), list(notes), Texts()
    try:
        load_bss_eval()
    except MissingDependencyError as error:
        said.append(f"{error.message} {error.hint}")
    rate, fps = separator.sample_rate_hz, separator.mouth.frame_rate_hz
    names: list[str] = []
    words: list[int] = []
    scores: dict[str, dict[str, list[float]]] = {n: {} for n in (MIXTURE, *lips, CLEAN)}
    for k, item in enumerate(mixtures):
        steps.update(k, len(mixtures), item.name)
        mixture, voices, mouths = _read(item, separator)
        for index, clean in enumerate(voices):
            path = item.voices[index]
            text = texts.of(path)
            names.append(f"{item.name}/{path.parent.name}")
            words.append(len(normalised(text or "")))
            heard = {MIXTURE: mixture, CLEAN: clean}
            for condition in lips:
                crops = enumerate(_shown(mouths, index, condition))
                moving = ((crop, j / fps) for j, crop in crops)
                heard[condition] = separator.separate(mixture, moving, hop_s=hop_s)
            for name, sound in heard.items():
                alone = name == CLEAN
                found = {} if alone else improvement(clean, mixture, sound)
                one, two = (resample(s, rate, RATE_HZ) for s in (clean, sound))
                pair = Heard(one, two, text)
                found |= {j.name: j.score(pair) for j in judges if not (alone and j.compares)}
                for score, value in found.items():
                    scores[name].setdefault(score, []).append(value)
    steps.update(len(mixtures), len(mixtures), "done")
    rows = tuple(Scorecard(n, {s: tuple(v) for s, v in found.items()}, tuple(words))
                 for n, found in scores.items())  # fmt: skip
    card = separator.voice.card
    return SeparationEvaluation(
        f"{card.model} {card.variant.removesuffix('-voice')}",
        card.weights.sha256,
        separator.trained,
        tuple(names),
        rows,
        (*said, *word_notes(columns(rows), words)),
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

