"""The file format: what goes in comes out, and nothing that is damaged comes out as whole."""

import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.pcodec import PcodecReader, PcodecWriter, pack, unpack
from prunus.runtime.errors import ArtifactError, PrunusError, SourceError, TensorError
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodecFormat

ONE = (CodeStream("codes", 1, 4096),)
EIGHT = (CodeStream("codes", 8, 1024),)
TWO = (CodeStream("content", 1, 256), CodeStream("prosody", 1, 200, 8))


def _format(streams, voice=0, identity="ab" * 32):
    return CodecFormat("toy", 16000, 320, streams, voice, identity, True)


def _codes(streams, frames, seed=0):
    rng = np.random.default_rng(seed)
    return {s.name: rng.integers(0, s.size, (s.codebooks, frames // s.stride)) for s in streams}


def _file(streams, frames, *, samples=None, voice=None, pieces=1, block=16):
    codec = _format(streams, 0 if voice is None else len(voice))
    file, codes = io.BytesIO(), _codes(streams, frames)
    writer = PcodecWriter(file, codec, samples=samples, voice=voice, block_frames=block)
    stride = codec.stride
    edges = np.linspace(0, frames // stride, pieces + 1).astype(int) * stride
    for a, b in pairwise(edges):
        writer.add({s.name: codes[s.name][:, a // s.stride : b // s.stride] for s in streams})
    writer.finish(frames * 320 - 7)
    assert writer.bytes == len(file.getvalue())
    return file.getvalue(), codes


def _read(data, names):
    reader = PcodecReader(io.BytesIO(data))
    blocks = list(reader.blocks(names))
    return reader, {n: np.concatenate([b[n] for b in blocks], axis=1) for n in names if blocks}


@pytest.mark.parametrize("streams", [ONE, EIGHT, TWO])
@pytest.mark.parametrize("frames", [8, 16, 160, 168])
def test_round_trip(streams, frames):
    names = tuple(s.name for s in streams)
    data, codes = _file(streams, frames, pieces=3)
    reader, got = _read(data, names)
    assert not reader.damage and reader.samples == frames * 320 - 7 and reader.frames == frames
    assert reader.bytes == len(data)
    for name in names:
        assert np.array_equal(got[name], codes[name])
    assert [(s.codebooks, s.size, s.stride) for s in reader.header.streams] == [
        (s.codebooks, s.size, s.stride) for s in streams
    ]


def test_voice_and_length_stand_in_the_header():
    voice = np.linspace(-1, 1, 24).astype(np.float32)
    data, _ = _file(TWO, 16, samples=5113, voice=voice)
    reader = PcodecReader(io.BytesIO(data))
    assert reader.samples == 5113 and np.array_equal(reader.header.voice, voice)
    with pytest.raises(TensorError, match="no voice"):
        PcodecWriter(io.BytesIO(), _format(TWO, 24))


def test_size_is_what_the_rate_says():
    data, _ = _file(ONE, 7500, block=150)
    payload = 7500 * 12 / 8
    assert payload < len(data) < payload * 1.05 + 100


def test_another_codec_is_refused():
    reader = PcodecReader(io.BytesIO(_file(ONE, 16)[0]))
    reader.header.require(_format(ONE))
    with pytest.raises(ArtifactError, match="other weights"):
        reader.header.require(_format(ONE, identity="cd" * 32))


@given(st.integers(0, 10**6), st.sampled_from([ONE, EIGHT, TWO]), st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_packing_is_exact(seed, streams, count):
    codes = _codes(streams, count * 8, seed)
    got = unpack(pack(codes, streams), streams, count * 8)
    assert all(np.array_equal(got[n], codes[n]) for n in codes)


@pytest.mark.fuzz
@given(st.integers(0, 10**6))
def test_truncated_files_decode_up_to_the_damage(seed):
    data, codes = _file(TWO, 160)
    cut = seed % len(data)
    try:
        reader, got = _read(data[:cut], ("content", "prosody"))
    except SourceError:
        assert cut < 120  # inside the header
        return
    assert "truncated" in reader.damage and reader.samples is None
    if got:
        assert np.array_equal(got["content"], codes["content"][:, : got["content"].shape[1]])


@pytest.mark.fuzz
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_never_passes_as_sound(seed, change):
    data, codes = _file(TWO, 160)
    spoiled = bytearray(data)
    spoiled[seed % len(data)] ^= change
    try:
        reader, got = _read(bytes(spoiled), ("content", "prosody"))
    except SourceError:
        return  # the header protects itself
    assert reader.damage
    for name, values in got.items():
        assert np.array_equal(values, codes[name][:, : values.shape[1]])


@pytest.mark.fuzz
@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_clear_error(noise):
    for data in (noise, b"PCDC" + noise, b"PCDC\x01" + noise):
        try:
            reader = PcodecReader(io.BytesIO(data))
            list(reader.blocks())
            assert reader.damage
        except PrunusError as error:
            assert error.message


def test_indices_beyond_the_codebook_are_refused():
    with pytest.raises(TensorError, match="0 to 199"):
        unpack(pack({"content": np.zeros((1, 8), int), "prosody": np.full((1, 1), 255)},
                    (ONE[0].__class__("content", 1, 256), CodeStream("prosody", 1, 256, 8))),
               TWO, 8)  # fmt: skip
    writer = PcodecWriter(io.BytesIO(), _format(ONE))
    with pytest.raises(TensorError, match="0 to 4095"):
        writer.add({"codes": np.array([[4096]])})


def test_pipes_that_give_little_at_a_time():
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    data, codes = _file(ONE, 64)
    reader = PcodecReader(Trickle(data))
    got = np.concatenate([b["codes"] for b in reader.blocks(("codes",))], axis=1)
    assert np.array_equal(got, codes["codes"]) and not reader.damage


# 16 frames of two streams, written by hand from the description of the format: hexadecimal, one
# line per field. Content 0x80 0x01 0xfe ... : the highest bit of each index comes first.
GOLDEN = """
50434443 01 02 4001 803e0000 3b14000000000000 0000 {identity}
01 01 ff00  01 08 c700
{header}
1000
8001fe7f00ff1020 30405060708090a0 c7 03
{block}
0000 3b14000000000000
{end}
"""


def _golden():
    """Return the file; checksums are those of the standard library."""
    fields = GOLDEN.replace("{identity}", "ab" * 32).split("{")
    header = bytes.fromhex(fields[0])
    block = bytes.fromhex(fields[1].partition("}")[2])
    end = bytes.fromhex(fields[2].partition("}")[2])
    return b"".join(part + struct.pack("<I", zlib.crc32(part)) for part in (header, block, end))


def test_the_bits_lie_as_the_format_says():
    codes = {
        "content": np.array([[0x80, 1, 0xFE, 0x7F, 0, 0xFF, *range(0x10, 0xA1, 0x10)]]),
        "prosody": np.array([[199, 3]]),
    }
    reader, got = _read(_golden(), ("content", "prosody"))
    assert not reader.damage and reader.samples == 5179
    assert all(np.array_equal(got[name], codes[name]) for name in codes)
    file = io.BytesIO()
    writer = PcodecWriter(file, _format(TWO), samples=5179, block_frames=16)
    writer.add(codes)
    writer.finish(5179)
    assert file.getvalue() == _golden()
    # Indices of 10 bits share bytes: 1, 512, 1023 and 0.
    ten = (CodeStream("codes", 1, 1024),)
    assert pack({"codes": np.array([[1, 512, 1023, 0]])}, ten).hex() == "0060" + "0ffc00"


def test_files_of_another_number_of_streams_are_refused_by_name():
    data, _ = _file(TWO, 16)
    reader = PcodecReader(io.BytesIO(data))
    with pytest.raises(ArtifactError, match="has 2 code streams; expected 1: codes"):
        list(reader.blocks(("codes",)))
    with pytest.raises(ArtifactError, match="in another layout"):
        reader.header.require(_format(ONE))


def _sealed(part):
    return part + struct.pack("<I", zlib.crc32(part))


@pytest.mark.fuzz
@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 2, st.integers(0, 65535)), max_size=4),
    st.integers(0, 65535), st.integers(900, 800_000), st.integers(0, 40), st.binary(max_size=300),
    st.integers(0, 65535),
)  # fmt: skip
def test_forged_headers_with_good_checksums_are_bounded(streams, hop, rate, voice, noise, frames):
    """Sizes are lies until their bytes are there: no header makes a reader take memory."""
    head = struct.pack("<4sBBHIQH32s", b"PCDC", 1, len(streams), hop, rate, 2**64 - 1, voice, b"i")
    head += b"".join(struct.pack("<BBH", *stream) for stream in streams) + bytes(4 * voice)
    data = _sealed(head) + struct.pack("<H", frames) + noise
    try:
        reader = PcodecReader(io.BytesIO(data))
        list(reader.blocks())
        assert reader.damage
        assert reader.header.sample_rate_hz == rate and 1000 <= rate <= 768000
    except PrunusError as error:
        assert error.message
