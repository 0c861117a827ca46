"""Audio-visual speech separation: a mixture and one speaker's mouth in, that voice out.

Two graphs work together: ``lips`` (25 mouth crops a second) and ``voice`` (16 kHz). Sound is mono
float32 at `sample_rate_hz`; `runtime.resample` changes rates. A file goes through the same stream
as a microphone, in one piece or in many: the samples are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError
from prunus.runtime.protocols import Closable
from prunus.runtime.tasks.codec.codec import check_sound
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)
from prunus.runtime.tasks.separation.stream import Audio, StreamPlan, VoiceStream

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session

PARTS = ("lips", "voice")
Mouths = Iterable[tuple[npt.NDArray[np.uint8] | None, float]]


class SpeechSeparator(Closable):
    """Separate voices by their lips; any number of threads may share it, each with its own streams.

    Args:
        lips: Session of the lip graph.
        voice: Session of the voice graph.

    Raises:
        ArtifactError: a session is another graph, or the two do not belong together.

    Example:
        >>> with SpeechSeparator.open("nano") as separator:  # doctest: +SKIP
        ...     voice = separator.separate(mixture, [(crop, k / 25) for k, crop in enumerate(lip)])
    """

    def __init__(self, lips: Session, voice: Session) -> None:
        self.lips, self.voice = lips, voice
        look, listen = lips.card.preprocess, voice.card.preprocess
        if not isinstance(look, MouthPreprocess):
            raise _wrong(lips.card, "lips")
        if not isinstance(listen, MixturePreprocess):
            raise _wrong(voice.card, "voice")
        self._look, self._listen = look, listen
        _require_pair(lips.card, voice.card)

    @staticmethod
    def open(
        name: str | Path,
        backend: str = "auto",
        *,
        threads: int | None = None,
        device: str = "cpu",
        options: BackendOptions | None = None,
    ) -> SpeechSeparator:
        """Open ``NAME-lips.onnx`` and ``NAME-voice.onnx``.

        Args:
            name: NAME, or the path of either file.
            backend: See `prunus.runtime.session.base.open`.
            threads: CPU threads.
            device: See `prunus.runtime.session.base.open`.
            options: Switches of the back ends.

        Raises:
            ArtifactError: a file is missing, or they do not belong together.
        """
        from prunus.runtime.session.base import open as open_session

        sessions: list[Session] = []
        try:
            for path in find_parts(name):
                sessions.append(
                    open_session(path, backend, threads=threads, device=device, options=options)
                )
            return SpeechSeparator(*sessions)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    def close(self) -> None:
        """Close both sessions; safe to call twice."""
        self.lips.close()
        self.voice.close()

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second of mixture and voice."""
        return self._listen.sample_rate_hz

    @property
    def mouth(self) -> MouthPreprocess:
        """How mouths are cut."""
        return self._look

    @property
    def trained(self) -> bool:
        """False for random weights, whose voice means nothing."""
        return self.voice.card.weights.trained and self.lips.card.weights.trained

    def stream(
        self,
        *,
        hop_s: float | None = None,
        lookahead_s: float | None = None,
        patience_s: float | None = None,
    ) -> VoiceStream:
        """Begin a stream of one speaker; several may run side by side.

        Args:
            hop_s: Seconds between windows, see `StreamPlan.of`.
            lookahead_s: Seconds of each window behind what it gives.
            patience_s: How long sound waits for mouths that are late; then the last one is held.
                None waits for ever, which is right for files.

        Raises:
            UsageError: windows that do not fit the graphs.
        """
        plan = StreamPlan.of(self._look, self._listen, hop_s, lookahead_s)
        return VoiceStream(self.lips, self.voice, plan, patience_s)

    def separate(
        self,
        mixture: npt.ArrayLike,
        mouths: Mouths,
        *,
        hop_s: float | None = None,
        lookahead_s: float | None = None,
    ) -> Audio:
        """Separate a whole clip.

        Args:
            mixture: (T,) float32 at `sample_rate_hz`.
            mouths: (crop or None, seconds since the first sample) in order of time; crops are
                (88, 88) uint8 grey. Mouths behind the end of the sound are ignored; where there
                are none, the last is held.
            hop_s: See `stream`.
            lookahead_s: See `stream`.

        Returns:
            (T,) float32.

        Raises:
            TensorError: a mixture or a crop of another shape, or not finite.
        """
        samples = check_sound(mixture)
        stream = self.stream(hop_s=hop_s, lookahead_s=lookahead_s)
        rate, parts, sent = self.sample_rate_hz, [], 0
        for crop, time_s in mouths:
            parts.append(stream.watch(crop, time_s))
            until = min(max(round(time_s * rate), sent), len(samples))
            parts.append(stream.push(samples[sent:until]))
            sent = until
        parts += [stream.push(samples[sent:]), stream.flush()]
        return np.concatenate(parts)


def find_parts(name: str | Path) -> tuple[Path, Path]:
    """Return the files of the lip graph and of the voice graph.

    Raises:
        ArtifactError: one is missing.
    """
    path = Path(name)
    suffix = path.suffix if path.suffix in (".onnx", ".engine") else ".onnx"
    base = str(path).removesuffix(suffix)
    for part in PARTS:
        base = base.removesuffix(f"-{part}")
    lips, voice = (Path(f"{base}-{part}{suffix}") for part in PARTS)
    for part, file in zip(PARTS, (lips, voice), strict=True):
        if not file.is_file():
            raise ArtifactError(
                f"The separator '{base}' has no {part}: {file} does not exist.",
                "Make it with: prunus export dolphin -o NAME",
            )
    return lips, voice


def _wrong(card: ModelCard, part: str) -> ArtifactError:
    return ArtifactError(
        f"The card describes {card.name}; expected the {part} graph of a separator.",
        "Make one with: prunus export dolphin -o NAME",
    )


def _require_pair(lips: ModelCard, voice: ModelCard) -> None:
    """Refuse graphs of different weights, rates or widths."""

    def about(card: ModelCard) -> dict[str, Any]:
        pre = cast("MouthPreprocess | MixturePreprocess", card.preprocess)
        width = next(s.shape[1] for s in (*card.inputs, *card.outputs) if s.name == "lips")
        family = card.variant.removesuffix("-lips").removesuffix("-voice")
        return {
            "model": f"{card.model} {family}",
            "weights": card.weights.sha256,
            "frame rate": pre.frame_rate_hz,
            "feature width": width,
        }

    for card, part in ((lips, "lips"), (voice, "voice")):
        post = card.postprocess
        if not isinstance(post, SeparatorPostprocess) or post.part != part:
            raise _wrong(card, part)
    one, two = about(lips), about(voice)
    for key, value in one.items():
        if value != two[key]:
            raise ArtifactError(
                f"The {key} of the lip graph is {value}; that of the voice graph is {two[key]}.",
                "Use the two files of one export.",
            )
