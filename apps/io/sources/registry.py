"""Where frames, sound and codes come from: one row per kind of name.

===========================  =========================================================
``0``, ``/dev/video0``       camera
``picture.jpg``, ``folder/``  one picture, or all pictures of a folder in name order
``street.mp4``               video file
``rtsp://host/path``         network camera
``http://host/stream``       MJPEG stream, or a video or picture by its address
``synthetic:640x480@25*100`` camera moving over the bundled portrait: size, rate, frames
``mic:``, ``mic:NAME``       sound of a microphone
``talk.wav``, ``-``          sound file (FLAC, Ogg, the sound of a clip too), a pipe
``synthetic:5``              voice-like sound of so many seconds
``talk.pcodec``              file of codes
``udp:PORT``                 codes in packets
===========================  =========================================================

A new kind is a file beside this one and a row in `SOURCES`. Its factory gets the whole name; that
of sound a `SoundFormat` as well, that of codes a `CodesFormat`.
"""

from __future__ import annotations

from pathlib import Path

from prunus.apps.io.frames import Frame, Image, Source, SourceInfo
from prunus.apps.io.rows import (
    Item,
    Row,
    by_suffix,
    listed,
    named,
    otherwise,
    unknown_scheme,
    without_password,
)
from prunus.apps.io.sources.live import LiveSource
from prunus.apps.io.sources.reconnect import ReconnectingSource
from prunus.runtime.errors import SourceError
from prunus.runtime.pictures.files import PICTURES

__all__ = [
    "SOURCES",
    "Frame",
    "Image",
    "Source",
    "SourceInfo",
    "open_source",
    "resolve",
]

_HERE, _CODES = "prunus.apps.io.sources", "prunus.apps.codec.endpoints"
_CLIPS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
SOURCES: tuple[Row, ...] = (
    Row("0", f"{_HERE}.video:open_camera", pattern="[0-9]{1,5}"),
    Row("/dev/video0", f"{_HERE}.video:open_camera", pattern="/dev/video[0-9]{1,3}"),
    Row("picture", f"{_HERE}.pictures:open_picture", suffixes=PICTURES),
    Row("folder", f"{_HERE}.pictures:open_folder", folder=True),
    Row("video", f"{_HERE}.video:open_video", suffixes=_CLIPS, other=True),
    Row("rtsp://", f"{_HERE}.stream:StreamSource", scheme="rtsp://"),
    Row("", f"{_HERE}.stream:StreamSource", scheme="rtsps://"),
    Row("http://", f"{_HERE}.http:open_http", scheme="http://"),
    Row("", f"{_HERE}.http:open_http", scheme="https://"),
    Row("synthetic:", f"{_HERE}.synthetic:open_synthetic", scheme="synthetic"),
    Row("", "prunus.apps.bench.picture_delay:open_camera", scheme="clock"),
    Row("", "prunus.apps.webrtc.ends:open_camera", scheme="webrtc"),
    Row("clip.mp4", f"{_HERE}.av_frames:open_clip", "av", suffixes=_CLIPS, other=True),
    Row("clip.mp4+speech.wav", f"{_HERE}.av_frames:open_clip", "av", pattern=r".+\+[^:]+"),
    Row("0+mic:NAME", f"{_HERE}.av_frames:open_live", "av", pattern=r".+\+(mic|webrtc|clicks):.*"),
    Row("mic:, mic:NAME", f"{_HERE}.sound:open_microphone", "sound", scheme="mic"),
    Row("sound file", f"{_HERE}.sound:open_file", "sound", other=True),
    Row("synthetic:5", f"{_HERE}.sound:open_synthetic", "sound", scheme="synthetic"),
    Row("-", f"{_HERE}.sound:open_file", "sound", pattern="-"),
    Row("", "prunus.apps.bench.loopback:open_microphone", "sound", scheme="clicks"),
    Row("", "prunus.apps.webrtc.ends:open_microphone", "sound", scheme="webrtc"),
    Row("talk.pcodec", f"{_CODES}:FileSource", "codes", suffixes=(".pcodec",)),
    Row("udp:PORT", f"{_CODES}:UdpSource", "codes", scheme="udp"),
)


def open_source(uri: str, *, reconnect: bool = True) -> Source[Frame]:
    """Open the source of frames that a URI names (see the table in the module docstring).

    Args:
        uri: Source; a file or folder whose name is a number is one unless such a camera exists.
        reconnect: Open a network stream again when it breaks off.

    Raises:
        SourceError: nothing there, no such kind, or not readable.
        MissingDependencyError: OpenCV is not installed.

    Example:
        >>> with contextlib.closing(open_source("street.mp4")) as source:
        ...     first = next(iter(source))
    """
    row = resolve(uri)
    source: Source[Frame] = row.load()(uri)
    if not source.info.live or source.info.kind == "synthetic":
        return source
    if reconnect and row.address:
        shown = without_password(uri)
        source = ReconnectingSource(source, lambda: row.load()(uri), shown)
    return LiveSource(source)


def resolve(uri: str, *items: Item) -> Row:
    """Return the row of what a URI names.

    Args:
        uri: As users give it.
        items: What it may give: ``"frames"`` where nothing is said.

    Raises:
        SourceError: nothing there, or no such kind.
    """
    items = items or ("frames",)
    row = named(SOURCES, uri, *items)
    if row is not None and not (row.pattern and _is_file(uri)):
        return row
    path, hint = Path(uri), f"Give {listed(SOURCES, *items)}"
    try:
        folder, there, file = path.is_dir(), path.exists(), path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        folder = there = file = False
    if not there:
        missing = SourceError(f"Source not found: {uri}.", hint)
        raise unknown_scheme(SOURCES, uri, "source", *items) or missing
    row = None if folder else by_suffix(SOURCES, path.suffix, *items)
    if not folder and not file and "frames" in items:  # reading a device may never end
        raise SourceError(
            f"{uri} is neither a file nor a folder.", "A camera is given by its number: --source 0"
        )
    row = row or otherwise(SOURCES, folder, *items)
    if row is None:
        raise SourceError(f"{uri} is a folder; expected {sources_help(*items)}", hint)
    return row


def _is_file(uri: str) -> bool:
    """Tell a file or folder from a camera whose number or device its name could be, too."""
    return not Path(f"/dev/video{uri}").exists() and (Path(uri).is_file() or Path(uri).is_dir())


def sources_help(*items: Item) -> str:
    """Return the help of ``--source`` from the rows."""
    return f"{listed(SOURCES, *(items or ('frames',)))}."
