"""The shipped codec on speakers that it never heard, beside Opus, LPCNet and Codec2.

    python -m benchmarks.codec.peers --unpacked DIR            # half an hour of one core
    python -m benchmarks.codec.peers --unpacked DIR --cost     # CPU time and look-ahead alone

DIR holds Debian packages, unpacked with dpkg -x: pocketsphinx-testdata (a LibriVox reader, with
what is said), asterisk-core-sounds-fr-g722 (June; ffmpeg reads it) and tuxpaint-stamps-default
(volunteers, GPL-2: never trained on). A voice that the training heard is refused. Judges are those
of `prunus eval codec`, peers too (`make judge-deps`, libcodec2-1.0); word errors are counted where
there is a text. Groups of speakers are written as soon as they are judged.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.app import open_codec
from prunus.apps.codec.evaluate import CodecEvaluation, evaluate_codec
from prunus.apps.codec.peers import opus
from prunus.apps.codec.peers.registry import Peer, lateness, parse_peer
from prunus.apps.codec.recordings import Recording, read_recordings
from prunus.apps.common.model_files import DEFAULT_CODEC
from prunus.apps.common.options import BackendChoice
from prunus.apps.judges.registry import open_judges
from prunus.apps.judges.scorecard import plain
from prunus.apps.judges.texts import Texts
from prunus.models.training.speech.cache import SOURCES, decode, trim
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.tasks.codec.codec import SpeechCodec

from ..record import RESULTS, finish, write_record

Audio = npt.NDArray[np.float32]
RATE_HZ = 16000
PEERS = (
    "lpcnet", "codec2:3200", "codec2:1300", "opus:6",
    *(f"opus-{kind}:{rate}" for rate in (6, 9, 12) for kind in ("wide", "lace", "nolace")),
)  # fmt: skip
LOSSES = (0.0, 5.0, 10.0)
_OPUS_AHEAD_MS = 6.5  # RFC 6716, section 2
SECONDS, COUNT = 10.0, 3
ORT = BackendChoice("onnxruntime", threads=1)
VOLUNTEERS = ("el", "be", "ro", "da", "ca", "bg")


def joined(clips: Iterable[Audio], name: str, count: int) -> list[Recording]:
    """Join clips to recordings of `SECONDS`: short clips distort DNSMOS."""
    found, parts = [], []
    for clip in clips:
        parts.append(clip)
        if sum(map(len, parts)) >= SECONDS * RATE_HZ:
            sound = np.concatenate(parts)[: int(SECONDS * RATE_HZ)]
            found.append(Recording(f"{name} {len(found)}", sound, RATE_HZ, None))
            parts = []
        if len(found) == count:
            break
    return found


def studio(unpacked: Path, name: str) -> list[Recording]:
    """Take recordings of a source of the training's table whose speaker it never heard.

    Raises:
        UsageError: the training heard the speaker.
        SourceError: the package is not there.
    """
    source = next(s for s in SOURCES if s.name == name)
    if source.speaker in {s.speaker for s in SOURCES if s.split == "train"}:
        raise UsageError(f"{source.speaker} was trained on.", "Judge on voices never heard.")
    root = unpacked / source.folder
    files = sorted(p for p in root.glob(source.pattern) if "silence" not in p.parts)
    if not files:
        raise SourceError(f"{unpacked} lacks {source.package}.", "Unpack it there with dpkg -x.")
    order = np.random.default_rng(0).permutation(len(files))
    clips = (trim(decode(files[k])) / np.float32(32768) for k in order)
    return joined((c for c in clips if len(c) > RATE_HZ), name, COUNT)


def librivox(unpacked: Path) -> list[Recording]:
    """Take the read sentences of pocketsphinx-testdata, each with what is said."""
    folder = unpacked / "usr/share/pocketsphinx/test/data/librivox"
    return read_recordings([folder], texts=Texts(folder / "transcription"))


def volunteers(unpacked: Path) -> list[Recording]:
    """Take one recording of each of six languages of Tux Paint's descriptions."""

    def read(path: Path) -> Audio:
        with SoundReader(path) as reader:
            sound = np.concatenate([*reader.blocks(), np.zeros(0, np.float32)])
            return resample(sound, reader.sample_rate_hz, RATE_HZ)

    found = []
    for language in VOLUNTEERS:
        files = sorted((unpacked / "usr/share/tuxpaint/stamps").rglob(f"*_desc_{language}.ogg"))
        order = np.random.default_rng(1).permutation(len(files))[:12]
        found += joined((read(files[k]) for k in order), f"stamps {language}", 1)
    return found


