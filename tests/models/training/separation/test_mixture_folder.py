import numpy as np
import pytest

from prunus.apps.separation.mixtures import find_mixtures
from prunus.models.training.separation.mixture_folder import write_mixtures
from prunus.models.training.separation.mixtures import MixtureBatches, MixtureRules, Speaker
from prunus.models.training.speech.batches import Recording
from prunus.models.training.speech.pitch import HOP
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.errors import UsageError


def _speaker(name, seed):
    sound = (8000 * np.random.default_rng(seed).standard_normal(64000)).astype(np.int16)
    pitch = np.zeros(len(sound) // HOP, np.uint8)
    return Speaker(name, (Recording(name, sound, pitch),))


def test_what_is_written_is_what_eval_reads(tmp_path):
    batches = MixtureBatches([_speaker("a", 1), _speaker("b", 2)], 1, 5, MixtureRules(frames=25))
    names = write_mixtures(tmp_path / "set", batches, 2)
    found = find_mixtures(tmp_path / "set")
    assert [m.name for m in found] == sorted(names) and len(found[0].voices) == 2
    batch = batches[0]
    for path, expected in ((found[0].mix, batch.mixture[0]), (found[0].voices[1], batch.voice[1])):
        with SoundReader(path) as reader:
            sound = np.concatenate(list(reader.blocks()))
        assert np.abs(sound - expected.numpy()).max() < 1 / 32000
    mouths = np.load(found[0].mouths[1])["data"]
    assert mouths.dtype == np.uint8 and np.array_equal(mouths, batch.mouth[1].numpy())
    with pytest.raises(UsageError, match="already"):
        write_mixtures(tmp_path / "set", batches, 1)
