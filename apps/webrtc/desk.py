"""Where browsers offer their cameras: one is taken at a time, the others are told to wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from prunus.apps.web.showing import Showing
from prunus.apps.webrtc.peer import Peer
from prunus.runtime.errors import HostError, UsageError
from prunus.runtime.limits import ANSWER_S

_NAME = 64  # letters of what a browser calls itself


class Desk:
    """Takes offers in any thread; hands out browsers to the thread that runs the app.

    Args:
        sound: Whether a microphone has to come along, and a voice goes back.

    Attributes:
        page: Makes the sink of a run; set before the first offer.
    """

    page: Callable[[], Showing]

    def __init__(self, sound: bool) -> None:
        self.sound = sound
        self._changed = threading.Condition()
        self._peer: Peer | None = None  # who is there
        self._next: Peer | None = None  # and has not been served yet
        self._closed = False
        # What it has to say about packets is of no use to who stands before the terminal.
        for name in ("aiortc", "aioice"):
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # of sockets that are closed
        self._thread = threading.Thread(target=self._loop.run_forever, name="webrtc", daemon=True)
        self._thread.start()

    def take(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an offer: ``sdp``.

        Args:
            message: ``sdp``, and ``camera``, by which a browser is known when it comes again.

        Raises:
            UsageError: it is no offer of a camera.
            HostError: another camera is on.
        """
        sdp, who = message.get("sdp"), message.get("camera", "")
        if not isinstance(sdp, str) or not isinstance(who, str) or len(who) > _NAME:
            raise UsageError(
                "Got an offer without a description; expected sdp, and perhaps camera, as text.",
                "Load the page anew.",
            )
        peer = self._admitted(who or secrets.token_urlsafe(16))
        try:
            work = asyncio.run_coroutine_threadsafe(peer.answer(sdp, self.sound), self._loop)
            answer = work.result(ANSWER_S)
        except concurrent.futures.TimeoutError:
            peer.leave("no answer could be made in time")
            raise HostError("No answer could be made in time.", "Try again.") from None
        except BaseException as error:
            peer.leave(str(error))
            raise
        with self._changed:
            if self._peer is peer:
                self._next = peer
                self._changed.notify_all()
        return {"type": "answer", "sdp": answer}

    def _admitted(self, who: str) -> Peer:
        with self._changed:
            before = self._peer
            if self._closed:
                raise HostError("This run ends.", "Start it again.")
            if before is not None and not before.gone and before.who != who:
                raise HostError("Another camera is on.", "Wait until it has gone.")
            peer = self._peer = Peer(who, self.page, self._wake)
        if before is not None:
            before.leave("it came again")
        return peer

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self) -> Peer:
        """Return the next browser that lends its camera, when it comes."""
        with self._changed:
            while self._next is None:
                self._changed.wait()
            peer, self._next = self._next, None
            return peer

    def close(self) -> None:
        """Let go who is there, and end the event loop; safe to call twice."""
        with self._changed:
            if self._closed:
                return
            self._closed, peer = True, self._peer
        if peer is not None:
            peer.close()
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result(ANSWER_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)
        self._loop.close()


async def _end_tasks() -> None:
    """Cancel what is left of connections."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
