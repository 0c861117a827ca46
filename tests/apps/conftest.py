"""Small pictures and videos, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from prunus.apps.cli import main

MEDIA = Path(__file__).parents[2] / "apps" / "media"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def prunus(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def portrait() -> Path:
    return MEDIA / "portrait.jpg"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    """Return 12 frames of 256x256 pixels at 10 frames per second; frame i is i pixels further."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (256, 256))
    for i in range(12):
        writer.write(np.roll(picture, i, axis=1))
    writer.release()
    return path


def _frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            capture.release()
            return frames
        frames.append(frame)


@pytest.fixture(scope="session")
def frames_of() -> Callable[[Path], list[np.ndarray]]:
    return _frames_of
