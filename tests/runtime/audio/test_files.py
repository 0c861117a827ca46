"""Sound files that are whole, that broke off, and that are not what they seem."""

import io
import os
import struct
import threading

import numpy as np
import pytest

from prunus.runtime.audio import files as audio_file
from prunus.runtime.audio.files import SoundReader, WavWriter
from prunus.runtime.audio.header import ogg_lacks_end, promised_bytes
from prunus.runtime.errors import SourceError, UsageError

soundfile = pytest.importorskip("soundfile")
RATE, COUNT = 16000, 80000
FORMATS = {
    "wav": "WAV", "flac": "FLAC", "ogg": "OGG", "w64": "W64", "rf64": "RF64", "aiff": "AIFF",
    "au": "AU", "mp3": "MP3", "caf": "CAF", "nist": "NIST", "svx": "SVX",
}  # fmt: skip
LOSSLESS = ("wav", "flac", "w64", "rf64", "aiff", "au", "caf", "nist", "svx")


@pytest.fixture(scope="module")
def sound():
    return (0.2 * np.random.default_rng(0).standard_normal(COUNT)).astype(np.float32)


def _file(tmp_path, ending, sound, **options):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, sound, RATE, format=FORMATS[ending], **options)
    return path


def _all(reader):
    return np.concatenate([*reader.blocks(4096), np.zeros(0, np.float32)])


@pytest.mark.parametrize("ending", FORMATS)
def test_whole_files_miss_nothing(tmp_path, sound, ending):
    with SoundReader(_file(tmp_path, ending, sound)) as reader:
        assert not reader.ends_early
        heard = _all(reader)
        assert len(heard) == COUNT and not reader.ends_early and not reader.cancels


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_there_is_decoded_and_what_is_missing_is_said(tmp_path, sound, ending):
    path = _file(tmp_path, ending, sound)
    whole = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    with SoundReader(path) as reader:
        heard = _all(reader)
        assert 0.5 * COUNT < len(heard) < 0.7 * COUNT
        said = "last page is missing" if ending == "ogg" else "promises 5.0"
        assert said in reader.ends_early
        assert f"{len(heard) / RATE:.2f} s are there" in reader.ends_early
    if ending in LOSSLESS:
        assert np.array_equal(heard, whole[: len(heard)])


def test_a_big_endian_wav_says_what_is_missing(tmp_path, sound):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, RATE, format="WAV", endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX"
    path.write_bytes(path.read_bytes()[:100_000])
    with SoundReader(path) as reader:
        assert "promises 5.0" in reader.ends_early


@pytest.mark.parametrize("form", ["VOC", "AVR", "PAF", "PVF", "IRCAM", "MAT5", "XI", "WVE"])
def test_formats_that_do_not_say_their_length_are_named(tmp_path, sound, form):
    path = tmp_path / f"a.{form.lower()}"
    soundfile.write(path, sound, 8000 if form == "WVE" else RATE, format=form)
    with SoundReader(path) as reader:
        assert reader.unmeasured == form and not reader.ends_early


@pytest.mark.parametrize("ending", ["caf", "nist"])
def test_a_header_that_leaves_the_length_out_is_named(tmp_path, sound, ending):
    path = _file(tmp_path, ending, sound)
    with SoundReader(path) as reader:
        assert not reader.unmeasured
    data = path.read_bytes()
    if ending == "caf":
        at = data.index(b"data") + 4
        data = data[:at] + b"\xff" * 8 + data[at + 8 :]  # -1: up to the end of the file
    else:
        data = data.replace(b"sample_count -i %d" % COUNT, b" " * 21)
    path.write_bytes(data[:100_000])
    with SoundReader(path) as reader:
        assert reader.unmeasured == ending.upper() and not reader.ends_early
        assert 0.5 * COUNT < len(_all(reader)) < 0.7 * COUNT


def test_a_cut_sphere_of_mu_law_says_what_is_missing(tmp_path, sound):
    path = _file(tmp_path, "nist", sound, subtype="ULAW")
    assert b"sample_n_bytes -s1 1" in path.read_bytes()
    path.write_bytes(path.read_bytes()[:50_000])
    with SoundReader(path) as reader:
        assert "promises 5.0" in reader.ends_early


