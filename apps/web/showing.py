"""What a web server shows and takes: one run after the other, and the cameras of browsers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from prunus.apps.io.frames import Frame, Image
from prunus.apps.live.controls import Controls
from prunus.apps.web.newest import Newest


class House(Protocol):
    """Where runs are shown; `server.WebServer` is one."""

    @property
    def name(self) -> str:
        """The address."""

    @property
    def viewers(self) -> int:
        """How many look."""

    def show(self, showing: Showing) -> None:
        """Show another run from now on."""


class Showing:
    """The sink of one run: what it has to show. Slow viewers miss frames, the run never waits.

    Args:
        server: Where it is shown from now on.
        head: What holds for the whole run, as far as it is known.

    Attributes:
        newest: The newest frame.
        controls: Of the run, None before it begins.
    """

    def __init__(self, server: House, head: Mapping[str, Any] | None = None) -> None:
        self.newest = Newest()
        self.controls: Controls | None = None
        self.head: Mapping[str, Any] = head or {}
        self._told: tuple[Image | None, Mapping[str, Any]] = (None, {})
        self._server = server
        server.show(self)

    @property
    def name(self) -> str:
        """The address, for messages."""
        return self._server.name

    @property
    def watched(self) -> bool:
        """Whether anybody looks, so that data and a clean picture are worth making."""
        return self._server.viewers > 0

    def introduce(self, head: Mapping[str, Any], controls: Controls) -> None:
        """Take what holds for the whole run: ``model``, ``source``, and what can be controlled."""
        self.head, self.controls = head, controls
        controls.on_change.append(self.newest.wake)
        self.newest.wake()

    def tell(self, clean: Image | None, data: Mapping[str, Any]) -> None:
        """Take the picture without drawing and the data of the frame that is written next."""
        self._told = (clean, data)

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show the frame to whoever is watching."""
        clean, data = self._told
        self._told = (None, {})
        about = {"frame": frame.index, "width": drawn.shape[1], "height": drawn.shape[0]}
        self.newest.put(drawn, clean, frame.captured_ns, {**about, **data})

    def close(self) -> None:
        """Tell viewers that this is the end."""
        self.newest.close()


class Offers(Protocol):
    """What takes the cameras that browsers offer.

    Attributes:
        sound: Whether a microphone has to come along.
    """

    sound: bool

    def take(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an offer.

        Raises:
            UsageError: it is none.
            HostError: there is no place for it now.
        """
