"""`prunus eval separation` on mixtures whose scores are known beforehand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.separation.evaluate import evaluate_separation
from prunus.apps.separation.mixtures import clip_ids, find_mixtures, read_mouths
from prunus.apps.separation.options import SeparationEvalOptions
from prunus.runtime.audio.quality import si_sdr_db
from prunus.runtime.errors import SourceError, TensorError, UsageError
from prunus.runtime.options import build
from prunus.runtime.tasks.separation.quality import improvement, sdr_db

soundfile = pytest.importorskip("soundfile")
RATE, COUNT = 16000, 12000


def _noise(seed):
    return np.random.default_rng(seed).standard_normal(COUNT).astype(np.float32)


def _orthogonal(one, other):
    """Return `other` without what it shares with `one`, as loud as `one`."""
    one, other = one - one.mean(), other - other.mean()
    rest = other - (other @ one) / (one @ one) * one
    return (rest * np.linalg.norm(one) / np.linalg.norm(rest)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two mixtures of two voices, mouths that tell the voices apart."""
    root = tmp_path / "tt"
    for part in ("mix", "s1", "s2", "mouths/s1", "mouths/s2"):
        (root / part).mkdir(parents=True)
    for name, seed in (("a", 1), ("b", 5)):
        one = 0.1 * _noise(seed)
        two = _orthogonal(one, _noise(seed + 1))
        for part, sound in (("s1", one), ("s2", two), ("mix", one + two)):
            soundfile.write(root / part / f"{name}.wav", sound, RATE, subtype="FLOAT")
        for k in (1, 2):
            crops = np.full((19, 96, 96), 10 * k, np.uint8)
            crops[::2] += 1
            np.savez(root / "mouths" / f"s{k}" / f"{name}.npz", data=crops)
    return root


class Oracle:
    """Gives the voice of the lips that it sees, 20 dB clean; the mixture when they do not move."""

    sample_rate_hz, trained = RATE, True
    mouth = SimpleNamespace(size=88, frame_rate_hz=25)
    card = SimpleNamespace(
        model="oracle", variant="one-voice", weights=SimpleNamespace(sha256="0" * 64)
    )
    voice = SimpleNamespace(card=card)

    def __init__(self, folder):
        self.voices = {}
        for name in ("a", "b"):
            parts = [soundfile.read(folder / p / f"{name}.wav", dtype="float32")[0]
                     for p in ("s1", "s2", "mix")]  # fmt: skip
            self.voices[parts[2].tobytes()] = parts[:2]

    def separate(self, mixture, mouths, *, hop_s=None):
        crops = np.stack([crop for crop, _ in mouths])
        assert crops.shape == (19, 88, 88)
        if (crops == crops[:1]).all():
            return mixture
        index = int(crops.min()) // 10 - 1
        wanted, other = (self.voices[mixture.tobytes()][k] for k in (index, 1 - index))
        return wanted + 0.1 * other


def test_scores_are_the_known_ones(folder) -> None:
    result = evaluate_separation(
        Oracle(folder), find_mixtures(folder), lips=("own", "swapped", "frozen")
    )
    assert result.names == ("a/s1", "a/s2", "b/s1", "b/s2")
    assert result.mean("own", "SI-SDR dB") == pytest.approx(20, abs=0.05)
    assert result.mean("own", "SI-SDRi dB") == pytest.approx(20, abs=0.1)  # mixtures are at 0 dB
    assert result.mean("swapped", "SI-SDR dB") == pytest.approx(-20, abs=0.1)
    assert result.mean("frozen", "SI-SDRi dB") == pytest.approx(0, abs=1e-6)
    assert "own lips" in result.to_text() and "UNTRAINED" not in result.to_text()
    assert json.loads(json.dumps(result.to_dict()))["means"]["own"]["SI-SDR dB"] > 19


