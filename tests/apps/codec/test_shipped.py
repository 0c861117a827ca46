"""The codec that ships, as people meet it: no model named, a recording in, the same voice out."""

import json

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.common.model_files import DEFAULT_CODEC, codec_name
from prunus.export.codec.samples import voice_like
from prunus.models import zoo
from prunus.models.codec.nsfcodec.pitch_grid import pitch_hertz
from prunus.models.training.speech.pitch import track_pitch
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.codec.codec import SpeechCodec

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def codec():
    with SpeechCodec.open(codec_name(DEFAULT_CODEC), "onnxruntime", threads=1) as opened:
        yield opened


def _loudness(sound):
    frames = len(sound) // 320
    return np.log10((sound[: frames * 320].reshape(frames, 320) ** 2).mean(axis=1) + 1e-7)


def test_encode_and_decode_need_no_model(tmp_path, capsys):
    sound = voice_like(16000, 3.0)
    soundfile.write(tmp_path / "in.wav", sound, 16000)
    assert main(["encode", str(tmp_path / "in.wav"), str(tmp_path / "a.pcodec"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["seconds"] == 3.0 and not said["notes"]
    assert 1.5 < said["kilobits_per_second"] < 3.0
    assert main(["decode", str(tmp_path / "a.pcodec"), str(tmp_path / "out.wav")]) == 0
    got, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 16000 and len(got) == len(sound)
    assert np.corrcoef(_loudness(sound), _loudness(got))[0, 1] > 0.8


def test_the_pitch_of_a_voice_comes_through(codec):
    hertz = 150 + 50 * np.sin(2 * np.pi * 0.6 * np.arange(48000) / 16000)
    phase = 2 * np.pi * np.cumsum(hertz) / 16000
    sound = sum(np.cos(k * phase) / k for k in range(1, 25)).astype(np.float32)
    sound *= 0.15 / np.abs(sound).max()
    got = codec.decode(codec.encode(sound))
    wanted, found = track_pitch(sound)[5:-5], track_pitch(got)[5:-5]
    both = (wanted > 0) & (found > 0)
    assert both.mean() > 0.8
    cents = 1200 * np.abs(np.log2(pitch_hertz()[found[both] - 1] / pitch_hertz()[wanted[both] - 1]))
    assert np.median(cents) < 50


def test_check_knows_it_by_name(capsys):
    assert main(["check", "nsfcodec_16k_encoder", "--samples", "2", "--quiet"]) == 0
    assert "verdict: ok" in capsys.readouterr().out
    assert main(["check", "nsfcodec_16k_encode"]) == 2
    assert "did you mean 'nsfcodec_16k_encoder'" in capsys.readouterr().err


def test_it_is_small_trained_and_causal(codec):
    assert codec.format.trained and codec.format.bits_per_second == 1900
    assert codec.encoder().latency + codec.decoder().latency == 640  # 40 ms
    shipped = [e for e in zoo.entries() if e.task == "codec"]
    assert sum(e.size for e in shipped) < 8e6
    for entry in shipped:
        card = read_card(zoo.model_path(entry.name))
        assert card.streaming is not None and card.weights.trained
        assert "studio speech" in card.weights.origin
    record = json.loads((zoo.WEIGHTS / "nsfcodec_16k.json").read_text())
    assert record["weights_sha256"] == card.weights.sha256
    assert {"Allison", "Carlo", "ivrvoice.ru", "msu_ru_nsh"} == {
        row["speaker"] for row in record["data"]
    }
    assert "June" in {row["speaker"] for row in record["held_out"]}


def test_silence_stays_quiet_and_loud_sound_stays_in_range(codec):
    quiet = codec.decode(codec.encode(np.zeros(16000, np.float32)))
    assert np.sqrt((quiet[3200:] ** 2).mean()) < 0.01
    loud = codec.decode(codec.encode(np.sign(voice_like(16000, 1.0)).astype(np.float32)))
    assert np.isfinite(loud).all() and np.abs(loud).max() <= 1


def test_a_damaged_file_is_noticed_and_own_files_come_first(monkeypatch, tmp_path):
    own = tmp_path / "nsfcodec"
    (tmp_path / "nsfcodec-encoder.onnx").write_bytes(b"mine")
    assert codec_name(str(own)) == str(own)
    assert codec_name("something-else") == "something-else"
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with pytest.raises(ArtifactError, match="missing"):
        codec_name(DEFAULT_CODEC)
