"""Where drawn frames, sound and codes go: one row per kind of name.

=====================  ===============================================================
``out.mp4``            video file (also .avi, .mkv, .mov)
``out.png``            picture; with several frames the last one
``folder/``            one picture per frame, named as in the source or by number
``window:``            a window on the desktop
``web:8080``           a page for browsers on this machine; ``web:0.0.0.0:8080``: with a token
``null:``              nowhere: measure, or write keypoints alone
``speaker:NAME``       sound, played
``out.wav``, ``-``     sound in a file, through a pipe
``out.pcodec``         codes in a file
``udp:HOST:PORT``      codes in packets
=====================  ===============================================================

A new kind is a file beside this one and a row in `SINKS`. A factory gets the whole name and what it
must know: for frames the `SourceInfo`; for sound a `SoundFormat`, for codes a `CodesFormat`, for
clips both, and the stack that owns what it opens.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prunus.apps.io.frames import Frame, Image, Sink, SourceInfo
from prunus.apps.io.rows import Item, Row, by_suffix, listed, named, of, otherwise, unknown_scheme
from prunus.runtime.errors import HostError, SourceError
from prunus.runtime.pictures.files import PICTURES

__all__ = ["SINKS", "VIDEOS", "NullSink", "Sink", "Stop", "open_sink", "require_space"]

VIDEOS = (".avi", ".mkv", ".mov", ".mp4")
_HERE, _CODES = "prunus.apps.io.sinks", "prunus.apps.codec.endpoints"
_SPEAKER = "prunus.apps.io.sound.live:open_speaker"
SINKS: tuple[Row, ...] = (
    Row("video.mp4", f"{_HERE}.video:open_video_sink", suffixes=VIDEOS),
    Row("picture.png", f"{_HERE}.pictures:open_picture_sink", suffixes=PICTURES),
    Row("folder/", f"{_HERE}.pictures:open_folder_sink", folder=True),
    Row("window:", f"{_HERE}.window:open_window", scheme="window"),
    Row("web:8080", "prunus.apps.web.server:open_web_sink", scheme="web"),
    Row("null:", f"{_HERE}.registry:open_null", scheme="null"),
    Row("", "prunus.apps.bench.picture_delay:open_screen", scheme="clock"),
    Row("", "prunus.apps.webrtc.ends:open_page", scheme="webrtc"),
    Row("speaker:, speaker:NAME", _SPEAKER, "sound", scheme="speaker"),
    Row("null:", f"{_HERE}.sound:open_null", "sound", scheme="null"),
    Row("-", f"{_HERE}.sound:open_pipe", "sound", pattern="-"),
    Row("", "prunus.apps.bench.loopback:open_loudspeaker", "sound", scheme="clicks"),
    Row("", "prunus.apps.webrtc.ends:open_voice", "sound", scheme="voice"),
    Row("out.wav", f"{_HERE}.sound:open_wav_sink", "sound", suffixes=(".wav",)),
    Row("out.mp4", f"{_HERE}.clip:open_clip_sink", "av", suffixes=VIDEOS),
    Row("talk.pcodec", f"{_CODES}:FileSink", "codes", suffixes=(".pcodec",)),
    Row("udp:HOST:PORT", f"{_CODES}:UdpSink", "codes", scheme="udp"),
)
_RESERVE = 8 << 20  # bytes that must stay free: encoders do not report a full disk, so we look


class Stop(Exception):  # noqa: N818 - a request, not an error
    """The user closed the window: end the run as if the source had ended."""


def open_sink(uri: str, info: SourceInfo) -> Sink[Frame]:
    """Open the sink of frames that a URI names (see the table in the module docstring).

    Raises:
        SourceError: no such kind, the folder cannot be written, or the port is taken.
        HostError: the disk is full, or this OpenCV cannot open windows.

    Example:
        >>> with contextlib.closing(open_sink("out.mp4", source.info)) as sink:
        ...     sink.write(frame, frame.image)
    """
    sink: Sink[Frame] = resolve(uri).load()(uri, info)
    return sink


def resolve(uri: str, *items: Item) -> Row:
    """Return the row of what a URI names.

    Args:
        uri: As users give it.
        items: What it may take: ``"frames"`` where nothing is said.

    Raises:
        SourceError: no such kind.
    """
    items = items or ("frames",)
    row = named(SINKS, uri, *items)
    if row is not None:
        return row
    wrong = unknown_scheme(SINKS, uri, "sink", *items)
    if wrong is not None:
        raise wrong
    path = Path(uri)
    folder = path.is_dir() or uri.endswith("/") or not path.suffix
    row = None if folder else by_suffix(SINKS, path.suffix, *items)
    row = row or otherwise(SINKS, folder, *items)
    if row is None:
        endings = dict.fromkeys(s for row in of(SINKS, *items) for s in row.suffixes)
        folders = ", or a folder ending in '/'" if "frames" in items else ""
        raise SourceError(
            f"Cannot tell what to write to {uri}: unknown ending '{path.suffix}'.",
            f"Use one of {', '.join(endings)}{folders}.",
        )
    return row


def sinks_help(*items: Item) -> str:
    """Return the help of ``--sink`` from the rows."""
    return f"{listed(SINKS, *(items or ('frames',)))}; repeatable."


class NullSink:
    """Takes frames or sound and forgets them."""

    name = "null:"

    def write(self, item: object, drawn: Image | None = None) -> None:
        """Forget a frame, or a block of sound."""

    def finish(self, samples: int | None) -> None:
        """Do nothing: there was no sound to complete."""

    def close(self) -> None:
        """Do nothing."""


def open_null(uri: str, info: SourceInfo) -> NullSink:
    """Open ``null:``."""
    return NullSink()


def require_space(path: Path, needed: int = 0) -> None:
    """Refuse to go on when the disk of `path` is nearly full.

    Args:
        path: File or folder that is about to be written; its parent must exist.
        needed: Bytes about to be written, on top of a reserve of 8 MiB.

    Raises:
        HostError: less is free.
    """
    free = shutil.disk_usage(path if path.is_dir() else path.absolute().parent).free
    if free < needed + _RESERVE:
        raise HostError(
            f"No space left while writing {path}: {free / 2**20:.0f} MiB are free, "
            f"{(needed + _RESERVE) / 2**20:.0f} MiB are needed.",
            "Free some disk space, or choose another folder with -o.",
        )
