"""The shipped codec on speakers it never heard, beside Opus, LPCNet and Codec2.

    python benchmarks/codec_peers.py --cache .cache/speech --unpacked DIR     # five minutes

`--cache` is that of `prunus.models.training.speech.cache`. `--unpacked` holds more speech for
evaluation, unpacked with dpkg -x: pocketsphinx-testdata (LibriVox readers, with transcripts) and
tuxpaint-stamps-default (volunteers, GPL-2: never trained on). Opus needs opus-tools, LPCNet and
Codec2 the packages libcodec2-1.0 and codec2. Judges are those of `prunus eval codec` (`make
judge-deps`); word errors are counted for English alone, against transcripts. The record is written
anew after every group.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import math
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import RESULTS, show, write_record

from prunus.apps.codec.app import open_codec
from prunus.apps.codec.evaluate import CodecEvaluation, Recording, Row, evaluate_codec
from prunus.apps.codec.peers import opus
from prunus.apps.common.model_files import DEFAULT_CODEC
from prunus.apps.common.options import BackendChoice
from prunus.apps.common.speech_metrics import Heard, Judge, normalised, open_judges
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.quality import mel_distance_db
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import HostError
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.tasks.codec.codec import SpeechCodec

Audio = npt.NDArray[np.float32]
Coder = Callable[[Audio], tuple[Audio, float]]
RATE_HZ = 16000
OPUS_KBPS = (6.0, 9.5)
_OPUS_FRAME_MS, _OPUS_AHEAD_MS = 20.0, 6.5  # RFC 6716, section 2
SECONDS, COUNT = 10.0, 3
ORT = BackendChoice("onnxruntime", threads=1)
_FINE = 16  # samples: 1 ms, the grid on which a peer's delay is looked for
_MOST_LAG = 150  # of these
VOLUNTEERS = ("el", "be", "ro", "da", "ca", "bg")


def joined(clips: Sequence[Audio], name: str, count: int, text: str | None = None) -> list[Any]:
    """Join clips to recordings of `SECONDS`: short clips distort DNSMOS."""
    found, parts = [], []
    for clip in clips:
        parts.append(clip)
        if sum(map(len, parts)) >= SECONDS * RATE_HZ:
            sound = np.concatenate(parts)[: int(SECONDS * RATE_HZ)]
            found.append(Recording(f"{name} {len(found)}", sound, RATE_HZ, text))
            parts = []
        if len(found) == count:
            break
    return found


def from_cache(cache: Path, source: str) -> list[Recording]:
    """Take recordings of a held-out source of the speech cache."""
    row = json.loads((cache / f"{source}.json").read_text())
    sound = np.load(cache / f"{source}.sound.npy")
    clips = [c for c in row["clips"] if c["samples"] > RATE_HZ]
    order = np.random.default_rng(0).permutation(len(clips))
    cut = [
        sound[clips[k]["start"] : clips[k]["start"] + clips[k]["samples"]] / np.float32(32768)
        for k in order
    ]
    return joined(cut, source, COUNT)


def read(path: Path) -> Audio:
    """Return a file as (T,) float32 at 16 kHz."""
    with SoundReader(path) as reader:
        sound = np.concatenate([*reader.blocks(), np.zeros(0, np.float32)])
        return resample(sound, reader.sample_rate_hz, RATE_HZ)


def librivox(unpacked: Path) -> list[Recording]:
    """Take the read sentences of pocketsphinx-testdata, each with what is said."""
    folder = unpacked / "usr/share/pocketsphinx/test/data/librivox"
    texts = {}
    for line in (folder / "transcription").read_text().splitlines():
        words, _, name = line.rpartition("(")
        texts[name.strip(" )")] = words.replace("<s>", "").replace("</s>", "").strip()
    return [
        Recording(path.name, read(path), RATE_HZ, texts.get(path.stem))
        for path in sorted(folder.glob("*.wav"))
    ]


def volunteers(unpacked: Path) -> list[Recording]:
    """Take one recording of each of six languages of Tux Paint's descriptions."""
    found = []
    for language in VOLUNTEERS:
        files = sorted((unpacked / "usr/share/tuxpaint/stamps").rglob(f"*_desc_{language}.ogg"))
        order = np.random.default_rng(1).permutation(len(files))[:12]
        found += joined([read(files[k]) for k in order], f"stamps {language}", 1)
    return found


@dataclass(frozen=True, slots=True)
class Peer:
    """Another codec.

    Attributes:
        name: For tables.
        code: (T,) float32 at 16 kHz -> what comes out, late, and the kbit/s.
        frame_ms: Length of its frames.
    """

    name: str
    code: Coder
    frame_ms: float


