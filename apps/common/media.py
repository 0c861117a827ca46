"""The clips and pictures that ship with prunus."""

from __future__ import annotations

from pathlib import Path

MEDIA = Path(__file__).parents[1] / "media"
PORTRAIT = MEDIA / "portrait.jpg"
PEDESTRIANS = MEDIA / "pedestrians.mp4"
TWO_VOICES = MEDIA / "two_voices.mp4"