def test_mixture_and_clean_voice_stand_beside(folder) -> None:
    """The clean voice is compared with nothing; words count where there are some."""

    class Ear:
        def __init__(self, name, compares):
            self.name, self.compares, self.heard = name, compares, []

        def score(self, heard):
            self.heard.append(heard)
            return float("nan") if heard.text is None else float(np.abs(heard.decoded).max())

    (folder / "s2" / "a.txt").write_text("go forward")
    ear, words = Ear("ear", True), Ear("WER %", False)
    mixtures = find_mixtures(folder)
    result = evaluate_separation(Oracle(folder), mixtures, [ear, words])
    assert [row.name for row in result.rows] == ["mixture", "own", "clean"]
    assert result.mean("mixture", "SI-SDRi dB") == 0.0
    assert list(result.rows[2].scores) == ["WER %"] and len(ear.heard) == 8
    assert result.rows[0].words == (0, 2, 0, 0) and result.notes[-1].endswith("1 of 4 recordings")
    for row, part in (("mixture", "mix"), ("clean", "s2")):
        loudest = np.abs(soundfile.read(folder / part / "a.wav")[0]).max()
        assert result.mean(row, "WER %") == pytest.approx(loudest, abs=1e-6)
    (folder / "s1" / "b.txt").write_text("go 4 ward")
    with pytest.raises(SourceError, match=r"b\.txt has the number '4'"):
        evaluate_separation(Oracle(folder), mixtures, [words])


def test_sdr_is_that_of_bss_eval(folder) -> None:
    pytest.importorskip("fast_bss_eval")
    one, two = _noise(1), _orthogonal(_noise(1), _noise(2))
    # The filter of 512 taps explains a little of any noise, so the ratio comes out higher.
    assert sdr_db(one, one + 0.1 * two) == pytest.approx(20, abs=0.4)
    # And it forgives what a short filter does, which SI-SDR does not.
    late = np.concatenate((np.zeros(7, np.float32), one[:-7]))
    assert sdr_db(one, late) > 25 > 0 > si_sdr_db(one, late)
    assert np.isnan(sdr_db(one, np.zeros_like(one)))
    with pytest.raises(TensorError, match="equal"):
        sdr_db(one, two[:-1])
    found = improvement(one, one + two, one + 0.1 * two)
    assert found["SDRi dB"] == pytest.approx(20, abs=0.6)


def test_published_names_tell_their_mouths(folder, tmp_path) -> None:
    assert clip_ids("a_b") == []
    assert clip_ids("0Fi83BHQsMA_00002_1.5_2gW5lT-sx_E_00003_-1.5")[1] == "2gW5lT-sx_E_00003"
    name = "6330311066473698535_00011_0.63_6331559613336179781_00018_-0.63"
    for part in ("mix", "s1", "s2"):
        (folder / part / "a.wav").rename(folder / part / f"{name}.wav")
        (folder / part / "b.wav").unlink()
    lips = tmp_path / "lips"
    lips.mkdir()
    with pytest.raises(SourceError, match="6330311066473698535_00011"):
        find_mixtures(folder, lips)
    for k, clip in enumerate(clip_ids(name)):
        np.savez(lips / f"{clip}.npz", data=np.full((19, 96, 96), k, np.uint8))
    (mixture,) = find_mixtures(folder, lips)
    assert [int(read_mouths(p, 88)[0, 0, 0]) for p in mixture.mouths] == [0, 1]


def test_folders_and_files_that_do_not_fit_are_refused(folder, tmp_path) -> None:
    with pytest.raises(SourceError, match="holds no mixtures"):
        find_mixtures(tmp_path)
    soundfile.write(folder / "s1" / "a.wav", np.zeros(10), RATE)
    with pytest.raises(SourceError, match="10 samples"):
        evaluate_separation(Oracle(folder), find_mixtures(folder))
    np.savez(tmp_path / "a.npz", data=np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(SourceError, match="expected 'data'"):
        read_mouths(tmp_path / "a.npz", 88)
    with pytest.raises(UsageError, match="did you mean 'frozen'"):
        build(SeparationEvalOptions, {"folder": tmp_path, "lips": ("frozn",)})


def test_damaged_mouths_are_refused_by_name(broken_npz) -> None:
    path = broken_npz("b.npz", data=np.zeros((3, 96, 96), np.uint8))
    with pytest.raises(SourceError, match=r"b\.npz is not a complete"):
        read_mouths(path, 88)


def test_the_verb_reports_an_exported_separator(folder, tiny_separator, tmp_path, capsys) -> None:
    pytest.importorskip("onnxruntime")
    target = tmp_path / "scores.json"
    words = ["eval", "separation", str(folder), "--model", str(tiny_separator), "--limit", "1"]
    assert main([*words, "-o", str(target), "--backend", "onnxruntime", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "dolphin nano: 2 voices" in said and "UNTRAINED" in said
    assert len(json.loads(target.read_text())["scores"]["own"]["SI-SDRi dB"]) == 2
    assert main([*words[:3], "--model", str(tmp_path / "none")]) == 2
    assert main([*words, "--lips", "both"]) == 2
