"""`prunus eval codec`: judges on known sounds, and the whole verb on a small codec."""

import json

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.codec.evaluate import evaluate_codec
from prunus.apps.codec.recordings import Recording, read_recordings
from prunus.runtime.tasks.codec.codec import SpeechCodec

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def talks(tmp_path_factory, spoken):
    folder = tmp_path_factory.mktemp("talks")
    soundfile.write(folder / "one.wav", spoken[:32000], 16000, subtype="FLOAT")
    stereo = np.repeat(spoken[32000:, None], 2, axis=1)
    soundfile.write(folder / "two.flac", stereo, 16000)
    (folder / "one.txt").write_text("go forward")
    return folder


def test_everything_is_reported_as_measured(tiny_codec, talks):
    """Rates and codebooks are recomputed by hand; a perfect judge sees what was decoded."""
    seen = []

    class Ear:
        name, compares = "ear", True

        def score(self, heard):
            seen.append(heard)
            return float(len(seen))

    with SpeechCodec.open(tiny_codec("fusecodec"), "onnxruntime", threads=1) as codec:
        recordings = read_recordings([talks])
        result = evaluate_codec(codec, recordings, [Ear()], losses_percent=(0.0, 30.0))
        speeches = [codec.encode(r.sound) for r in recordings]
        decoded = codec.decode(speeches[0])
        again = [codec.encode(codec.decode(s)).codes["codes"] for s in speeches]
    original, plain, lossy = result.rows
    assert (original.name, plain.name) == ("original", codec.format.name)
    assert lossy.name.endswith("30 % lost")
    assert np.isnan(original.scores["ear"]).all() and plain.scores["ear"] == (1.0, 3.0)
    np.testing.assert_allclose(seen[0].decoded, decoded, atol=1e-6)
    assert len(seen[1].decoded) and not np.array_equal(seen[1].decoded, seen[0].decoded)
    assert plain.kilobits_per_second == pytest.approx(3 * 6 * 50 / 1000)  # 3 stages of 64
    codes = np.concatenate([s.codes["codes"] for s in speeches], axis=1)
    for use, row in zip(result.codebooks, codes, strict=True):
        assert (use.used, use.codes) == (len(np.unique(row)), row.size)
    same = np.concatenate(again, axis=1) == codes
    assert result.repeated_percent["codes"] == pytest.approx(100 * same.mean())
    assert result.seconds == 4.0 and not result.trained


def test_silence_is_compared_with_nothing(tiny_codec):
    """Ratios to a sound that is not there mean nothing: they are left out, not astronomical."""

    class Ear:
        name, compares = "ear", True

        def score(self, heard):
            raise AssertionError("asked to compare with silence")

    silence = Recording("silence", np.zeros(16000, np.float32), 16000, None)
    with SpeechCodec.open(tiny_codec("fusecodec"), "onnxruntime", threads=1) as codec:
        row = evaluate_codec(codec, [silence], [Ear()]).rows[1]
    assert all(np.isnan(row.mean(n)) for n in ("mel dB", "STFT", "SI-SDR dB", "ear"))


def test_the_verb_prints_a_table_and_writes_json(tiny_codec, talks, tmp_path, capsys):
    words = ["eval", "codec", str(talks), "--model", str(tiny_codec("wavtokenizer")), "--backend",
             "onnxruntime", "--threads", "1", "--no-judges", "--quiet", "--loss", "0,50",
             "-o", str(tmp_path / "e.json")]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "mel dB" in said and "50 % lost" in said and "UNTRAINED" in said
    stored = json.loads((tmp_path / "e.json").read_text())
    assert stored["rows"][0]["name"] == "original"
    assert stored["rows"][1]["means"]["mel dB"] > 0
    assert stored["codebooks"][0]["size"] == 256
    for wrong, message in ((["--loss", "x"], "per cent"), (["--judge", "ears"], "Unknown judge"),
                           (["--peer", "opus:1"], "opus:KBPS")):  # fmt: skip
        assert main([*[w for w in words if w != "--no-judges"], *wrong]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    words[2] = str(tmp_path / "empty")
    assert main(words) == 2 and "no recordings" in capsys.readouterr().err
