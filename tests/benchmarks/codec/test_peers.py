"""Only voices that the training never heard are judged."""

import numpy as np
import pytest

from benchmarks.codec.peers import joined, studio
from benchmarks.separation.words import mixed, write_pairs
from prunus.apps.separation.mixtures import find_mixtures, read_mouths, read_sound
from prunus.runtime.errors import SourceError, UsageError


def test_a_voice_that_was_trained_on_is_refused(tmp_path):
    with pytest.raises(UsageError, match="msu_ru_nsh was trained on"):
        studio(tmp_path, "festvox_ru_unseen")  # unseen sentences of a voice that was heard
    with pytest.raises(SourceError, match="lacks asterisk-core-sounds-fr-g722"):
        studio(tmp_path, "asterisk_fr")


def test_clips_are_joined_until_there_are_enough():
    clips = (np.full(16000 * 6, k, np.float32) for k in range(100))
    found = joined(clips, "ones", 2)
    assert [len(r.sound) for r in found] == [160000, 160000]
    assert (found[1].sound[0], found[1].sound[-1]) == (2.0, 3.0) and next(clips)[0] == 4.0


def test_voices_meet_at_their_ratio(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    pair = (rng.standard_normal((2, 8000)) * [[3.0], [0.01]]).astype(np.float32)
    whole, voices = mixed(pair, 5.0, rng)
    levels = [10 * np.log10(np.mean(v.astype(float) ** 2)) for v in (*voices, whole)]
    assert levels[0] - levels[1] == pytest.approx(5.0, abs=0.01)
    assert levels[2] == pytest.approx(-24.0, abs=0.05)
    (one,) = joined([np.resize(pair[0] / 10, 160000)], "one", 1)
    write_pairs(tmp_path, [one], [one])
    found = find_mixtures(tmp_path)
    assert len(found) == 3 and not found[0].voices[0].with_suffix(".txt").exists()
    assert len(read_sound(found[0].mix, 16000)) == 160000
    assert len(read_mouths(found[0].mouths[1], 88)) == 250
