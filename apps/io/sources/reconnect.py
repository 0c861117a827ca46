"""A live source that comes back: opened again after an interruption, with growing pauses."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prunus.apps.io.frames import Frame, Source
from prunus.runtime.errors import SourceError
from prunus.runtime.limits import RECONNECT_S

_FIRST_WAIT = 0.5  # seconds; doubled with each attempt
_LONGEST_WAIT = 8.0


class ReconnectingSource:
    """Frames of a live source, over its interruptions.

    Args:
        source: The source, opened for the first time.
        reopen: Opens it again.
        name: Address for messages, without a password.
        first_wait: Seconds before the first attempt to open it again.
        patience: Seconds without a picture after which the source is given up.
    """

    def __init__(
        self,
        source: Source[Frame],
        reopen: Callable[[], Source[Frame]],
        name: str,
        *,
        first_wait: float = _FIRST_WAIT,
        patience: float = RECONNECT_S,
    ) -> None:
        self._reopen, self._name = reopen, name
        self._first_wait, self._patience = first_wait, patience
        self._closed = threading.Event()
        self._gaps: list[float] = []
        self._told: list[str] = []  # by connections that are over
        self._reason, self._away = "", False
        self._source = source
        self.info = source.info

    @property
    def warnings(self) -> list[str]:
        """Return the interruptions so far, and what the connections themselves have to say."""
        lines = summed([*self._told, *([] if self._away else self._source.warnings)])
        if self._gaps:
            times = "once" if len(self._gaps) == 1 else f"{len(self._gaps)} times"
            lines.append(
                f"{self._name} was interrupted {times}: {sum(self._gaps):.1f} s are missing "
                f"(last reason: {self._reason})"
            )
        return lines

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames, counted on over interruptions, until the server closes the stream.

        Raises:
            SourceError: it did not come back in time.
        """
        index, wait = 0, self._first_wait / 2
        while True:
            opened = time.monotonic()
            try:
                for frame in self._source:
                    yield dataclasses.replace(frame, index=index)
                    index += 1
                return
            except SourceError as error:
                self._reason = error.message.rstrip(".")
            # A connection that breaks at once is not tried again any sooner.
            lasting = time.monotonic() - opened > _LONGEST_WAIT
            wait = self._first_wait if lasting else min(2 * wait, _LONGEST_WAIT)
            if not self._back(wait):
                return

    def _back(self, wait: float) -> bool:
        """Open the source again; False when it was closed meanwhile."""
        gone = time.monotonic()
        self._told, self._away = summed([*self._told, *self._source.warnings])[-20:], True
        self._source.close()
        while not self._closed.wait(wait):
            try:
                self._source, self._away = self._reopen(), False
            except SourceError as error:
                self._reason = error.message.rstrip(".")
                if (away := time.monotonic() - gone) > self._patience:
                    raise SourceError(
                        f"{self._name} did not come back within {away:.0f} s ({self._reason}).",
                        "Check the camera and the network, and start again.",
                    ) from None
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            self._gaps.append(time.monotonic() - gone)
            if self._closed.is_set():
                self._source.close()
            return not self._closed.is_set()
        return False

    def close(self) -> None:
        """Close the source, or end the waiting for it."""
        self._closed.set()
        self._source.close()


def summed(lines: Sequence[str]) -> list[str]:
    """Return each message once; where several begin with a count, with the sum of the counts.

    >>> summed(["2 pictures were skipped", "The clock stands still", "3 pictures were skipped"])
    ['5 pictures were skipped', 'The clock stands still']
    """
    counts: Counter[str] = Counter()
    for line in lines:
        found = re.fullmatch(r"(\d+) (.+)", line)
        counts[found[2] if found else line] += int(found[1]) if found else 0
    return [f"{count} {text}" if count else text for text, count in counts.items()]