GROUPS: dict[str, Callable[[Path], list[Recording]]] = {
    "LibriVox, English": librivox,
    "June, French": functools.partial(studio, name="asterisk_fr"),
    "volunteers, six languages": volunteers,
}


def summary(found: CodecEvaluation) -> dict[str, Any]:
    """Return the means of one group, ready for the record."""
    return {
        "recordings": len(found.recordings),
        "seconds": round(found.seconds, 2),
        "transcribed_words": sum(found.rows[0].words),
        "rows": {
            row.name: {"kbit/s": plain(round(row.kilobits_per_second, 3)),
                       **{n: round(m, 4) for n in row.scores if not math.isnan(m := row.mean(n))}}
            for row in found.rows
        },
        "entropy_kbit/s": round(found.entropy_kilobits_per_second, 3),
        "codes_kept_percent": {n: round(v, 2) for n, v in found.repeated_percent.items()},
        "notes": list(found.notes),
    }  # fmt: skip


def costs(codec: SpeechCodec, peers: Sequence[Peer], recordings: Sequence[Recording]
          ) -> dict[str, Any]:  # fmt: skip
    """Return frame, look-ahead and CPU seconds per second of sound of every codec.

    Look-ahead is what must follow a frame: ours by its card, Opus's by RFC 6716, the vocoders' as
    heard in the recordings (median). CPU time includes resampling, and programs with their start.
    """
    sound = recordings[0].sound

    def row(frame: float, ahead: float, code: Callable[[], object]) -> dict[str, float]:
        spent = []
        for _ in range(2):
            begin = _cpu_seconds()
            code()
            spent.append(_cpu_seconds() - begin)
        cpu = round(min(spent) / (len(sound) / RATE_HZ), 4)
        return {"frame_ms": frame, "look_ahead_ms": ahead, "cpu_s_per_s": cpu}

    form, tick = codec.format, 1000.0 / codec.format.sample_rate_hz
    voice = np.zeros(form.voice, np.float32) if form.voice else None
    ahead = tick * (codec.encoder().latency + codec.decoder(voice).latency)
    found = {form.name: row(tick * form.hop, ahead, lambda: codec.decode(codec.encode(sound)))}
    for peer in peers:
        late = _OPUS_AHEAD_MS
        if peer.vocoder:
            late = statistics.median(_late_ms(peer, r.sound) for r in recordings)
        code = functools.partial(peer.pass_through, sound, RATE_HZ)
        found[peer.name] = row(peer.frame_ms, late, code)
    return found


def _late_ms(peer: Peer, sound: Audio) -> float:
    heard, _ = peer.code(resample(sound, RATE_HZ, peer.rate_hz))
    return 1000.0 * lateness(sound, resample(heard, peer.rate_hz, RATE_HZ), RATE_HZ) / RATE_HZ


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def judge(args: argparse.Namespace) -> None:
    """Judge groups of speakers, or what codecs cost; print tables, keep the means.

    Raises:
        PrunusError: recordings, judges or peers are missing.
    """
    judges, missing = open_judges(args.judge or ())
    peers = [parse_peer(text) for text in args.peer or PEERS]
    old = json.loads(args.output.read_text()) if args.output.is_file() else {}
    record: dict[str, Any] = {"groups": {}} | old
    with open_codec(args.model, ("encoder", "decoder", "speaker"), ORT) as codec:
        if record.get("identity") != codec.format.identity:
            record = {"identity": codec.format.identity, "groups": {}}
        record |= {"environment": environment(1), "libopus": opus.version(), "missing": missing}
        if args.cost:
            recordings = librivox(args.unpacked)
            record["codecs"] = costs(codec, peers, recordings)
            print(json.dumps(record["codecs"], indent=1))
        for title in () if args.cost else args.group or GROUPS:
            found = evaluate_codec(
                codec, GROUPS[title](args.unpacked), judges, losses_percent=LOSSES, peers=peers,
                notes=missing, progress=ConsoleProgress("peers"),
            )  # fmt: skip
            print(f"\n{title}\n{found.to_text()}")
            record["groups"][title] = summary(found)
            write_record(args.output, record)
        write_record(args.output, record)


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--unpacked", type=Path, required=True)
    add("--model", default=DEFAULT_CODEC)
    add("--group", choices=list(GROUPS), action="append", help="default: all")
    add("--judge", action="append", help="as of prunus eval codec; repeatable")
    add("--peer", action="append", help=f"the same; default: {' '.join(PEERS)}")
    add("--cost", action="store_true", help="CPU time and look-ahead instead of scores")
    add("-o", "--output", type=Path, default=RESULTS / "codec_peers.json")
    args = parser.parse_args()
    return finish(functools.partial(judge, args), args.output)


if __name__ == "__main__":
    sys.exit(main())
