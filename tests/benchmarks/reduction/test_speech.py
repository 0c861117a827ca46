"""Speech that Whisper's encoder is judged on."""

import numpy as np
import pytest

from benchmarks.reduction import speech
from prunus.runtime.audio.files import write_wav
from prunus.runtime.errors import SourceError


def test_prompts_are_joined_with_what_is_said_in_them(tmp_path):
    folder = tmp_path / "usr" / "share" / "sounds"
    folder.mkdir(parents=True)
    lines = ["one: Please hold on the line, now.", "two: [a tone that is not a word]",
             "dir/three: You may press the pound key.", "four: Short.",
             "five: There is no sound of this one."]  # fmt: skip
    (tmp_path / "core-sounds-en.txt").write_text("\n".join(lines))
    for name in ("one", "two", "three", "four"):
        sound = np.full(16_000 * 16, 0.1, np.float32)
        write_wav(folder / f"{name}.wav", iter([sound]), 16_000)
    sounds, said = speech.read_speech(tmp_path, 5)
    assert said == [["please", "hold", "on", "the", "line", "now"]]  # the next has no room
    assert sounds.shape == (1, 480_000)
    assert (sounds[0, :256_000] > 0.09).all() and not sounds[0, 256_000:].any()
    with pytest.raises(SourceError, match="No prompts and texts of Asterisk"):
        speech.read_speech(folder, 5)
