"""What an app tells the browser pages among its sinks: data of each frame beside its picture.

A page draws the overlay itself, from a list of shapes that knows no task. Each is a JSON object:

``id``, ``label``, ``colour``   number, text of the tag, ``#rrggbb``
``box``                         x0, y0, x1, y1
``joints``                      x, y, score of each; limbs are those of the page's skeleton
``rings``                       closed lines, each x0, y0, x1, y1, ...; ``fill``: opacity, 0 to 1
``strong``                      the line is thick

Coordinates are pixels of the frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from prunus.apps.io.frames import Image
from prunus.apps.io.rows import without_password
from prunus.apps.live.controls import Controls
from prunus.runtime.references import load
from prunus.runtime.tasks.registry import task_named

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard

_STEADY = 0.9  # share of the old value in the rate


@runtime_checkable
class Page(Protocol):
    """A sink that shows data and takes controls."""

    @property
    def watched(self) -> bool:
        """Whether anybody gets the data."""

    def introduce(self, head: Mapping[str, Any], controls: Controls) -> None:
        """Take what holds for the whole run."""

    def tell(self, clean: Image | None, data: Mapping[str, Any]) -> None:
        """Take what goes with the frame that is written next."""


class Pages:
    """The pages among the sinks of a run; none is as good as any number.

    Args:
        sinks: All sinks.
        controls: Of the run.
        model: Name for the title.
        source: Of the frames, as the user gave it.
        head: More that holds for the whole run: ``skeleton``.
    """

    def __init__(
        self,
        sinks: Iterable[object],
        controls: Controls,
        model: str,
        source: str,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        self._pages = [sink for sink in sinks if isinstance(sink, Page)]
        self._last, self._interval = 0.0, 0.0
        told = {"model": model, "source": shown_source(source), **(head or {})}
        for page in self._pages:
            page.introduce(told, controls)

    def clean(self, image: Image) -> Image | None:
        """Return a copy of a frame before it is drawn on, None when nobody wants one."""
        return image.copy() if any(page.watched for page in self._pages) else None

    def tell(
        self,
        clean: Image | None,
        facts: Mapping[str, object],
        stage_ms: Mapping[str, float],
        overlay: Callable[[], list[dict[str, Any]]],
    ) -> None:
        """Tell the data of the frame that is written next.

        Args:
            clean: uint8 (height, width, 3) BGR without drawing; None: the drawn one is shown.
            facts: Text by label, in the order of display.
            stage_ms: Milliseconds by name.
            overlay: Makes the shapes that a page draws on the clean picture.
        """
        now = time.perf_counter()
        if self._last:
            interval = now - self._last
            self._interval = _STEADY * (self._interval or interval) + (1 - _STEADY) * interval
        self._last = now
        watching = [page for page in self._pages if page.watched]
        if not watching:
            return
        rate = {"Frames a second": f"{1 / self._interval:.1f}"} if self._interval else {}
        data = {
            "facts": {label: str(value) for label, value in {**facts, **rate}.items()},
            "stages": {name: round(ms, 2) for name, ms in stage_ms.items()},
            "overlay": overlay() if clean is not None else [],
        }
        for page in watching:
            page.tell(clean, data)


def shown_source(source: str) -> str:
    """Return a source's name for people who look from elsewhere: no password, no folders of ours.

    >>> shown_source("/home/me/street.mp4"), shown_source("rtsp://me:secret@camera/1?key=2")
    ('street.mp4', 'rtsp://me:***@camera/1')
    """
    if "://" in source:
        return without_password(source).partition("?")[0]
    return f"camera {source}" if source.isdigit() else Path(source).resolve().name


def card_facts(card: ModelCard) -> dict[str, str]:
    """Return what runs: network, variant, number format, tokens and work that are left."""
    facts = {"Model": f"{card.model} {card.variant}", "Number format": card.precision.precision}
    plan = card.tokens
    if plan is not None:
        facts["Level"] = plan.level
        facts["Tokens"] = load(task_named(card.task).plan_summary)(plan)
        if plan.blocks:  # else keys are pooled, and no token is dropped
            facts["Tokens kept"] = f"{plan.keep[-1] / plan.tokens:.0%}"
        if plan.macs_dense:
            facts["Work"] = f"{plan.macs / plan.macs_dense:.0%} of dense"
    return facts


def hex_colour(bgr: Iterable[int]) -> str:
    """Return ``#rrggbb`` of a BGR colour.

    >>> hex_colour((48, 32, 16))
    '#102030'
    """
    blue, green, red = bgr
    return f"#{red:02x}{green:02x}{blue:02x}"


def rounded(values: npt.ArrayLike) -> list[Any]:
    """Return numbers to a tenth as nested lists; what is not finite becomes 0."""
    finite = np.nan_to_num(np.asarray(values, np.float64), posinf=0, neginf=0)
    return [*np.round(finite, 1).tolist()]
