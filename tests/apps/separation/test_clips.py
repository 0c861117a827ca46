"""All voices of a clip by `prunus.load`: those that the app writes, and clean errors."""

from __future__ import annotations

import numpy as np
import pytest

import prunus
from prunus.apps.common.media import PEDESTRIANS, TWO_VOICES
from prunus.apps.separation.app import run_separation
from prunus.apps.separation.options import SeparationOptions
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.errors import SourceError

pytest.importorskip("av")


@pytest.fixture(scope="module")
def opened(separator):
    with prunus.load(separator) as separate:
        yield separate


def test_every_voice_of_a_clip_is_what_the_app_writes(opened, tmp_path, separator):
    heard = opened.predict(str(TWO_VOICES))
    again = opened.predict(TWO_VOICES.read_bytes())
    assert heard.to_dict()["sample_rate_hz"] == 16_000 and list(heard.voices) == [1, 2]
    for face, voice in heard.voices.items():
        np.testing.assert_array_equal(again.voices[face], voice)
        path = tmp_path / f"{face}.wav"
        options = SeparationOptions(
            source=str(TWO_VOICES), sinks=(str(path),), face=face, model=str(separator),
            overlay=False,
        )  # fmt: skip
        run_separation(options, quiet=True)
        with SoundReader(path) as sound:
            written = np.concatenate(list(sound.blocks()))
        assert len(written) == len(voice) and np.abs(written - voice).max() < 1 / 32000


def test_a_clip_that_cannot_be_heard_is_named(opened, tmp_path):
    with pytest.raises(SourceError, match=r"^The clip cannot be read"):
        opened(b"no clip")
    with pytest.raises(SourceError, match="holds no sound"):
        opened(str(PEDESTRIANS))
    with pytest.raises(SourceError, match=r"nowhere\.mp4"):
        opened(str(tmp_path / "nowhere.mp4"))