@pytest.mark.parametrize("ending", ["wav", "caf", "aiff"])
def test_a_file_that_is_cut_behind_its_sound_misses_nothing(tmp_path, sound, ending):
    path = _file(tmp_path, ending, sound)
    form = {"wav": "<4sI", "caf": ">4sq", "aiff": ">4sI"}[ending]
    data = path.read_bytes() + struct.pack(form, b"NOTE", 100) + bytes(100)
    if ending != "caf":  # which says the size of no more than its chunks
        data = data[:4] + struct.pack(form[0] + "I", len(data) - 8) + data[8:]
    path.write_bytes(data[:-50])
    with SoundReader(path) as reader:
        assert not reader.ends_early and not reader.unmeasured
        assert len(_all(reader)) == COUNT and not reader.ends_early


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1])
def test_a_chunk_of_impossible_size_is_no_place(tmp_path, sound, size):
    path = _file(tmp_path, "caf", sound)
    data = path.read_bytes()
    at = data.index(b"data")
    path.write_bytes(data[:at] + struct.pack(">4sq", b"free", size) + data[at:])
    assert promised_bytes(path)[0] == 0


def test_a_recorder_that_died_before_it_wrote_sizes(tmp_path, sound):
    path = _file(tmp_path, "wav", sound)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    path.write_bytes(data)
    with SoundReader(path) as reader:
        assert reader.ends_early == "its header promises no sound, 5.00 s are there"
        heard = _all(reader)
    assert np.abs(heard - sound).max() < 1e-4


def test_an_empty_wav_with_other_chunks_stays_empty(tmp_path):
    body = b"WAVE" + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body += struct.pack("<4sI", b"data", 0) + struct.pack("<4sI", b"LIST", 4) + b"INFO"
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with SoundReader(path) as reader:
        assert not len(_all(reader)) and not reader.ends_early


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "aiff"])
@pytest.mark.parametrize("sizes", [True, False])
def test_every_format_comes_through_pipes(tmp_path, sound, monkeypatch, ending, sizes):
    data = bytearray(_file(tmp_path, ending, sound).read_bytes())
    if not sizes and ending == "wav":
        data[4:8] = data[40:44] = bytes(4)
    source, target = os.pipe()

    def fill():
        with os.fdopen(target, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=fill)
    writer.start()
    with os.fdopen(source, "rb") as stdin:
        monkeypatch.setattr(audio_file.sys, "stdin", stdin)
        with SoundReader("-") as reader:
            heard = _all(reader)
            assert not reader.ends_early
    writer.join()
    assert len(heard) == COUNT and np.corrcoef(heard, sound)[0, 1] > 0.9


def test_channels_that_cancel_each_other_are_told(tmp_path, sound):
    for factor, cancels in ((-1.0, True), (-0.9, False), (1.0, False)):
        path = _file(tmp_path, "wav", np.stack([sound, factor * sound], axis=1))
        with SoundReader(path) as reader:
            _all(reader)
            assert reader.cancels == cancels


def test_impossible_files_are_refused(tmp_path, sound):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, 500)
    with pytest.raises(UsageError, match="500 Hz; expected 1000 to 768000"):
        SoundReader(path)
    flac = _file(tmp_path, "flac", sound)
    flac.write_bytes(flac.read_bytes()[:90])
    with pytest.raises(SourceError, match=r"a\.flac"):
        with SoundReader(flac) as reader:
            _all(reader)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert promised_bytes(tmp_path / "b.wav") == (0, 0)