class LpcNet:
    """LPCNet at 1733 bit/s, as in Debian's codec2 library: 52 bits per frame of 30 ms.

    With its direct split quantiser; the predictive one (argument 0) talks nonsense in this build:
    STOI 0.50 instead of 0.82 on the same recording.
    """

    def __init__(self) -> None:
        path = ctypes.util.find_library("codec2")
        if path is None:
            raise HostError("LPCNet needs the package libcodec2-1.0.", "apt-get install it.")
        self._library = ctypes.CDLL(path)
        self._library.lpcnet_freedv_create.restype = ctypes.c_void_p

    def __call__(self, sound: Audio) -> tuple[Audio, float]:
        """Return what (T,) float32 at 16 kHz becomes, and the kbit/s."""
        library = self._library
        handle = ctypes.c_void_p(library.lpcnet_freedv_create(1))
        size = int(library.lpcnet_samples_per_frame(handle))
        bits = int(library.lpcnet_bits_per_frame(handle))
        frames = -(-(len(sound) + 8 * size) // size)
        pcm = np.zeros(frames * size, np.int16)
        pcm[: len(sound)] = np.rint(np.clip(sound, -1, 1) * 32767)
        coded, out = np.zeros(bits, np.uint8), np.zeros_like(pcm)
        short, byte = ctypes.POINTER(ctypes.c_short), ctypes.POINTER(ctypes.c_char)
        for at in range(0, len(pcm), size):
            piece = np.ascontiguousarray(pcm[at : at + size])
            library.lpcnet_enc(handle, piece.ctypes.data_as(short), coded.ctypes.data_as(byte))
            heard = np.zeros(size, np.int16)
            library.lpcnet_dec(handle, coded.ctypes.data_as(byte), heard.ctypes.data_as(short))
            out[at : at + size] = heard
        library.lpcnet_freedv_destroy(handle)
        return out / np.float32(32768), bits / size * RATE_HZ / 1000


def codec2(mode: str) -> Coder:
    """Return Codec2 (8 kHz) in one of its modes, by its own programs."""

    def run(sound: Audio) -> tuple[Audio, float]:
        low = resample(sound, RATE_HZ, 8000)
        with tempfile.TemporaryDirectory(prefix="prunus-codec2-") as folder:
            before, coded, after = (Path(folder) / n for n in ("in.raw", "c.bin", "out.raw"))
            pcm = np.concatenate((np.clip(low, -1, 1), np.zeros(1600, np.float32)))
            before.write_bytes(np.rint(pcm * 32767).astype("<i2").tobytes())
            for command in (["c2enc", mode, before, coded], ["c2dec", mode, coded, after]):
                subprocess.run([str(c) for c in command], check=True, capture_output=True)
            heard = np.frombuffer(after.read_bytes(), "<i2") / np.float32(32768)
        return resample(heard.astype(np.float32), 8000, RATE_HZ), int(mode) / 1000

    return run


def placed(sound: Audio, heard: Audio) -> tuple[Audio, int]:
    """Cut a vocoder's output to where its loudness fits best: its waveform matches nowhere.

    Returns:
        (len(sound),) float32, and the samples by which the output was late.
    """

    def loudness(x: Audio) -> Any:
        frames = len(x) // _FINE
        power = (x[: frames * _FINE].reshape(frames, _FINE) ** 2).mean(axis=1)
        smooth = np.convolve(power, np.hanning(17), "same")
        level = np.log(smooth + 1e-6)
        return level - level.mean()

    one, other = loudness(sound), loudness(heard)
    scores = []
    for lag in range(_MOST_LAG):
        count = min(len(one), len(other) - lag)
        scores.append(float((one[:count] * other[lag : lag + count]).mean()))
    lag = int(np.argmax(scores)) * _FINE
    cut = heard[lag : lag + len(sound)]
    return np.pad(cut, (0, len(sound) - len(cut))), lag


def peer_row(
    peer: Peer, recordings: Sequence[Recording], judges: Sequence[Judge], lags: list[float]
) -> Row:
    """Judge another codec on the same recordings; append to `lags` by how many ms it is late."""
    scores: dict[str, list[float]] = {}
    rate = math.nan
    for recording in recordings:
        heard, rate = peer.code(recording.sound)
        cut, lag = placed(recording.sound, heard)
        lags.append(1000.0 * lag / RATE_HZ)
        scores.setdefault("mel dB", []).append(mel_distance_db(recording.sound, cut, RATE_HZ))
        pair = Heard(recording.sound, cut, recording.text)
        for judge in judges:
            scores.setdefault(judge.name, []).append(judge.score(pair))
    return Row(peer.name, rate, {n: tuple(v) for n, v in scores.items()})


def summary(found: CodecEvaluation, rows: Sequence[Row], words: int) -> dict[str, Any]:
    """Return the means of one group, ready for the record."""
    return {
        "recordings": len(found.recordings),
        "seconds": round(found.seconds, 2),
        "transcribed_words": words,
        "rows": {
            row.name: {
                "kbit/s": None if math.isnan(row.kilobits_per_second)
                else round(row.kilobits_per_second, 3),
                **{n: round(row.mean(n), 4) for n in row.scores if not math.isnan(row.mean(n))},
            }
            for row in rows
        },
        "entropy_kbit/s": round(found.entropy_kilobits_per_second, 3),
        "codes_kept_percent": {n: round(v, 2) for n, v in found.repeated_percent.items()},
    }


def delays(codec: SpeechCodec, peers: Sequence[Peer], lags: dict[str, list[float]], sound: Audio
           ) -> dict[str, Any]:  # fmt: skip
    """Return frame, look-ahead and CPU seconds per second of sound of every codec.

    Look-ahead is what must follow a frame: ours by its card, Opus's by RFC 6716, the others' as
    heard in the recordings (median).
    """

    def cost(code: Callable[[], object]) -> float:
        spent = []
        for _ in range(2):
            begin = _cpu_seconds()
            code()
            spent.append(_cpu_seconds() - begin)
        return round(min(spent) / (len(sound) / RATE_HZ), 4)

    def row(frame: float, ahead: float, code: Callable[[], object]) -> dict[str, float]:
        return {"frame_ms": frame, "look_ahead_ms": ahead, "cpu_s_per_s": cost(code)}

    form, tick = codec.format, 1000.0 / codec.format.sample_rate_hz
    voice = np.zeros(form.voice, np.float32) if form.voice else None
    ahead = tick * (codec.encoder().latency + codec.decoder(voice).latency)
    own = row(tick * form.hop, ahead, lambda: codec.decode(codec.encode(sound)))
    others = {
        f"opus {k:g}": row(_OPUS_FRAME_MS, _OPUS_AHEAD_MS, lambda k=k: opus(sound, RATE_HZ, k))
        for k in OPUS_KBPS
    }
    more = {
        p.name: row(p.frame_ms, statistics.median(lags[p.name]), lambda p=p: p.code(sound))
        for p in peers
    }
    return {form.name: own, **others, **more}


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Judge every group of speakers, print a table each, keep the means."""
    parser = argparse.ArgumentParser(description="The shipped codec beside its peers.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--unpacked", type=Path)
    parser.add_argument("--model", default=DEFAULT_CODEC)
    parser.add_argument("--judge", action="append", help="as of prunus eval codec; repeatable")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "codec_peers.json")
    args = parser.parse_args()
    groups = {
        "June, French: an unseen speaker": from_cache(args.cache, "asterisk_fr"),
        "msu_ru_nsh, Russian: a seen speaker, unseen sentences": from_cache(
            args.cache, "festvox_ru_unseen"
        ),
    }
    if args.unpacked is not None:
        groups["LibriVox, English: an unseen speaker"] = librivox(args.unpacked)
        groups["volunteers, six languages: unseen speakers"] = volunteers(args.unpacked)
    judges, missing = open_judges(args.judge)
    peers = (
        Peer("LPCNet", LpcNet(), 30.0),
        Peer("Codec2 3200", codec2("3200"), 20.0),
        Peer("Codec2 1300", codec2("1300"), 40.0),
    )
    lags: dict[str, list[float]] = {p.name: [] for p in peers}
    record: dict[str, Any] = {"environment": environment(1), "missing": missing, "groups": {}}
    with open_codec(args.model, ("encoder", "decoder", "speaker"), ORT) as codec:
        record["identity"] = codec.format.identity
        for title, recordings in groups.items():
            texts = [r.text for r in recordings if r.text is not None]
            chosen = [j for j in judges if j.name != "WER %" or len(texts) == len(recordings)]
            found = evaluate_codec(
                codec, recordings, chosen, peers=OPUS_KBPS, progress=ConsoleProgress("peers")
            )
            more = [peer_row(p, recordings, chosen, lags[p.name]) for p in peers]
            rows = (*found.rows, *more)
            names = list(dict.fromkeys(n for row in rows for n in row.scores))
            table = [
                (row.name, f"{row.kilobits_per_second:.2f}", *(f"{row.mean(n):.3f}" for n in names))
                for row in rows
            ]
            whole = f"{title} ({len(recordings)} recordings, {found.seconds:.0f} s)"
            show(whole, ("", "kbit/s", *names), table)
            words = sum(len(normalised(t)) for t in texts)
            record["groups"][title] = summary(found, rows, words)
            write_record(args.output, record)
        record["codecs"] = delays(codec, peers, lags, next(iter(groups.values()))[0].sound)
        print(json.dumps(record["codecs"], indent=1))
        write_record(args.output, record)


if __name__ == "__main__":
    main()
