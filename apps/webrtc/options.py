"""What `prunus serve live` takes: a verb for each app that a browser can be the camera of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunus.apps.cli.verbs import Verb
from prunus.apps.common.options import BackendChoice, Pace
from prunus.apps.pose.options import PoseChoice
from prunus.apps.segmentation.options import SegmentationView
from prunus.apps.separation.options import SeparationChoice
from prunus.runtime.command import Console
from prunus.runtime.options import group, option
from prunus.runtime.references import load

TOKEN = "PRUNUS_LIVE_TOKEN"


@dataclass(frozen=True, slots=True)
class Door:
    """Where browsers come in."""

    host: str = option(
        "Address to listen on; beyond this machine the shown address carries a token.",
        default="127.0.0.1", metavar="ADDRESS",
    )  # fmt: skip
    port: int = option("Port; 0: a free one.", default=8080, minimum=0, maximum=65535)
    token: str | None = option(
        f"What browsers must give; default: the variable {TOKEN}, or a new one.", default=None
    )
    certificate: Path | None = option(
        "Certificate for https, with those that vouch for it, as PEM.", default=None
    )
    key: Path | None = option(
        "Its private key as PEM; default: in the same file.", default=None
    )


@dataclass(frozen=True, slots=True)
class LivePoseOptions(PoseChoice):
    """What `prunus serve live pose` does.

    The page asks for the camera, sends it here, and draws the skeletons that come back. One camera
    is on at a time; others wait. Browsers give cameras to pages of https or of localhost alone.
    Ctrl-C ends it. With --log, the file holds the last camera's run.

    \b
    Examples:
      prunus serve live pose
      prunus serve live pose --level L2 --host 0.0.0.0 --certificate box.pem --key box.key
    """

    pace: Pace = group(Pace)
    door: Door = group(Door)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class LiveSegmentationOptions(SegmentationView):
    """What `prunus serve live segmentation` does.

    The page asks for the camera, sends it here, and shows the masks, or the changed background,
    that come back; it can change --mode and --opacity. One camera is on at a time; others wait.
    Browsers give cameras to pages of https or of localhost alone. Ctrl-C ends it.

    \b
    Examples:
      prunus serve live segmentation --mode blur
      prunus serve live segmentation --host 0.0.0.0 --certificate box.pem --key box.key
    """

    door: Door = group(Door)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class LiveSeparationOptions(SeparationChoice):
    """What `prunus serve live separation` does.

    The page asks for camera and microphone, sends them here, and plays the voice of the face that
    was chosen in it; use headphones. One camera is on at a time; others wait. Browsers give cameras
    to pages of https or of localhost alone. Ctrl-C ends it.

    \b
    Examples:
      prunus serve live separation
      prunus serve live separation --face 2 --host 0.0.0.0 --certificate box.pem --key box.key
    """

    door: Door = group(Door)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class LiveApp:
    """An app whose camera a browser can be.

    Attributes:
        task: Of its row in `apps.registry`.
        help: One line.
        options: Dataclass made with `runtime.options`, with a field `door`; fields of the app's own
            options have the same names.
        prepare: ``prepare(options, stack)`` opens what all runs share, checks the rest, and returns
            more keywords of the app's ``run``; options are the app's.
        sound: Whether a microphone comes along, and a voice goes back.
    """

    task: str
    help: str
    options: type[Any]
    prepare: str
    sound: bool = False


_COMMAND = "prunus.apps.webrtc.command"
APPS = (
    LiveApp("pose", "Draw the skeletons of people before a browser's camera.",
            LivePoseOptions, f"{_COMMAND}:rehearse"),
    LiveApp("segmentation", "Show masks of what is before a browser's camera, or change the "
            "background.", LiveSegmentationOptions, f"{_COMMAND}:rehearse"),
    LiveApp("separation", "Send a browser the voice of one face before its camera.",
            LiveSeparationOptions, f"{_COMMAND}:lend", sound=True),
)  # fmt: skip


def verbs() -> tuple[Verb, ...]:
    """Return the verbs of `prunus serve live`."""
    return tuple(
        Verb(app.task, app.help, f"{__name__}:{app.options.__name__}", partial(_serve, app))
        for app in APPS
    )


def _serve(app: LiveApp, options: Any, console: Console) -> int | None:
    code: int | None = load(f"{_COMMAND}:serve_live")(app, options, console)
    return code