def test_wav_files_say_their_length(tmp_path):
    for target in (tmp_path / "a.wav", io.BytesIO()):
        with WavWriter(target, RATE) as writer:
            for value in (0.5, 2.0, -2.0):
                writer.write(np.full(10, value, np.float32))
        if isinstance(target, io.BytesIO):
            target.seek(0)
        heard, rate = soundfile.read(target, dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(heard, np.repeat([0.5, 1.0, -1.0], 10), atol=1e-4)


def test_a_full_disk_is_an_error_of_the_disk(sound):
    with pytest.raises(OSError) as caught:
        with WavWriter("/dev/full", RATE) as writer:
            writer.write(sound)
    assert caught.value.errno == 28


def _contained(path, sound, rate, *, codec="aac", layout="mono"):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        converter = av.AudioResampler(stream.codec_context.format.name, layout, rate)
        sound = np.atleast_2d(sound)
        for start in range(0, sound.shape[1], 1000):
            piece = np.ascontiguousarray(sound[:, start : start + 1000])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            frame.sample_rate = rate
            for part in converter.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("ending", "codec"), [
    (".m4a", "aac"), (".mp4", "aac"), (".mkv", "pcm_s16le"), (".mov", "pcm_s16le"),
    (".aac", "aac"), (".avi", "pcm_s16le"), (".webm", "libopus"),
])  # fmt: skip
def test_the_sound_of_containers_is_read(tmp_path, ending, codec):
    rate = 48_000
    sine = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)
    path = tmp_path / f"a{ending}"
    _contained(path, sine, rate, codec=codec)
    with SoundReader(path) as reader:
        assert (reader.sample_rate_hz, reader.channels) == (rate, 1)
        heard = np.concatenate(list(reader.blocks()))
        assert reader.ends_early == ""
    assert abs(len(heard) - 2 * rate) <= 0.06 * rate
    middle = heard[rate // 2 : rate]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() == 220  # bins of 2 Hz
    assert np.sqrt(np.square(middle).mean()) == pytest.approx(0.3 / 2**0.5, rel=0.1)


def test_channels_of_containers_are_averaged(tmp_path):
    rate = 16_000
    left = (0.3 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype(np.float32)
    _contained(tmp_path / "a.mov", np.stack([left, 0 * left]), rate, codec="pcm_s16le",
               layout="stereo")  # fmt: skip
    with SoundReader(tmp_path / "a.mov") as reader:
        heard = np.concatenate(list(reader.blocks(777)))
        assert reader.channels == 2 and not reader.cancels
    np.testing.assert_allclose(heard, left / 2, atol=1e-4)


def test_a_container_that_broke_off_tells_what_is_missing(tmp_path):
    rate = 16_000
    noise = (0.1 * np.random.default_rng(0).standard_normal(10 * rate)).astype(np.float32)
    _contained(tmp_path / "a.mkv", noise, rate, codec="pcm_s16le")
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with SoundReader(tmp_path / "cut.mkv") as reader:
        heard = np.concatenate(list(reader.blocks()))
        assert 3 * rate < len(heard) < 7 * rate
        assert reader.ends_early.startswith("its header promises 10.0")


def test_a_film_without_sound_and_noise_are_one_clear_error(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "bgr24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "noise.m4a").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    for name, words in (
        ("mute.mp4", "holds no sound"), ("noise.m4a", "cannot be read"), ("list.m3u8", "no sound"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=words) as caught:
            SoundReader(tmp_path / name)
        assert "WAV, FLAC or Ogg" in caught.value.hint


def test_blocks_are_of_the_size_that_was_asked_for(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(70_000), 16000)
    with SoundReader(path) as reader:
        assert [len(block) for block in reader.blocks()] == [32768, 32768, 4464]
    with SoundReader(path) as reader:
        assert [len(block) for block in reader.blocks(50_000)] == [50_000, 20_000]


def test_an_ogg_whose_last_page_is_cut_anywhere(tmp_path, sound):
    whole = _file(tmp_path, "ogg", sound)
    assert not ogg_lacks_end(whole)
    data = whole.read_bytes()
    last = data.rindex(b"OggS")
    for kept in (1, 4, 26, 27, 28, 60, len(data) - last - 1):
        whole.write_bytes(data[: last + kept])
        assert ogg_lacks_end(whole), kept
    whole.write_bytes(data[:last])
    assert ogg_lacks_end(whole)  # its last page is not marked as the last
    whole.write_bytes(data + b"more")
    assert not ogg_lacks_end(whole)
    whole.write_bytes(b"no page at all")
    assert ogg_lacks_end(whole)
