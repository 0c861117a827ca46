"""`prunus eval codec`: what a codec does to recordings, beside the original and beside peers.

The axes are those of surveys on discrete speech tokens: rate, distortion, intelligibility, speaker,
use of the codebooks, and whether a sound that is coded twice gives the same codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.app import open_codec
from prunus.apps.codec.options import CodecEvalOptions
from prunus.apps.codec.peers.registry import Peer, parse_peer
from prunus.apps.codec.recordings import Recording, find_recordings, read_recordings
from prunus.apps.common.scores import save
from prunus.apps.common.tables import plain_table
from prunus.apps.io.sound.udp import losing
from prunus.apps.judges.judge import RATE_HZ, Heard, Judge
from prunus.apps.judges.registry import open_judges
from prunus.apps.judges.scorecard import Scorecard, columns, plain, shown, word_notes
from prunus.apps.judges.texts import Texts
from prunus.apps.judges.words import normalised
from prunus.runtime.audio.packets import Packetizer, Receiver
from prunus.runtime.audio.quality import (
    CodebookUse,
    CodeCounter,
    mel_distance_db,
    si_sdr_db,
    stft_distance,
)
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import UsageError
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.codec.codec import CodecFormat, SpeechCodec
from prunus.runtime.tasks.codec.concealment import LossyDecoder

Audio = npt.NDArray[np.float32]
DISTORTIONS = ("mel dB", "STFT", "SI-SDR dB")
_PACKET_SECONDS = 0.06  # about what a packet of a call holds


@dataclass(frozen=True, slots=True)
class Row(Scorecard):
    """One codec, or one condition of it, over all recordings.

    Attributes:
        kilobits_per_second: Codes or packets alone; NaN for the original.
    """

    kilobits_per_second: float


@dataclass(frozen=True, slots=True)
class CodecEvaluation:
    """What was found.

    Attributes:
        model: Name of the codec.
        identity: Hash of codec and weights.
        trained: False for random weights.
        recordings: Names.
        seconds: Of all recordings.
        rows: The original, the codec under each loss, the peers.
        codebooks: How its codebooks were used.
        entropy_kilobits_per_second: Of an ideal coder of single indices.
        repeated_percent: Stream -> share of codes that stay when the decoded sound is coded again.
        notes: Judges that are not installed, and what word errors were counted against.
    """

    model: str
    identity: str
    trained: bool
    recordings: tuple[str, ...]
    seconds: float
    rows: tuple[Row, ...]
    codebooks: tuple[CodebookUse, ...]
    entropy_kilobits_per_second: float
    repeated_percent: Mapping[str, float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: NaN is null."""
        return {
            "model": self.model,
            "identity": self.identity,
            "trained": self.trained,
            "recordings": list(self.recordings),
            "seconds": self.seconds,
            "rows": [
                {"name": row.name, "kilobits_per_second": plain(row.kilobits_per_second),
                 "words": list(row.words), **row.to_dict()}
                for row in self.rows
            ],
            "codebooks": [
                {"stream": u.stream, "codebook": u.codebook, "size": u.size, "used": u.used,
                 "used_percent": u.used_percent, "entropy_bits": u.entropy_bits, "codes": u.codes}
                for u in self.codebooks
            ],
            "entropy_kilobits_per_second": self.entropy_kilobits_per_second,
            "repeated_percent": dict(self.repeated_percent),
            "notes": list(self.notes),
        }  # fmt: skip

    def to_text(self) -> str:
        """Return the tables."""
        names = columns(self.rows)
        table = [
            (row.name, shown(row.kilobits_per_second, "kbit/s"),
             *(shown(row.mean(n), n) for n in names))
            for row in self.rows
        ]  # fmt: skip
        title = f"{self.model}: {len(self.recordings)} recordings, {self.seconds:.1f} s"
        parts = [plain_table(title, ("", "kbit/s", *names), table)]
        use = [
            (f"{u.stream} {u.codebook}", str(u.size), f"{u.used_percent:.1f}%",
             f"{u.entropy_bits:.2f}", f"{math.log2(u.size):.2f}", str(u.codes))
            for u in self.codebooks
        ]  # fmt: skip
        parts.append(plain_table("codebooks", ("", "size", "used", "entropy", "of", "codes"), use))
        again = ", ".join(f"{n} {v:.1f} %" for n, v in self.repeated_percent.items())
        parts.append(
            f"an ideal coder of these indices: {self.entropy_kilobits_per_second:.2f} kbit/s\n"
            f"coded again, codes that stay: {again}"
        )
        if not self.trained:
            parts.append("note: the codec is UNTRAINED: every score of it is that of noise")
        parts += [f"note: {line}" for line in self.notes]
        return "\n\n".join(parts)


