"""The bundled clip: faces that stay, lips that follow the voices, voices that make the sound."""

from __future__ import annotations

import numpy as np
import pytest

from prunus.apps.common.media import TWO_VOICES
from prunus.apps.demo.two_voices import (
    FPS,
    RATE_HZ,
    follow_faces,
    openings,
    read_clean,
    read_moments,
    write_mixture,
)
from prunus.apps.io.sources.clip import Clip
from prunus.apps.separation.mixtures import find_mixtures, read_mouths, read_sound
from prunus.models.training.rendering.drawn_lips import speech_shape
from prunus.runtime.audio.quality import si_sdr_db
from prunus.runtime.errors import SourceError

pytest.importorskip("av")


@pytest.fixture(scope="module")
def seen():
    pictures, _ = read_moments(TWO_VOICES)
    return follow_faces(pictures, "onnxruntime")


def test_the_mixture_is_mono_and_the_sum_of_both_voices_at_equal_power():
    info = Clip(TWO_VOICES).info
    assert (info.channels, info.sample_rate_hz, info.fps) == (1, RATE_HZ, FPS)
    assert TWO_VOICES.stat().st_size < 350_000
    pictures, mixture = read_moments(TWO_VOICES)
    voices = read_clean(TWO_VOICES)
    assert len(pictures) == 8 * FPS and len(mixture) == voices.shape[1] == 8 * RATE_HZ
    # Each sound went through AAC by itself: that is what the sum may differ by.
    assert si_sdr_db(voices.sum(axis=0), mixture) > 18
    for voice in voices:
        assert si_sdr_db(voice, mixture) == pytest.approx(0, abs=0.5)
    assert abs(np.corrcoef(*voices)[0, 1]) < 0.02
    assert len(read_clean(TWO_VOICES, 8000)[0]) == 8 * 8000


def test_both_faces_are_there_throughout_and_keep_their_numbers(seen):
    for faces in seen[2:]:  # a number comes with the third frame
        assert [face.face_id for face in faces] == [1, 2]
        left, right = (face.points[:, 0] for face in faces)
        assert left.max() < right.min()
        assert all(face.mouth_inside == 1 for face in faces)


def test_the_lips_that_the_face_path_reads_follow_their_own_voice(seen):
    drives = [speech_shape(voice)[0] for voice in read_clean(TWO_VOICES)]
    for number in (1, 2):
        track = openings(seen, number)[2:]
        own, other = (
            np.corrcoef(track, drives[k][2:])[0, 1] for k in (number - 1, 2 - number)
        )
        assert own > 0.9, own
        assert other < 0.3, other
        assert track.max() > 0.3 and track.min() < 0.06  # mouth widths: they open, and they shut


def test_the_clip_becomes_a_folder_for_the_evaluation(tmp_path):
    write_mixture(TWO_VOICES, tmp_path)
    (mixture,) = find_mixtures(tmp_path)
    sounds = [read_sound(path, RATE_HZ) for path in (mixture.mix, *mixture.voices)]
    assert {len(sound) for sound in sounds} == {8 * RATE_HZ}
    assert si_sdr_db(sounds[1] + sounds[2], sounds[0]) > 18
    crops = [read_mouths(path, 88) for path in mixture.mouths]
    assert all(c.shape == (8 * FPS, 88, 88) for c in crops)
    dark = [(c < 75).sum(axis=(1, 2)) for c in crops]  # the open mouth, as drawn
    for shown, voice in zip(dark, sounds[1:], strict=True):
        assert np.corrcoef(shown, speech_shape(voice)[0])[0, 1] > 0.85


def test_a_clip_without_clean_voices_is_told(tmp_path):
    with pytest.raises(SourceError, match="expected a second one"):
        read_clean(TWO_VOICES.with_name("pedestrians.mp4"))
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    with pytest.raises(SourceError, match="cannot be read"):
        read_clean(tmp_path / "broken.mp4")
