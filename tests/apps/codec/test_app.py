"""`prunus encode` and `decode` on good, odd and broken files."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.codec.app import encode_file
from prunus.apps.codec.listener import Listener
from prunus.apps.io.sources.sound import SyntheticVoice
from prunus.runtime.audio.files import SoundReader, write_wav
from prunus.runtime.audio.pcodec import PcodecReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model(tiny_codec):
    return tiny_codec("wavtokenizer")


def _write(path, count, rate=24000, channels=1, **options):
    rng = np.random.default_rng(0)
    sound = 0.2 * rng.standard_normal((count, channels))
    soundfile.write(path, sound, rate, **options)
    return path


def _encode(source, target, model, *flags):
    return main(["encode", str(source), str(target), "--model", str(model), "--backend",
                 "onnxruntime", "--threads", "1", *flags])  # fmt: skip


def _decode(source, target, model, *flags):
    return main(["decode", str(source), str(target), "--model", str(model), "--backend",
                 "onnxruntime", "--threads", "1", *flags])  # fmt: skip


def _say(capsys):
    seen = capsys.readouterr()
    return seen.out + seen.err


@pytest.mark.parametrize("name", ["wavtokenizer", "fusecodec", "freecodec"])
def test_round_trip_is_what_the_task_gives(tiny_codec, tmp_path, name):
    prefix = tiny_codec(name)
    with SpeechCodec.open(prefix, "onnxruntime", threads=1) as codec:
        source = _write(tmp_path / "in.wav", 30001, codec.format.sample_rate_hz)
        sound = soundfile.read(source, dtype="float32")[0]
        expected = codec.decode(codec.encode(sound))
    assert _encode(source, tmp_path / "a.pcodec", prefix, "--quiet") == 0
    assert _decode(tmp_path / "a.pcodec", tmp_path / "out.wav", prefix, "--quiet") == 0
    got, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert len(got) == 30001 and rate == codec.format.sample_rate_hz
    assert np.abs(got - expected).max() < 2e-4  # 16 bits


def test_other_rates_and_channels_are_brought_over_with_a_notice(model, tmp_path, capsys):
    source = _write(tmp_path / "in.flac", 44100, 44100, channels=2)
    assert _encode(source, tmp_path / "a.pcodec", model) == 0
    said = _say(capsys)
    assert "resampled from 44100 to 24000 Hz" in said and "averaged over 2 channels" in said
    assert "UNTRAINED" in said
    with (tmp_path / "a.pcodec").open("rb") as file:
        reader = PcodecReader(file)
        list(reader.blocks())
    assert reader.samples == 24000
    assert _encode(source, tmp_path / "b.pcodec", model, "--strict") == 2
    assert "--strict" in _say(capsys) and not (tmp_path / "b.pcodec").exists()


@pytest.mark.parametrize(
    ("name", "formula"), [("wavtokenizer", "torchaudio"), ("freecodec", "soxr")]
)
def test_networks_are_fed_by_the_resampler_of_their_training(tiny_codec, tmp_path, name, formula):
    source = _write(tmp_path / "in.wav", 30001, 44100, subtype="FLOAT")
    sound = soundfile.read(source, dtype="float32")[0]
    with SpeechCodec.open(tiny_codec(name), "onnxruntime", threads=1) as codec:
        rate = codec.format.sample_rate_hz
        expected = codec.encode(resample(sound, 44100, rate, formula)).codes
        encode_file(codec, str(source), str(tmp_path / "a.pcodec"))
        names = tuple(expected)
    with (tmp_path / "a.pcodec").open("rb") as file:
        blocks = list(PcodecReader(file).blocks(names))
    for stream, codes in expected.items():
        assert np.array_equal(np.concatenate([b[stream] for b in blocks], axis=1), codes)


def test_tiny_silent_and_spoiled_files(model, tmp_path, capsys):
    _write(tmp_path / "short.wav", 240)  # 10 ms
    soundfile.write(tmp_path / "silent.wav", np.zeros(24000), 24000)
    sound = np.zeros(24000, np.float32)
    sound[100:120], sound[500:510] = np.nan, 1.0
    soundfile.write(tmp_path / "nan.wav", sound, 24000, subtype="FLOAT")
    for name, count in (("short", 240), ("silent", 24000), ("nan", 24000)):
        assert _encode(tmp_path / f"{name}.wav", tmp_path / "a.pcodec", model) == 0
        said = _say(capsys)
        assert ("20 samples that were not finite" in said) == (name == "nan")
        assert ("10 samples are clipped" in said) == (name == "nan")
        assert _decode(tmp_path / "a.pcodec", tmp_path / "o.wav", model) == 0
        assert len(soundfile.read(tmp_path / "o.wav")[0]) == count
        _say(capsys)
    assert _encode(tmp_path / "nan.wav", tmp_path / "b.pcodec", model, "--strict") == 2


def test_files_that_are_not_what_they_seem(model, tmp_path, capsys):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no sound at all, whatever its name says")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 24000)
    for name, words in (("empty", "is empty"), ("text", "no sound"), ("none", "no samples"),
                        ("missing", "not found")):  # fmt: skip
        assert _encode(tmp_path / f"{name}.wav", tmp_path / "a.pcodec", model) == 2
        assert words in _say(capsys), name
        assert not (tmp_path / "a.pcodec").exists()
    if "MP3" in soundfile.available_formats():
        _write(tmp_path / "song.mp3", 24000)
        (tmp_path / "song.mp3").rename(tmp_path / "song.wav")
        assert _encode(tmp_path / "song.wav", tmp_path / "a.pcodec", model) == 0
        assert "not WAV" in _say(capsys)
        assert _encode(tmp_path / "song.wav", tmp_path / "a.pcodec", model, "--strict") == 2


def test_damaged_files_decode_up_to_the_damage(model, tmp_path, capsys):
    _write(tmp_path / "in.wav", 320 * 200)
    assert _encode(tmp_path / "in.wav", tmp_path / "a.pcodec", model, "--quiet") == 0
    data = (tmp_path / "a.pcodec").read_bytes()
    (tmp_path / "cut.pcodec").write_bytes(data[: len(data) * 2 // 3])
    assert _decode(tmp_path / "cut.pcodec", tmp_path / "cut.wav", model, "--quiet") == 1
    said = _say(capsys)
    assert "truncated" in said and "what came before is decoded" in said
    assert len(soundfile.read(tmp_path / "cut.wav")[0]) == 320 * 100  # two whole blocks of 50
    (tmp_path / "bad.pcodec").write_bytes(b"RIFF" + data[4:])
    assert _decode(tmp_path / "bad.pcodec", tmp_path / "bad.wav", model) == 2
    assert "no .pcodec file" in _say(capsys) and not (tmp_path / "bad.wav").exists()


def test_files_of_another_codec_are_refused(model, tiny_codec, tmp_path, capsys):
    _write(tmp_path / "in.wav", 16000, 16000)
    assert _encode(tmp_path / "in.wav", tmp_path / "a.pcodec", tiny_codec("fusecodec")) == 0
    assert _decode(tmp_path / "a.pcodec", tmp_path / "o.wav", model) == 2
    assert "would decode noise" in _say(capsys)


def test_json_tells_size_and_rate(model, tmp_path, capsys):
    _write(tmp_path / "in.wav", 48000)
    assert _encode(tmp_path / "in.wav", tmp_path / "a.pcodec", model, "--json", "--quiet") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bytes"] == (tmp_path / "a.pcodec").stat().st_size
    assert summary["seconds"] == 2.0 and 0 < summary["kilobits_per_second"] < 2


def test_pipes(model, tmp_path):
    source = _write(tmp_path / "in.wav", 30000)
    command = [sys.executable, "-m", "prunus.apps.cli.main"]
    flags = ["-", "-", "--model", str(model), "--backend", "onnxruntime", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(verb, data):
        return subprocess.run([*command, verb, *flags], input=data, capture_output=True,
                              check=True, env=environment).stdout  # fmt: skip

    coded = run("encode", source.read_bytes())
    assert coded[:4] == b"PCDC"
    wav = run("decode", coded)
    sound = np.frombuffer(wav[44:], "<i2")
    assert wav[:4] == b"RIFF" and len(sound) == 30000


def test_memory_does_not_grow_with_the_file(model, tmp_path, monkeypatch):
    """An hour would do the same: no piece of sound is ever longer than a block."""
    import prunus.apps.codec.listener as module

    longest = []
    monkeypatch.setattr(
        module.Listener, "push", lambda self, block: longest.append(len(block)) or block
    )
    _write(tmp_path / "long.wav", 24000 * 8)
    with SpeechCodec.open(model, "onnxruntime", parts=("encoder",)) as codec:
        held = []
        push = type(codec.encoder()).push

        def watched(self, sound):
            out = push(self, sound)
            lanes = self._flow._buffer._lanes.values()
            held.append(sum(waiting.items.nbytes for _, waiting in lanes))
            return out

        monkeypatch.setattr("prunus.runtime.tasks.codec.codec.StreamEncoder.push", watched)
        encode_file(codec, str(tmp_path / "long.wav"), str(tmp_path / "a.pcodec"))
    assert max(longest) <= 1 << 15 and len(longest) == 6
    assert max(held) <= 4 * 320 * 6


def test_a_recording_that_was_cut_off_is_told(model, tmp_path, capsys):
    data = _write(tmp_path / "in.wav", 24000).read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: 44 + 2 * 6000])
    assert _encode(tmp_path / "cut.wav", tmp_path / "a.pcodec", model) == 0
    assert "its header promises 1.00 s, 0.25 s are there" in _say(capsys)
    assert _encode(tmp_path / "cut.wav", tmp_path / "b.pcodec", model, "--strict") == 2
    assert not (tmp_path / "b.pcodec").exists()
    streamed = data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]  # length not known
    (tmp_path / "streamed.wav").write_bytes(streamed)
    assert _encode(tmp_path / "streamed.wav", tmp_path / "c.pcodec", model, "--strict") == 0


def test_a_file_that_does_not_tell_whether_it_is_whole_is_named(model, tmp_path, capsys):
    soundfile.write(tmp_path / "in.avr", np.zeros(24000), 24000, format="AVR")
    assert _encode(tmp_path / "in.avr", tmp_path / "a.pcodec", model) == 0
    assert "taken as whole: a cut AVR looks like a short one" in _say(capsys)
    assert _encode(tmp_path / "in.avr", tmp_path / "b.pcodec", model, "--strict") == 2
    assert not (tmp_path / "b.pcodec").exists()


def test_sound_is_never_replaced_by_codes(model, tmp_path, capsys):
    source = _write(tmp_path / "in.wav", 24000)
    before = source.read_bytes()
    for target in (source, tmp_path / "a.mp3", tmp_path / "a"):
        assert _encode(source, target, model) == 2
        assert "ends in .pcodec" in _say(capsys)
    assert _encode(source, tmp_path / "a.pcodec", model, "--quiet") == 0
    coded = (tmp_path / "a.pcodec").read_bytes()
    for target in (tmp_path / "a.pcodec", tmp_path / "a.mp3"):
        assert _decode(tmp_path / "a.pcodec", target, model) == 2
        assert "ends in .wav" in _say(capsys)
    assert source.read_bytes() == before and (tmp_path / "a.pcodec").read_bytes() == coded
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pcodec", "in.wav"]


def test_clipping_across_blocks_is_one_run():
    plain = SyntheticVoice("1", 24000)
    listener = Listener(plain, 24000, strict=False)
    listener.push(np.array([0.0, 1.0, 1.0], np.float32))
    listener.push(np.array([1.0, 1.0, 0.0, 1.0], np.float32))  # the last one alone is a peak
    assert "2 samples are clipped" in listener.notes()[0]
    with pytest.raises(UsageError, match="resampled"):
        Listener(SyntheticVoice("1", 8000), 24000, strict=True)


def _notes(path, strict=False):
    with SoundReader(path) as reader:
        listener = Listener(reader, 16000, strict=strict)
        for block in reader.blocks():
            listener.push(block)
        listener.flush()
        return " | ".join(listener.notes())


def test_odd_recordings_are_named_for_what_they_are(tmp_path):
    sound = (0.2 * np.random.default_rng(0).standard_normal(40000)).astype(np.float32)
    loud, anti, cut = (tmp_path / n for n in ("loud.wav", "anti.wav", "cut.flac"))
    soundfile.write(loud, np.concatenate((sound, [1.5, 1.6, 1.7, 2.0])), 16000, subtype="FLOAT")
    assert "up to 6.0 dB above full scale, not clipped" in _notes(loud, strict=True)
    assert "samples are clipped" not in _notes(loud)
    soundfile.write(anti, np.stack([sound, -sound], axis=1), 16000)
    assert "each channel is the other one negated" in _notes(anti)
    soundfile.write(cut, sound, 16000)
    assert not _notes(cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert _notes(cut).count("its header promises 2.50 s") == 1
    for path in (anti, cut):
        with pytest.raises(UsageError, match="would have to be"):
            _notes(path, strict=True)


def test_written_sound_is_limited(tmp_path):
    blocks = [np.array([2.0, -2.0, 0.5], np.float32)]
    file = io.BytesIO()
    assert write_wav(file, iter(blocks), 16000) == 3
    (tmp_path / "a.wav").write_bytes(file.getvalue())
    with SoundReader(tmp_path / "a.wav") as reader:
        sound = np.concatenate(list(reader.blocks()))
    assert reader.sample_rate_hz == 16000 and not reader.disguised
    np.testing.assert_allclose(sound, [1.0, -1.0, 0.5], atol=1e-4)
