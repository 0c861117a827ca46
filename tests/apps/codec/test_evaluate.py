"""`prunus eval codec`: judges on known sounds, and the whole verb on a small codec."""

import json
import shutil

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.codec.evaluate import Recording, evaluate_codec, read_recordings
from prunus.apps.codec.peers import opus, packet_bytes, parse_peer
from prunus.apps.common import speech_metrics as speech_judges
from prunus.apps.common.speech_metrics import Heard, normalised, open_judges, word_distance
from prunus.apps.io.sources.sound import SyntheticVoice
from prunus.runtime.errors import HostError, UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")

OPUS = shutil.which("opusenc") or shutil.which("ffmpeg")


@pytest.fixture(scope="module")
def voice():
    """Return 4 s of voice-like sound at 16 kHz with a little noise."""
    sound = np.concatenate(list(SyntheticVoice("4", 16000).blocks(16000)))
    noise = np.random.default_rng(0).standard_normal(len(sound))
    return (sound + 0.002 * noise).astype(np.float32)


def _judge(name, package):
    pytest.importorskip(package)
    return open_judges([name])[0][0]


def test_pesq_of_equal_sounds_is_the_top_of_its_scale(voice):
    judge = _judge("pesq", "pesq")
    assert judge.score(Heard(voice, voice)) == pytest.approx(4.644, abs=0.001)
    rng = np.random.default_rng(1)
    worse = voice + (0.05 * rng.standard_normal(len(voice))).astype(np.float32)
    assert judge.score(Heard(voice, worse)) < 2.5
    assert np.isnan(judge.score(Heard(voice[:100], voice[:100])))


def test_stoi_falls_from_one_to_nothing(voice):
    judge = _judge("stoi", "pystoi")
    assert judge.score(Heard(voice, voice)) == pytest.approx(1.0, abs=1e-6)
    noise = (0.1 * np.random.default_rng(2).standard_normal(len(voice))).astype(np.float32)
    assert judge.score(Heard(voice, noise)) < 0.4
    assert np.isnan(judge.score(Heard(voice[:800], voice[:800])))


def test_dnsmos_prefers_the_voice_to_noise(voice):
    pytest.importorskip("speechmos")
    judge = _judge("dnsmos", "onnxruntime")
    noisy = (0.3 * np.random.default_rng(3).standard_normal(len(voice))).astype(np.float32)
    clean, noise = (judge.score(Heard(voice, s)) for s in (voice, noisy))
    assert 1.0 <= noise < clean <= 5.0
    assert np.isnan(judge.score(Heard(voice, voice[:0])))


def test_words_are_counted():
    assert normalised("It's 5 o'clock, Tom(2)!") == ["it's", "o'clock", "tom"]
    assert word_distance("a b c d".split(), "a c d".split()) == 1
    assert word_distance([], ["x"]) == 1 and word_distance(["x"], []) == 1
    assert word_distance("the cat sat".split(), "a cat sat down".split()) == 2


def test_word_errors_follow_the_transcript(voice, monkeypatch):
    pytest.importorskip("pocketsphinx")
    judge = open_judges(["wer"])[0][0]
    monkeypatch.setattr(
        type(judge), "transcribe", lambda self, s: "go forward" if s[0] == 0 else "go back"
    )
    one, other = np.zeros(10, np.float32), np.ones(10, np.float32)
    assert judge.score(Heard(one, other)) == 50.0
    assert judge.score(Heard(one, one, "Go forward, ten meters!")) == 50.0
    assert np.isnan(judge.score(Heard(one, one, "")))


def test_the_recogniser_is_asked_once_per_sound(voice):
    pytest.importorskip("pocketsphinx")
    judge = open_judges(["wer"])[0][0]
    assert judge.score(Heard(voice, voice)) in (0.0, pytest.approx(0.0)) or np.isnan(
        judge.score(Heard(voice, voice))
    )
    assert len(judge._known) == 1


def test_speakers_are_told_apart(voice):
    pytest.importorskip("torch")
    if speech_judges.importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    judge = open_judges(["speaker"])[0][0]
    assert judge.score(Heard(voice, voice)) == pytest.approx(1.0, abs=1e-6)
    # Quiet sounds are raised to one level; loud ones stay, as the encoder was trained.
    assert judge.score(Heard(0.02 * voice, 0.005 * voice)) == pytest.approx(1.0, abs=1e-5)
    noise = (0.1 * np.random.default_rng(4).standard_normal(len(voice))).astype(np.float32)
    assert judge.score(Heard(voice, noise)) < 0.8
    assert np.isnan(judge.score(Heard(voice, np.zeros_like(voice))))


def test_missing_judges_are_noted_or_named(monkeypatch):
    def absent(package, purpose, extra="eval-audio"):
        raise speech_judges.MissingDependencyError(package, extra, purpose)

    monkeypatch.setattr(speech_judges, "_load", absent)
    monkeypatch.setattr(speech_judges, "_folder_of", absent)
    judges, missing = open_judges(None)
    assert not judges and len(missing) == 5 and "prunus[eval-audio]" in missing[0]
    with pytest.raises(HostError, match="'pesq'"):
        open_judges(["pesq"])
    with pytest.raises(UsageError, match="did you mean 'pesq'"):
        open_judges(["peqs"])


def test_ogg_packets_are_counted_without_the_container():
    def page(*packets):
        lacing = bytes(b for p in packets for b in [255] * (len(p) // 255) + [len(p) % 255])
        return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + b"".join(packets)

    data = page(b"OpusHead" * 2) + page(b"OpusTags" * 40) + page(b"x" * 300, b"y" * 20)
    assert packet_bytes(data) == 320
    assert packet_bytes(data + b"OggS") == 320 and packet_bytes(b"") == 0


def test_peers_have_a_rate():
    assert parse_peer("opus:6") == 6.0
    for wrong in ("opus", "opus:2", "opus:x", "mp3:64"):
        with pytest.raises(UsageError, match="opus:KBPS"):
            parse_peer(wrong)


@pytest.mark.skipif(OPUS is None, reason="neither opus-tools nor ffmpeg is installed")
def test_opus_keeps_length_place_and_roughly_its_rate(voice):
    heard, rate = opus(voice, 16000, 24.0)
    assert len(heard) == len(voice) and 12 < rate < 30
    best = np.argmax(np.correlate(heard[8000:24000], voice[8200:23800], "valid")) - 200
    assert abs(best) <= 80  # 5 ms
    assert opus(voice, 16000, 6.0)[1] < rate / 2


@pytest.fixture(scope="module")
def talks(tmp_path_factory, voice):
    folder = tmp_path_factory.mktemp("talks")
    soundfile.write(folder / "one.wav", voice[:32000], 16000, subtype="FLOAT")
    stereo = np.repeat(voice[32000:, None], 2, axis=1)
    soundfile.write(folder / "two.flac", stereo, 16000)
    (folder / "one.txt").write_text("go forward")
    return folder


def test_recordings_come_with_their_words(talks):
    one, two = read_recordings([talks])
    assert (one.name, one.text, two.text) == ("one.wav", "go forward", None)
    assert two.sound.shape == (32000,)
    assert len(read_recordings([talks / "one.wav"], seconds=0.5)[0].sound) == 8000


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
