"""Masks as files: one PNG of class numbers per frame, and a JSON list of what each frame shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.io.sinks.pictures import FolderSink, write_picture
from prunus.apps.io.sources.registry import Frame

if TYPE_CHECKING:
    from prunus.runtime.tasks.segmentation.card import MaskPostprocess
    from prunus.runtime.tasks.segmentation.segmenter import Mask


class MaskFolder:
    """A folder that gets one PNG per frame: grey, its values are class numbers.

    Up to 256 classes give 8 bits, more give 16. A picture's mask is named after the picture, the
    mask of a video's frame after its number.

    Args:
        folder: Made when missing.

    Raises:
        SourceError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = str(folder), folder
        self._taken: set[str] = set()
        FolderSink(folder)  # makes it, and finds out now whether it can be written

    def write(self, frame: Frame, mask: Mask) -> str:
        """Write the mask of one frame and return the file's name."""
        name = f"{Path(frame.name).stem if frame.name else f'frame_{frame.index:06d}'}.png"
        if name in self._taken:  # a.jpg and a.png lie in one folder
            name = f"{frame.name}.png"
        self._taken.add(name)
        numbers = mask.classes if mask.classes.dtype == np.uint8 else mask.classes.astype(np.uint16)
        write_picture(self._folder / name, numbers)
        return name


class MaskList(JsonListWriter):
    """Write what each frame shows; the file gets its name, whole and valid, when it is closed.

    Args:
        path: JSON file.
        postprocess: Class names of the card.
        common: What every entry begins with.
    """

    def __init__(
        self,
        path: Path,
        postprocess: MaskPostprocess,
        common: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, common=common)
        self._names = postprocess.classes

    def write(self, frame: Frame, mask: Mask, file: str = "") -> None:
        """Add one frame: its size, time if any, and the share of each class that it shows, 0..1.

        Args:
            frame: The frame.
            mask: Its mask.
            file: Name of the mask's PNG, empty for none.
        """
        counts = np.bincount(mask.classes.ravel(), minlength=len(self._names))
        height, width = mask.classes.shape
        entry: dict[str, Any] = {
            "frame": frame.index,
            "width": width,
            "height": height,
            "classes": {
                self._names[k]: round(float(counts[k]) / mask.classes.size, 6)
                for k in np.flatnonzero(counts).tolist()
            },
        }
        if frame.seconds is not None:
            entry["seconds"] = round(frame.seconds, 6)
        if frame.name:
            entry["file_name"] = frame.name
        if file:
            entry["mask"] = file
        self.add(entry)
