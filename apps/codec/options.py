"""Options of `prunus run codec`, `eval codec`, `encode` and `decode`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.apps.batch.options import Compute, Work
from prunus.apps.common import options as shared
from prunus.apps.common.options import SINKS, BackendChoice
from prunus.apps.io.sinks.registry import sinks_help
from prunus.apps.io.sources.registry import sources_help
from prunus.runtime.options import argument, group, option

_STRICT = "Refuse another rate, channels or NaN."


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """What `run_codec` does.

    -o is short for one more --sink. Use headphones with a microphone. Ctrl-C ends the run and
    completes the output; so does a device that is lost, with exit code 2.

    \b
    Examples:
      prunus run codec --source talk.wav -o again.wav --plot talk.png
      prunus run codec --model NAME --source udp:5004 --sink speaker: --loss 5
      prunus run codec --model NAME --source mic: --sink udp:127.0.0.1:5004
    """

    source: str = option(sources_help("sound", "codes"), default="mic:")
    sinks: tuple[str, ...] = option(
        f"{sinks_help('sound', 'codes')} Default: speaker:.",
        default=(), flags=SINKS, metavar="SINK",
    )  # fmt: skip
    model: str | None = shared.codec()
    strict: bool = option(_STRICT, default=False)
    seconds: float | None = option(
        "Stop after so many seconds of sound.", default=None, minimum=0.01
    )
    log: Path | None = shared.sound_log()
    plot: Path | None = option("Spectrograms before and after, as a picture.", default=None)
    packet_frames: int | None = option(
        "UDP: frames per packet; default: 60 ms.", default=None, minimum=1
    )
    redundancy: int = option(
        "UDP: earlier packets that each one repeats.", default=1, minimum=0, maximum=8
    )
    jitter: int = option("UDP: packets to wait for a late one.", default=2, minimum=0, maximum=100)
    loss: float = option(
        "UDP: throw away so many % of what arrives.", default=0.0, minimum=0, maximum=100
    )
    seed: int = option("UDP: which packets --loss throws away.", default=0)
    speed: float = option(
        "UDP: send files at so many times real time; 0: at once.", default=1.0, minimum=0
    )
    idle: float = option(
        "UDP: end so many seconds after the last new packet.", default=3.0, minimum=0.1
    )
    wait: float = option(
        "UDP: wait so many seconds for the first packet.", default=60.0, minimum=0.1
    )
    key: str | None = option(
        "UDP: secret of both ends, or @FILE; needed beyond this machine, or 'none'.",
        default=None, metavar="SECRET",
    )  # fmt: skip
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class CodecEvalOptions:
    """What `evaluate` of a codec does.

    Word errors count against what is really said, in English: NAME.txt beside NAME.wav, or a
    table (--texts). Recordings without a text are left out of that column.

    \b
    Examples:
      prunus eval codec speech/ --peer opus:9.5 --peer opus-lace:6 --peer lpcnet --peer codec2:1300
      prunus eval codec talk.wav --model NAME --loss 0,5,10 --judge pesq --judge stoi --json
    """

    recordings: tuple[Path, ...] = argument("Sound files, and folders of them.")
    model: str | None = shared.codec()
    judge: tuple[str, ...] = option(
        "pesq, stoi, dnsmos, plcmos, wer, wer-sphinx, speaker; repeatable. Default: what is "
        "installed.", default=(),
    )  # fmt: skip
    texts: Path | None = option(
        "What is said: a line NAME<tab>TEXT, or TEXT (NAME), each.", default=None
    )
    judges: bool = option("Rate, distortion and codebooks alone.", default=True)
    peer: tuple[str, ...] = option(
        "opus:KBPS, opus-wide:KBPS, opus-lace:KBPS, opus-nolace:KBPS, lpcnet, codec2:BPS to stand "
        "beside; repeatable.", default=(),
    )  # fmt: skip
    loss: str = option("Packet losses in per cent, concealed; 0 is a file.", default="0")
    seconds: float | None = option(
        "Take so much of each recording at most.", default=None, minimum=0.1
    )
    output: Path | None = shared.output("The scores, as JSON.")
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class CodecBatchOptions:
    """What `prunus batch codec` does.

    Each recording gets one Parquet file with a row per second or so of its codes; what is there
    already is not done again. Recordings that cannot be read whole are set aside, with the reason,
    and the exit code is then 1. Other sample rates are resampled and channels averaged, with a
    note in the file.

    \b
    Examples:
      prunus batch codec speech/ --out codes
      prunus batch codec @recordings.txt --out s3://bucket/codes --media --actors 8
    """

    model: str | None = shared.codec()
    strict: bool = option(_STRICT, default=False)
    work: Work = group(Work)
    compute: Compute = group(Compute)


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """What `prunus encode` does.

    Other sample rates are resampled and channels averaged, with a notice.

    \b
    Examples:
      prunus encode talk.wav talk.pcodec
      cat talk.wav | prunus encode - - --model wavtokenizer-tok75-fp32 --quiet > talk.pcodec
    """

    source: str = argument("Sound file (WAV, FLAC, Ogg, or the sound of a clip), or - for a pipe.")
    target: str = argument("The .pcodec file, or - for a pipe.")
    model: str | None = shared.codec()
    strict: bool = option(_STRICT, default=False)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What `prunus decode` does.

    A damaged file is decoded up to the damage; the exit code is then 1.

    \b
    Examples:
      prunus decode talk.pcodec talk-decoded.wav
      cat talk.pcodec | prunus decode - - --model wavtokenizer-tok75-fp32 --quiet | aplay
    """

    source: str = argument("The .pcodec file, or - for a pipe.")
    target: str = argument("The WAV file, or - for a pipe.")
    model: str | None = shared.codec()
    compute: BackendChoice = group(BackendChoice)
