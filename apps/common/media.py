"""What ships with prunus to look at: the picture with the code, the clips in prunus-models.

Names of clips are their places in a checkout; `bundled` tells where one lies.
"""

from __future__ import annotations

from pathlib import Path

MEDIA = Path(__file__).parents[1] / "media"
PORTRAIT = MEDIA / "portrait.jpg"
PEDESTRIANS = MEDIA / "pedestrians.mp4"
TWO_VOICES = MEDIA / "two_voices.mp4"


def bundled(clip: Path) -> Path:
    """Return where a clip lies.

    Raises:
        MissingDependencyError: neither beside the code, nor is prunus-models installed.
    """
    from prunus.models.zoo import shipped_file

    return shipped_file(clip, "The bundled clip")
