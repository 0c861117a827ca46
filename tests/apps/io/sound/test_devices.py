"""Microphone and speaker on a real sound server: PulseAudio without hardware, by null sinks."""

import json
import subprocess

import numpy as np
import pytest

from prunus.apps.io.sound import devices

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def _run(server, words, kept, feed=None):
    """Run prunus on a sound server; return its summary and what the speaker's sink played."""
    with (kept / "heard.raw").open("wb") as file:
        heard = server.start(
            "parec", "-d", "voice.monitor", "--format=float32le", "--channels=1",
            f"--rate={server.RATE}", "--latency-msec=20", stdout=file, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    fed = server.start("paplay", "-d", "hole", str(feed)) if feed else None
    try:
        ran = server.ask(*server.prunus("run", "codec", *words, "--json", "--quiet",
                                        "--backend", "onnxruntime", "--threads", "1"))  # fmt: skip
    finally:
        if fed is not None:
            fed.kill()
        heard.terminate()
        heard.wait(10.0)
    sound = np.fromfile(kept / "heard.raw", np.float32)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), sound


def _found(piece, sound):
    """Return the largest normalised correlation of a piece anywhere in a sound, and where it is."""
    size = 1 << int(np.ceil(np.log2(len(sound) + len(piece))))
    product = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(piece, size))
    inner = np.fft.irfft(product, size)[: len(sound) - len(piece) + 1]
    power = np.cumsum(np.concatenate(([0.0], np.square(sound, dtype=np.float64))))
    near = np.sqrt(np.maximum(power[len(piece) :] - power[: -len(piece)], 1e-9))
    score = inner / (near * np.linalg.norm(piece) + 1e-9)
    return float(score.max()), int(score.argmax())


def test_a_file_is_heard_as_it_is(sound_server, tiny_codec, tmp_path):
    """The sink is the clock, so nothing is stretched, dropped or missing between the samples."""
    out, model = tmp_path / "out.wav", tiny_codec("fusecodec")
    words = ["--model", model, "--source", "synthetic:3", "--sink", "speaker:pulse", "--sink", out]
    run, heard = _run(sound_server, words, tmp_path)
    assert set(run["devices"]) == {"underflows"}
    kept = soundfile.read(out, dtype="float32")[0]
    pieces = [_found(kept[k : k + 1_600], heard) for k in range(0, len(kept) - 1_600, 1_600)]
    whole = [place - 1_600 * k for k, (score, place) in enumerate(pieces) if score > 0.99]
    gaps = len(pieces) - len(whole)  # of a machine that is too busy to play in time
    assert gaps <= 4 and len(set(whole)) <= gaps + 1, (pieces, run["devices"])
    assert whole == sorted(whole)  # sound may come later behind a gap, never earlier


def test_a_microphone_is_heard_with_what_was_lost_told(sound_server, tiny_codec, tmp_path):
    """The program keeps up or says where it did not; what is heard is what was decoded."""
    out, log, feed = tmp_path / "out.wav", tmp_path / "log.jsonl", tmp_path / "in.wav"
    noise = np.random.default_rng(0).standard_normal(16_000 * 30)
    soundfile.write(feed, 0.1 * noise, 16_000)
    run, heard = _run(
        sound_server,
        ["--model", tiny_codec("fusecodec"), "--source", "mic:pulse", "--sink", "speaker:pulse",
         "--sink", out, "--seconds", "4", "--log", log], tmp_path, feed,
    )  # fmt: skip
    told = run["devices"]
    assert told["speaker_waits_ms"] == 60 and told["microphone_device_ms"] > 0
    device = told["microphone_device_ms"] + told["speaker_device_ms"]
    assert run["declared_ms"] == pytest.approx(run["delay_ms"] + 60 + device, abs=0.2)
    kept = soundfile.read(out, dtype="float32")[0]
    assert len(kept) == 16_000 * 4 and np.abs(kept).max() > 0
    places = np.arange(800)
    scores = [
        max(_found(np.interp(k + speed * places, np.arange(len(kept)), kept), heard)[0]
            for speed in np.linspace(0.995, 1.005, 11))  # what drift correction may do
        for k in range(1_600, len(kept) - 8_000, 3_200)
    ]  # fmt: skip
    bad = sum(score < 0.9 for score in scores)
    assert bad <= 2 * (told["underflows"] + told["speaker_overflows"]) + 1, (scores, told)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["source"] == "mic:pulse" and len(lines) >= 3
    assert lines[-1]["seconds"] == pytest.approx(4.0, abs=0.2)
    assert {"overflows", "underflows", "speaker_drift_ppm"} <= set(lines[-1])
    assert str(log) in run["outputs"]


class _Server:
    """A sound server that keeps what is not read, on a clock that the test turns."""

    class PortAudioError(Exception):
        pass

    def __init__(self, sound):
        self.now, self.sound, self.taken, self.latency = 0.0, sound, 0, 0.04

    def query_devices(self, *_):
        return {"name": "kept", "default_samplerate": 16_000.0, "max_input_channels": 1}

    def check_input_settings(self, **_):
        pass

    def InputStream(self, **_):  # noqa: N802
        return self

    def start(self):
        pass

    abort = close = start

    def read(self, count):
        block = self.sound[self.taken : self.taken + count]
        self.taken += count
        self.now = max(self.now, self.taken / 16_000)
        return block[:, None], False


def test_a_microphone_that_is_read_late_is_brought_up_to_date(monkeypatch):
    """A pause of 2 s: nothing of it is heard later, no click, and it is told."""
    tone = np.sin(2 * np.pi * 200 * np.arange(16_000 * 8) / 16_000).astype(np.float32)
    server = _Server(tone)
    monkeypatch.setattr(devices, "load_sounddevice", lambda: server)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: server.now)
    microphone = devices.Microphone("", 16_000, 0.02)
    heard, ages = [], []
    for k, block in enumerate(microphone.blocks(320)):
        heard.append(block)
        ages.append(server.now - server.taken / 16_000)
        server.now += 2.0 if k == 50 else 0.3 if k == 100 else 0.0  # 0.3 s: that is caught up
        if k == 200:
            break
    assert ages[51] <= 0.02 and max(ages) == pytest.approx(0.28, abs=0.01)
    counts = microphone.counts()
    assert counts["overflows"] == 1
    assert counts["microphone_dropped_ms"] == pytest.approx(1980, abs=21)
    assert counts["microphone_device_ms"] == 40 and counts["microphone_late_ms"] == 0
    bend = np.abs(np.diff(np.concatenate(heard), 2)).max()
    assert bend < 5 * (2 * np.pi * 200 / 16_000) ** 2
