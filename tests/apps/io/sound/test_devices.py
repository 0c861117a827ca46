"""Microphone and speaker on a real sound server: PulseAudio without hardware, by null sinks."""

import json
import subprocess

import numpy as np
import pytest

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
    middle = slice(8_000, 40_000)
    score, place = _found(kept[middle], heard)
    assert score > 0.99
    first = _found(kept[:4_000], heard)
    assert first[0] > 0.98 and first[1] == pytest.approx(place - 8_000, abs=2)


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
