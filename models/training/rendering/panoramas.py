"""Read the CC0 panoramas of the npm package `@pmndrs/assets`: rooms, halls, streets, parks.

Each is a small OpenEXR file in base64 inside a JavaScript module. They are stretched to what a
screen shows, and hold no people.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import numpy as np

from prunus.runtime.errors import ArtifactError

PACKAGE = "@pmndrs/assets 1.7.0"
_BRIGHT = 97.0  # percentile that becomes white
_GAMMA = 2.2


def read_panoramas(package: Path) -> list[np.ndarray]:
    """Return the panoramas of an unpacked package, RGB uint8 (256,512,3), in name order.

    Raises:
        ArtifactError: the folder holds none, or one is damaged.
    """
    files = sorted((package / "hdri").glob("*.exr.js"))
    if not files:
        raise ArtifactError(
            f"{package} holds no panoramas.", f"Unpack {PACKAGE} and name its folder 'package'."
        )
    return [_read(path) for path in files]


def _read(path: Path) -> np.ndarray:
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV asks for it when it decodes
    import cv2

    found = re.search(r"base64,([A-Za-z0-9+/=]+)", path.read_text(encoding="utf-8"))
    data = np.frombuffer(base64.b64decode(found[1]) if found else b"", np.uint8)
    light = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if light is None:
        raise ArtifactError(f"{path} holds no OpenEXR picture.", f"Unpack {PACKAGE} again.")
    shown = np.clip(light[..., 2::-1] / np.percentile(light, _BRIGHT), 0, 1) ** (1 / _GAMMA)
    return np.ascontiguousarray((shown * 255).astype(np.uint8))
