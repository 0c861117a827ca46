"""`prunus serve live`: the page, and one run of the app after the other for those who come."""

from __future__ import annotations

import dataclasses
import os
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.registry import APPS
from prunus.apps.web.server import WebServer, is_loopback
from prunus.apps.web.showing import Showing
from prunus.apps.webrtc.options import TOKEN, Door, LiveApp
from prunus.runtime.command import INTERRUPTED, Console
from prunus.runtime.errors import MissingDependencyError, PrunusError, SourceError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.references import load

if TYPE_CHECKING:
    from prunus.apps.live.controls import Controls
    from prunus.apps.live.summary import Summary
    from prunus.apps.webrtc.desk import Desk
    from prunus.apps.webrtc.peer import Peer

Run = Callable[..., "Summary"]


class _Page(Showing):
    """The sink of a run whose source is the browser that looks at it."""

    def introduce(self, head: Mapping[str, Any], controls: Controls) -> None:
        """See `Showing`; numbers of browsers say nothing to people."""
        super().introduce({**head, "source": "camera of a browser"}, controls)


def serve_live(live: LiveApp, options: Any, console: Console) -> int | None:
    """Serve an app to cameras of browsers, one at a time, until Ctrl-C.

    Raises:
        PrunusError: models or options cannot be used, the address cannot be, or a package is
            missing.
    """
    [app] = (app for app in APPS if app.task == live.task)
    run, own = load(app.run), load(app.options)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)
             if field.name in {field.name for field in dataclasses.fields(own)}}  # fmt: skip
    door: Door = options.door
    with ExitStack() as stack:
        desk = stack.enter_context(closing(_desk(live.sound)))
        server = stack.enter_context(closing(_server(door, desk)))
        idle = partial(Showing, server, {"model": live.task})
        idle()
        desk.page = partial(_Page, server)
        more = load(live.prepare)(run, own(**given), stack)
        if not is_loopback(door.host) and door.certificate is None:
            print("note: without --certificate, browsers elsewhere give no camera", file=sys.stderr)
        console.say(
            f"{live.task} waits for a camera on {server.name} ; Ctrl-C ends it",
            json_text({"app": live.task, "url": server.name}),
        )
        sys.stdout.flush()  # whoever started this waits for the address
        while True:
            peer = desk.wait()
            name = peer.uri
            source = {"source": f"{name}+{name}"} if live.sound else {"sources": (name,)}
            sinks = (name, f"voice:{name}") if live.sound else (name,)
            begin = partial(run, own(**source, sinks=sinks, **given), quiet=console.quiet)
            with closing(peer):
                if _interrupted(partial(begin, **more), peer, console):
                    return INTERRUPTED
            idle()
            if not console.quiet:
                print(f"the camera has gone: {peer.reason}", file=sys.stderr)


def _interrupted(begin: Callable[[], Summary], peer: Peer, console: Console) -> bool:
    """Run until the browser has gone, again when it is turned; return whether Ctrl-C ended it."""
    while not peer.gone:
        try:
            summary = begin()
        except PrunusError as error:  # of this camera: the next one may do better
            print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
            peer.leave(error.message.rstrip("."))
            return False
        if not console.quiet or console.json:
            console.say(summary.to_text(), summary.to_json())
            sys.stdout.flush()
        if summary.interrupted:
            return True
        if peer.rest is None:
            peer.leave("the run has ended")
    return False


def rehearse(run: Run, options: Any, stack: ExitStack) -> dict[str, Any]:
    """Run the app on one made-up frame: what is wrong with options is told before any camera."""
    pace = getattr(options, "pace", None)
    silent = {} if pace is None else {"pace": dataclasses.replace(pace, log=None)}
    made_up = {"sources": ("synthetic:320x240*1",), "sinks": ("null:",)}
    run(dataclasses.replace(options, **made_up, **silent), quiet=True)
    return {}


def lend(run: Run, options: Any, stack: ExitStack) -> dict[str, Any]:
    """Open the models of the voice picker once, for all cameras."""
    from prunus.apps.separation.models import open_models

    return {"models": open_models(options, options.compute.keywords(), stack)}


def _desk(sound: bool) -> Desk:
    try:
        from prunus.apps.webrtc.desk import Desk
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            str(error.name), "webrtc", "A browser's camera"
        ) from None
    return Desk(sound)


def _server(door: Door, desk: Desk) -> WebServer:
    token = os.environ.get(TOKEN) if door.token is None else door.token
    if token is not None and (not token or not token.isascii() or not token.isprintable()):
        raise UsageError(
            "Got an empty token, or one with signs beyond ASCII; expected text.",
            f"Leave out --token and {TOKEN} to get one.",
        )
    return WebServer(
        door.host, door.port, token, tls=_tls(door), offers=desk, hint="--port 8090"
    )


def _tls(door: Door) -> ssl.SSLContext | None:
    if door.certificate is None:
        if door.key is not None:
            raise UsageError("Got --key without --certificate.", "Give both files.")
        return None
    for path in filter(None, (door.certificate, door.key)):
        if not Path(path).is_file():
            raise SourceError(f"There is no file {path}.", "Give certificate and key, as PEM.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key with a password must not make the program wait for somebody at the terminal.
        context.load_cert_chain(door.certificate, door.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise SourceError(
            f"Cannot use {door.certificate} with {door.key or 'the key in it'}: {why}.",
            "Give a certificate and its key, unencrypted, as PEM.",
        ) from None
    return context