def evaluate(options: CodecEvalOptions, progress: Progress) -> CodecEvaluation:
    """Judge a codec on recordings; raises PrunusError."""
    losses, peers = parse_losses(options.loss), [parse_peer(text) for text in options.peer]
    judges, notes = open_judges(options.judge) if options.judges else ([], [])
    texts = Texts(options.texts)
    found = read_recordings(options.recordings, options.seconds, texts)
    folders = [path for path in options.recordings if path.is_dir()]
    notes += texts.notes(folders, find_recordings(options.recordings))
    with open_codec(options.model, ("encoder", "decoder", "speaker"), options.compute) as opened:
        result = evaluate_codec(
            opened, found, judges, losses_percent=losses, peers=peers, notes=notes,
            progress=progress,
        )  # fmt: skip
    save(result, options.output)
    return result


def evaluate_codec(
    codec: SpeechCodec,
    recordings: Sequence[Recording],
    judges: Sequence[Judge] = (),
    *,
    losses_percent: Sequence[float] = (0.0,),
    peers: Sequence[Peer] = (),
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> CodecEvaluation:
    """Judge a codec.

    Args:
        codec: With all its parts.
        recordings: What goes through.
        judges: See `prunus.apps.judges`; distortion is always measured.
        losses_percent: Shares of packets lost, without redundancy, concealed; 0 is a file.
        peers: Other codecs to stand beside.
        notes: Lines about judges that are not installed, and about texts.
        progress: Told about each recording.

    Raises:
        UsageError: a loss that is no share.
        HostError: a peer is not installed.
    """
    for loss in losses_percent:
        losing(loss / 100.0, 0)
    steps, form = progress or Silent(), codec.format
    scores: dict[str, dict[str, list[float]]] = {}
    rates: dict[str, list[tuple[float, float]]] = {}
    counter = CodeCounter(form.streams)
    same: dict[str, list[int]] = {s.name: [0, 0] for s in form.streams}

    def note(name: str, rate: float, seconds: float, found: Mapping[str, float]) -> None:
        rates.setdefault(name, []).append((rate, seconds))
        for key, value in found.items():
            scores.setdefault(name, {}).setdefault(key, []).append(value)

    total = 0.0
    for k, recording in enumerate(recordings):
        steps.update(k, len(recordings), recording.name)
        sound = resample(recording.sound, recording.sample_rate_hz, form.sample_rate_hz)
        seconds = len(sound) / form.sample_rate_hz
        total += seconds
        plain = _judged(sound, sound, form, recording.text, judges, itself=True)
        note("original", math.nan, seconds, plain)
        speech = codec.encode(sound)
        counter.add(speech.codes)
        rate = _rate(speech.codes, form) / 1000.0 / seconds
        for loss in losses_percent:
            name = form.name if not loss else f"{form.name}, {loss:g} % lost"
            decoded = codec.decode(speech) if not loss else _through_loss(codec, speech, loss, k)
            note(name, rate, seconds, _judged(sound, decoded, form, recording.text, judges))
            if not loss:
                again = codec.encode(decoded).codes
                for stream, codes in speech.codes.items():
                    same[stream][0] += int((again[stream] == codes).sum())
                    same[stream][1] += codes.size
        for peer in peers:
            one, other, spent = peer.pass_through(sound, form.sample_rate_hz)
            found = _judged(one, other, form, recording.text, judges)
            note(peer.name, spent, seconds, found)
    steps.update(len(recordings), len(recordings), "done")
    words = tuple(len(normalised(r.text or "")) for r in recordings)
    rows = tuple(
        Row(name, {n: tuple(v) for n, v in found.items()}, words, _weighted(rates[name]))
        for name, found in _ordered(scores, form.name)
    )
    return CodecEvaluation(
        form.name,
        form.identity,
        form.trained,
        tuple(r.name for r in recordings),
        total,
        rows,
        counter.use(),
        counter.entropy_per_second(form.sample_rate_hz / form.hop) / 1000.0,
        {n: 100.0 * equal / whole if whole else math.nan for n, (equal, whole) in same.items()},
        (*notes, *word_notes(columns(rows), words)),
    )


def _judged(  # noqa: PLR0917
    sound: Audio,
    decoded: Audio,
    form: CodecFormat,
    text: str | None,
    judges: Sequence[Judge],
    itself: bool = False,
) -> dict[str, float]:
    """Return every score; of the original itself, or beside silence, those that mean something."""
    rate = form.sample_rate_hz
    found: dict[str, float] = dict.fromkeys(DISTORTIONS, math.nan)
    alone = itself or not sound.any()
    if not alone:
        found = {
            "mel dB": mel_distance_db(sound, decoded, rate),
            "STFT": stft_distance(sound, decoded),
            "SI-SDR dB": si_sdr_db(sound, decoded),
        }
    heard = Heard(resample(sound, rate, RATE_HZ), resample(decoded, rate, RATE_HZ), text)
    for judge in judges:
        found[judge.name] = math.nan if alone and judge.compares else judge.score(heard)
    return found


def _through_loss(codec: SpeechCodec, speech: Any, percent: float, seed: int) -> Audio:
    """Decode what is left of the packets of a call."""
    form = codec.format
    frames = max(1, round(_PACKET_SECONDS * form.sample_rate_hz / form.hop))
    sender = Packetizer(form, frames=frames, voice=speech.voice)
    packets = [*sender.push(speech.codes), *sender.flush(speech.samples)]
    lose, receiver = losing(percent / 100.0, seed), Receiver(form, depth=0)
    receiver.voice = speech.voice  # it is repeated until it comes; how late is not the question
    decoder = LossyDecoder(codec, speech.voice, eager=False)
    groups = [g for p in packets[:-3] if not lose() for g in receiver.push(p)]
    groups += [g for p in packets[-3:] for g in receiver.push(p)] + receiver.flush()
    sound = np.concatenate([*map(decoder.push, groups), decoder.flush()])[: speech.samples]
    return np.pad(sound, (0, speech.samples - len(sound)))


def _rate(codes: Mapping[str, npt.NDArray[np.int64]], form: CodecFormat) -> float:
    return float(sum(codes[s.name].size * s.bits for s in form.streams))


def _weighted(rates: Sequence[tuple[float, float]]) -> float:
    return sum(rate * seconds for rate, seconds in rates) / sum(seconds for _, seconds in rates)


def _ordered(
    scores: Mapping[str, dict[str, list[float]]], model: str
) -> list[tuple[str, dict[str, list[float]]]]:
    """Return the original first, then the codec, then the peers."""
    rank = {name: (0 if name == "original" else 1 if name.startswith(model) else 2)
            for name in scores}  # fmt: skip
    return sorted(scores.items(), key=lambda item: rank[item[0]])


def parse_losses(text: str) -> tuple[float, ...]:
    """Return shares in per cent of ``0,5,10``.

    Raises:
        UsageError: not numbers from 0 to 100.
    """
    try:
        losses = tuple(float(part) for part in text.split(","))
    except ValueError:
        losses = ()
    if not losses or not all(0.0 <= loss <= 100.0 for loss in losses):
        raise UsageError(f"Got --loss {text}; expected per cent.", "Example: --loss 0,5,10")
    return losses
