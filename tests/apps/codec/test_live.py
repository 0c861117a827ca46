"""`prunus run codec`: devices (played by a fake), files, the network, and what ends a run."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.codec import endpoints, live
from prunus.apps.codec.options import CodecOptions
from prunus.apps.codec.spectrogram import Spectrogram
from prunus.apps.common.options import BackendChoice
from prunus.apps.io.sinks.sound import PipeSink, WavSink
from prunus.apps.io.sound import devices as sound_devices
from prunus.runtime.errors import HostError, SourceError
from prunus.runtime.tasks.codec.codec import SpeechCodec

soundfile = pytest.importorskip("soundfile")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model(tiny_codec):
    return str(tiny_codec("wavtokenizer"))


class PortAudioError(Exception):
    pass


class FakeDevices(types.ModuleType):
    """What of sounddevice is used: one microphone that plays an array, one speaker that keeps it.

    Args:
        sound: What the microphone hears; behind its end the device is gone.
        rate: The only rate that the devices take.
        channels: Of the microphone; mono is refused when there are more.

    Attributes:
        hurry: How many times faster than a real one the speaker plays.
    """

    PortAudioError = PortAudioError

    def __init__(self, sound, rate=24000, channels=1, device=True):
        super().__init__("sounddevice")
        self.sound, self.rate, self.channels, self.device = sound, rate, channels, device
        self.heard, self.events, self.lose_speaker_after = [], [], None
        self.hurry = 1.0

    def query_devices(self, device=None, kind=None):
        about = {"name": "USB", "default_samplerate": float(self.rate),
                 "max_input_channels": self.channels, "max_output_channels": 2}  # fmt: skip
        if kind is None:
            return [about] if self.device else []
        if not self.device or device not in (None, 0, "USB"):
            raise ValueError("No device matching")
        return about

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate != self.rate or channels != self.channels:
            raise PortAudioError("Invalid sample rate")

    def check_output_settings(self, device, channels, dtype, samplerate):
        if samplerate != self.rate or channels != 2:
            raise PortAudioError("Invalid number of channels")

    def InputStream(self, **settings):  # noqa: N802
        return _In(self, settings)

    def OutputStream(self, **settings):  # noqa: N802
        return _Out(self, settings)


class _Stream:
    def __init__(self, library, settings):
        self.library, self.settings, self.at = library, settings, 0

    def start(self):
        self.library.events.append("start")

    def stop(self):
        self.library.events.append("stop")

    def abort(self):
        self.library.events.append("abort")

    def close(self):
        self.library.events.append("close")


class _In(_Stream):
    def read(self, count):
        if self.at + count > len(self.library.sound):
            raise PortAudioError("Device unavailable", -9985)
        block = self.library.sound[self.at : self.at + count]
        self.at += count
        return np.repeat(block[:, None], self.settings["channels"], axis=1), self.at == count


class _Out(_Stream):
    def write(self, block):
        lose = self.library.lose_speaker_after
        if lose is not None and self.at > lose:
            raise PortAudioError("Device unavailable", -9985)
        self.at += len(block)
        self.library.heard.append(block.copy())
        time.sleep(len(block) / self.settings["samplerate"] / self.library.hurry)
        return False


@pytest.fixture
def devices(monkeypatch):
    def plug(*args, **options):
        fake = FakeDevices(*args, **options)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        return fake

    return plug


def _sound(count, seed=0):
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal(count)).astype(np.float32)


def _options(model, source, *sinks, **more):
    compute = BackendChoice("onnxruntime", threads=1)
    return CodecOptions(source, sinks, model, compute=compute, **more)


def run_codec(options):
    return live.run_codec(options, quiet=True)


def _read(path):
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("name", ["wavtokenizer", "fusecodec", "freecodec"])
def test_file_to_file_is_what_the_task_gives(tiny_codec, tmp_path, name):
    prefix = str(tiny_codec(name))
    with SpeechCodec.open(prefix, "onnxruntime", threads=1) as codec:
        rate = codec.format.sample_rate_hz
        soundfile.write(tmp_path / "in.wav", _sound(30001), rate, subtype="FLOAT")
        expected = codec.decode(codec.encode(_read(tmp_path / "in.wav")))
    out, coded = tmp_path / "out.wav", tmp_path / "out.pcodec"
    run = run_codec(_options(prefix, str(tmp_path / "in.wav"), str(out), str(coded)))
    assert run.seconds == pytest.approx(30001 / rate) and not run.damage
    assert _read(out).shape == (30001,)
    assert np.abs(_read(out) - expected).max() < 2e-4
    again = tmp_path / "again.wav"
    run_codec(_options(prefix, str(coded), str(again)))
    np.testing.assert_allclose(_read(again), expected, atol=2e-4)


def test_microphone_to_speaker_until_the_time_is_up(model, tmp_path, devices):
    """The speaker has a clock of its own: what it plays is the sound, up to 0.5 % faster."""
    fake = devices(_sound(24000 * 3))
    run = run_codec(_options(model, "mic:", "speaker:", str(tmp_path / "a.wav"), seconds=1.0))
    assert run.seconds == 1.0 and run.devices["overflows"] == 1
    assert run.devices["speaker_waits_ms"] == 60
    assert run.declared_ms == pytest.approx(run.delay_ms + 60, abs=0.1)
    assert run.devices["speaker_dropped_ms"] == run.devices["speaker_overflows"] == 0
    assert run.devices["underflows"] >= 0
    played = np.concatenate(fake.heard)
    assert played.shape[1] == 2
    kept = _read(tmp_path / "a.wav")
    assert kept.shape == (24000,)
    heard = played[np.flatnonzero(played[:, 0])[0] :, 0]
    assert len(heard) >= 24000 * 0.995
    first = np.arange(120, 480)  # of the first piece, which has one speed, behind its fade
    alike = [
        np.corrcoef(heard[first], np.interp(speed * first, np.arange(24000), kept))[0, 1]
        for speed in np.linspace(0.995, 1.005, 41)
    ]
    assert max(alike) > 0.99
    assert fake.events.count("close") == 2


def test_a_file_makes_the_speaker_its_clock(model, tmp_path, devices):
    """Nothing has to be stretched then: the speaker plays what was decoded, and all of it."""
    fake = devices(_sound(10))
    fake.hurry = 20.0
    soundfile.write(tmp_path / "in.wav", _sound(24000), 24000)
    out = tmp_path / "a.wav"
    run = run_codec(_options(model, str(tmp_path / "in.wav"), "speaker:", str(out)))
    assert run.devices == {"underflows": 0}
    played = np.concatenate(fake.heard)[:24000, 0]
    np.testing.assert_allclose(played, _read(out), atol=1e-4)


def test_devices_with_their_own_rate_and_channels(model, tmp_path, devices):
    fake = devices(_sound(48000 * 2), rate=48000, channels=2)
    run = run_codec(_options(model, "mic:USB", "speaker:", seconds=1.0))
    assert any("resampled from 48000" in note for note in run.notes)
    assert any("averaged over 2" in note for note in run.notes)
    played = np.concatenate(fake.heard)[:, 0]
    assert len(played[np.flatnonzero(played)[0] :]) >= 48000 * 0.98


def test_a_lost_microphone_keeps_what_was_recorded(model, tmp_path, devices, capsys):
    fake = devices(_sound(24000))
    out, coded = tmp_path / "a.wav", tmp_path / "a.pcodec"
    code = main(["run", "codec", "--model", model, "--source", "mic:", "-o", str(out), "--sink",
                 str(coded), "--quiet", "--backend", "onnxruntime"])  # fmt: skip
    said = capsys.readouterr().err
    assert code == 2 and "was lost after 0.96 s: Device unavailable" in said
    assert str(out) in said and "complete" in said
    taken = 24000 // 1920 * 1920  # whole blocks of 80 ms
    assert _read(out).shape == (taken,)
    with SpeechCodec.open(model, "onnxruntime", threads=1) as codec:
        expected = codec.encode(fake.sound[:taken]).codes["codes"]
    from prunus.runtime.audio.pcodec import PcodecReader

    with coded.open("rb") as file:
        reader = PcodecReader(file)
        codes = np.concatenate([b["codes"] for b in reader.blocks(("codes",))], axis=1)
    assert reader.samples == taken and not reader.damage
    assert np.array_equal(codes, expected)


def test_a_microphone_lost_before_any_sound_is_an_error(model, tmp_path, devices):
    devices(_sound(100))
    with pytest.raises(SourceError, match=r"lost after 0\.00 s"):
        run_codec(_options(model, "mic:", str(tmp_path / "a.wav")))
    assert not (tmp_path / "a.wav").exists()


def test_a_lost_speaker_keeps_the_recording(model, tmp_path, devices):
    fake = devices(_sound(24000 * 2))
    fake.lose_speaker_after = 400
    out = tmp_path / "a.wav"
    run = run_codec(_options(model, "mic:", "speaker:", str(out), seconds=1.0))
    assert "speaker 'USB' was lost" in run.damage
    assert 0 < len(_read(out)) <= 24000


@pytest.mark.parametrize("fails", ["pipe", "wav", "codes"])
def test_a_sink_that_fails_takes_no_other_along(model, tmp_path, monkeypatch, capfd, fails):
    kept = tmp_path / "kept.wav"
    run_codec(_options(model, "synthetic:2", str(kept)))
    paths = {"pipe": "-", "wav": str(tmp_path / "a.wav"), "codes": str(tmp_path / "a.pcodec")}
    full = OSError(errno.ENOSPC, "No space left on device")
    victim, error = {
        "pipe": (PipeSink, BrokenPipeError(errno.EPIPE, "Broken pipe")),
        "wav": (WavSink, full),
        "codes": (endpoints.FileSink, full),
    }[fails]
    writes = []

    def write(self, piece):
        writes.append(piece)
        raise error

    monkeypatch.setattr(victim, "write", write)
    code = main(["run", "codec", "--model", model, "--source", "synthetic:2", "--quiet",
                 "--backend", "onnxruntime", "--threads", "1",
                 *(word for path in paths.values() for word in ("--sink", path))])  # fmt: skip
    said = capfd.readouterr().err
    assert code == 2 and len(writes) == 1
    words = "The reader of standard output has gone" if fails == "pipe" else "No space left"
    assert said.count(words) == 1
    assert Path(paths["wav"]).exists() == (fails != "wav")
    assert Path(paths["codes"]).exists() == (fails != "codes")
    if fails != "wav":
        assert Path(paths["wav"]).read_bytes() == kept.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_missing_devices_are_named(model, devices, monkeypatch):
    devices(_sound(10), device=False)
    with pytest.raises(HostError, match="no microphone"):
        run_codec(_options(model, "mic:", "null:"))
    devices(_sound(10))
    with pytest.raises(HostError, match="no speaker 'Hall'") as caught:
        run_codec(_options(model, "synthetic:1", "speaker:Hall"))
    assert "Known: USB" in caught.value.hint


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(HostError, match="'sounddevice', which is not installed"):
        sound_devices.load_sounddevice()

    class _NoLibrary:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [_NoLibrary(), *sys.meta_path])
    with pytest.raises(HostError, match="PortAudio") as caught:
        sound_devices.load_sounddevice()
    assert "libportaudio2" in caught.value.hint


def test_ctrl_c_completes_the_files(model, tmp_path, devices, monkeypatch):
    """The first Ctrl-C stops the microphone; what was in flight still arrives."""
    import signal

    fake = devices(_sound(24000 * 60))

    class Interrupted(_In):
        def read(self, count):
            if self.at == 1920 * 10:
                signal.raise_signal(signal.SIGINT)
            return super().read(count)

    fake.InputStream = lambda **settings: Interrupted(fake, settings)
    run = run_codec(_options(model, "mic:", str(tmp_path / "a.wav"), seconds=30.0))
    kept = _read(tmp_path / "a.wav")
    assert run.interrupted and len(kept) == round(run.seconds * 24000) >= 1920 * 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "micro:"], "did you mean 'mic'"),
        (["--source", "nothing.wav"], "not found"),
        (["--source", "synthetic:x"], "expected seconds"),
        (["--source", "synthetic:1", "-o", "out.ogg"], "Cannot tell what to write"),
        (["--source", "synthetic:1", "--sink", "udp:nowhere"], "udp:HOST:PORT"),
        (["--source", "a.pcodec", "--sink", "udp:127.0.0.1:9"], "both codes"),
        (["--source", "synthetic:1", "-o", "missing/out.wav"], "does not exist"),
        (["--source", "synthetic:1", "--sink", "-", "--sink", "-"], "one sink"),
    ],
)
def test_wrong_ends_are_named(model, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    sink = [] if any(w in ("-o", "--sink") for w in words) else ["--sink", "null:"]
    code = main(["run", "codec", "--model", model, "--backend", "onnxruntime", *words, *sink])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_source_is_never_overwritten(model, tmp_path, capsys):
    path = tmp_path / "in.wav"
    soundfile.write(path, _sound(1000), 24000)
    before = path.read_bytes()
    assert main(["run", "codec", "--model", model, "--source", str(path), "-o", str(path)]) == 2
    assert path.read_bytes() == before and "both source and output" in capsys.readouterr().err


def test_the_picture_shows_the_sound(model, tmp_path):
    """A tone that rises stands in the upper panel from bottom left to top right."""
    time = np.arange(24000 * 2) / 24000
    sweep = 0.5 * np.sin(2 * np.pi * (200 * time + 2500 * time**2))
    soundfile.write(tmp_path / "in.wav", sweep, 24000)
    run_codec(_options(model, str(tmp_path / "in.wav"), "null:", plot=tmp_path / "p.png"))
    picture = cv2.imread(str(tmp_path / "p.png")).astype(int)
    panel = picture[30:250, 60:1020].sum(axis=2)
    rows = [panel[:, x : x + 20].mean(axis=1).argmax() for x in (100, 480, 860)]
    assert rows[0] > rows[1] + 40 > rows[2] + 80
    assert rows[1] == pytest.approx(220 * (1 - 5200 / 12000), abs=8)


def test_spectrograms_take_any_pieces_and_constant_memory():
    sound = _sound(16000 * 40)
    whole, pieces = Spectrogram(16000), Spectrogram(16000)
    whole.push(sound)
    for part in np.array_split(sound, 97):
        pieces.push(part)
    np.testing.assert_allclose(whole.decibels(), pieces.decibels(), atol=1e-9)
    assert 800 <= whole.decibels().shape[1] <= 1600 and whole.seconds == 40
    tone = Spectrogram(16000)
    tone.push(np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32))
    level = tone.decibels()
    assert level.mean(axis=1).argmax() == 32 and level.max() == pytest.approx(0.0, abs=0.1)


# -- network -------------------------------------------------------------------------------------


def _free_port():
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _spawn(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", "run", "codec", *words, "--backend",
         "onnxruntime", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("loss", [0, 10])
def test_two_processes_over_the_network(model, tmp_path, loss):
    port, source = _free_port(), tmp_path / "in.wav"
    soundfile.write(source, _sound(24000 * 4), 24000, subtype="FLOAT")
    receiver = _spawn("--model", model, "--source", f"udp:{port}", "-o", str(tmp_path / "out.wav"),
                      "--loss", str(loss), "--redundancy", "0", "--json", "--idle", "20",
                      "--seed", "1")  # fmt: skip
    # The receiver says that it listens before anything is sent.
    line = receiver.stderr.readline()
    assert f"listening on udp:127.0.0.1:{port}" in line
    sender = run_codec(_options(model, str(source), f"udp:127.0.0.1:{port}", redundancy=0,
                                speed=20.0))  # fmt: skip
    out, errors = receiver.communicate(timeout=120)
    assert receiver.returncode == 0, errors
    result = json.loads(out)
    sound, network = _read(tmp_path / "out.wav"), result["network"]
    assert len(sound) == 24000 * 4
    assert network["received"] + network["lost"] == sender.network["sent"] - 3 == 50
    if loss:
        assert network["lost"] == network["dropped_on_purpose"] > 0
        assert network["frames_concealed"] == 6 * network["lost"]
        return
    assert network["lost"] == network["frames_concealed"] == 0
    with SpeechCodec.open(model, "onnxruntime", threads=1) as codec:
        speech = codec.encode(_read(source))
        stream = codec.decoder(eager=True)
        expected = np.concatenate((stream.push(speech.codes), stream.flush()))
    np.testing.assert_allclose(sound, expected, atol=2e-4)


@pytest.mark.parametrize("percent", [0.0, 5.0, 10.0])
def test_loss_costs_what_it_must_and_redundancy_repairs_it(tiny_codec, percent):
    """In one process: the share that is concealed falls to what two packets in a row lose."""
    from prunus.apps.io.sound.udp import losing
    from prunus.runtime.audio.packets import Packetizer, Receiver
    from prunus.runtime.tasks.codec.concealment import LossyDecoder

    with SpeechCodec.open(str(tiny_codec("wavtokenizer")), "onnxruntime", threads=1) as codec:
        speech = codec.encode(_sound(320 * 600))
        made_up = {}
        for redundancy in (0, 1):
            sender = Packetizer(codec.format, frames=3, redundancy=redundancy)
            packets = sender.push(speech.codes) + sender.flush(speech.samples)
            lose, receiver = losing(percent / 100, seed=2), Receiver(codec.format, depth=1)
            groups = []
            for packet in packets[:-3]:
                if not lose():
                    groups += receiver.push(packet)
            groups += [g for p in packets[-3:] for g in receiver.push(p)] + receiver.flush()
            decoder = LossyDecoder(codec)
            parts = [
                decoder.push(g) for g in groups
            ]
            sound = np.concatenate([*parts, decoder.flush()])
            assert len(sound) == 320 * 600 and np.isfinite(sound).all()
            made_up[redundancy] = decoder.lost / 600
            assert receiver.seen.concealed == decoder.lost
        assert made_up[0] == pytest.approx(percent / 100, abs=0.04)
        assert made_up[1] <= made_up[0] ** 1.2 / 2


def test_a_sender_that_falls_silent_ends_the_receiver(model, tmp_path, capsys):
    from prunus.apps.io.sound.udp import UdpReceiver
    from prunus.runtime.audio.packets import Packetizer, Receiver

    with SpeechCodec.open(model, "onnxruntime", threads=1) as codec:
        packets = Packetizer(codec.format, frames=3).push(codec.encode(_sound(320 * 30)).codes)
    end = UdpReceiver(("127.0.0.1", 0), Receiver(codec.format), idle_seconds=0.15)
    with contextlib.closing(end), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for packet in packets:
            out.sendto(packet, ("127.0.0.1", end.port))
        assert sum(g.frames for g in end.groups()) == 30
    assert end.silent
    with pytest.raises(HostError, match="Cannot listen"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            UdpReceiver(taken.getsockname(), Receiver(codec.format))
