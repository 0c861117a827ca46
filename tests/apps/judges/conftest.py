"""A real English sentence with what is said in it, where the system has one."""

from pathlib import Path

import numpy as np
import pytest

from prunus.runtime.audio.files import SoundReader

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
SAID = "he was not an ill disposed young man"


@pytest.fixture(scope="session")
def sentence():
    """Return a LibriVox reader's eight words: (T,) float32 at 16 kHz, and the words."""
    path = LIBRIVOX / "sense_and_sensibility_01_austen_64kb-0880.wav"
    if not path.is_file():
        pytest.skip("pocketsphinx-testdata is not installed")
    pytest.importorskip("soundfile")
    with SoundReader(path) as reader:
        return np.concatenate(list(reader.blocks())), SAID
