"""Options of `prunus run separation` and `prunus eval separation`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.apps.batch.options import Compute, Work
from prunus.apps.common import options as shared
from prunus.apps.common.options import SINKS, BackendChoice
from prunus.apps.io.sinks.registry import sinks_help
from prunus.apps.io.sources.registry import sources_help
from prunus.runtime.options import argument, group, option

Lips = Literal["own", "swapped", "frozen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationChoice:
    """Which network separates, whose voice, and how far it looks ahead."""

    model: str | None = shared.separator()
    face: int = option("Number of the face that is heard.", default=1, minimum=1)
    look_ahead: int | None = option(
        "Frames by which mouths wait to be steadied; default: 11, live 0.",
        default=None, minimum=0, maximum=11,
    )  # fmt: skip
    hop: float | None = option(
        "Seconds between windows; less is sooner and costs more.", default=None, minimum=0.04
    )
    gate: bool = option("Let the voice through also while the lips are shut.", default=True)
    detect_every: int = option("Look for faces every n frames.", default=10, minimum=1)


@dataclass(frozen=True, slots=True)
class SeparationOptions(SeparationChoice):
    """What `run_separation` does.

    Faces are numbered on the picture; in a window the keys 1 to 9 or a click choose another one.
    Without a sink, clips get a neighbour named NAME-voice.mp4, live sources a page on
    http://localhost:8080/; -o is short for one more --sink. Live, use headphones. Ctrl-C ends the
    run and completes the output. The exit code is 1 when the chosen face was never seen.

    \b
    Examples:
      prunus run separation --source talk.mp4 --face 2 --sink second.wav -o second.mp4
      prunus run separation --source 0+mic: --sink window: --sink speaker:
    """

    source: str = option(sources_help("av"), default="0+mic:")
    sinks: tuple[str, ...] = option(
        sinks_help("av", "sound", "frames"), default=(), flags=SINKS, metavar="SINK"
    )
    seconds: float | None = option(
        "Stop after so many seconds of sound.", default=None, minimum=0.04
    )
    log: Path | None = shared.sound_log()
    reconnect: bool = shared.reconnect()
    overlay: bool = option("Do not draw on the pictures.", default=True)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class SeparationBatchOptions(SeparationChoice):
    """What `prunus batch separation` does.

    Each clip gets one Parquet file with a row per second of the voice; what is there already is
    not done again. Clips that cannot be read whole, or in which the face was never seen, are set
    aside, with the reason, and the exit code is then 1.

    \b
    Examples:
      prunus batch separation clips/ --out voices --face 1
      prunus batch separation @clips.txt --out voices --media --ray none
    """

    work: Work = group(Work)
    compute: Compute = group(Compute)


@dataclass(frozen=True, slots=True)
class SeparationEvalOptions:
    """What `evaluate` of a separator does.

    Each split of LRS2-2Mix, LRS3-2Mix and VoxCeleb2-2Mix is such a folder; name the folder of
    their mouths (ID.npz) with --mouths. Word errors count against what is really said, in English:
    s1/NAME.txt beside s1/NAME.wav; voices without one are left out of that column.

    \b
    Examples:
      prunus eval separation wav16k/min/tt --mouths mouths --model dolphin
      prunus eval separation mixtures/ --model nano --lips own --lips swapped --lips frozen
    """

    folder: Path = argument("Folder with mix/, s1/, s2/ and mouths/.")
    model: str | None = shared.separator()
    mouths: Path | None = option("Folder of mouth files; default: FOLDER/mouths.", default=None)
    lips: tuple[Lips, ...] = option("Whose lips are shown; repeatable.", default=("own",))
    judge: tuple[str, ...] = option(
        "pesq, stoi, dnsmos, wer, speaker, wer-sphinx, plcmos; repeatable. Default: the first "
        "five, where installed.", default=(),
    )  # fmt: skip
    hop: float | None = option(
        "Seconds between windows; default: as the files allow.", default=None
    )
    limit: int | None = option("At most so many mixtures.", default=None, minimum=1)
    output: Path | None = shared.output("The scores, as JSON.")
    compute: BackendChoice = group(BackendChoice)
