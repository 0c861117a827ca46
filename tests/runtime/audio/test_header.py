"""What headers promise, container by container: bytes laid out by hand, as their formats say."""

import os
import struct

import pytest

from prunus.runtime.audio import header
from prunus.runtime.audio.header import (
    UNKNOWN,
    MendedWav,
    mp3_tells_length,
    ogg_lacks_end,
    open_pipe,
    promised_bytes,
    sizeless,
)

SOUND = bytes(range(1, 101))


def _wav(size, *, order="<", note=b"odd", said=None, sound=SOUND):
    """Return a WAV whose sound lies behind a chunk of odd length, which is filled up by a byte."""
    head = b"RIFF" if order == "<" else b"RIFX"
    chunks = struct.pack(f"{order}4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    chunks += struct.pack(f"{order}4sI", b"LIST", len(note)) + note + bytes(len(note) % 2)
    chunks += struct.pack(f"{order}4sI", b"data", size)
    whole = 4 + len(chunks) + len(sound) if said is None else said
    return head + struct.pack(f"{order}I", whole) + b"WAVE" + chunks + sound


def _aiff(kind, *chunks, said=0):
    body = b"".join(
        struct.pack(">4sI", name, size) + data + bytes(len(data) % 2) for name, size, data in chunks
    )
    return b"FORM" + struct.pack(">I", said) + kind + body


def _caf(size):
    chunks = struct.pack(">4sq", b"desc", 32) + bytes(32) + struct.pack(">4sq", b"info", 3) + b"abc"
    return b"caff" + struct.pack(">HH", 1, 0) + chunks + struct.pack(">4sq", b"data", size) + SOUND


def _nist(fields, begin=1024):
    text = f"NIST_1A\n   {begin}\n" + "".join(f"{field}\n" for field in fields) + "end_head\n"
    return text.encode().ljust(begin, b"\0") + SOUND


SPHERE = ("sample_count -i 25", "channel_count -i 2", "sample_n_bytes -i 2")
CASES = {
    "WAV": (_wav(120), 120, 100),
    "WAV with all of it": (_wav(100), 100, 100),
    "WAV, big-endian": (_wav(120, order=">"), 120, 100),
    "WAV with another chunk of even length": (_wav(120, note=b"even"), 120, 100),
    "WAV of a size that its writer may have known": (_wav(UNKNOWN - 1), UNKNOWN - 1, 100),
    "WAV of a size that its writer did not know": (_wav(UNKNOWN), 0, 100),
    "WAV without a chunk of sound": (b"RIFF" + bytes(36), 0, 40),
    "CAF": (_caf(120), 120, 100),
    "CAF of nothing": (_caf(0), 0, 100),
    "CAF of a size that its writer did not know": (_caf(-1), 0, len(_caf(-1))),
    "NIST": (_nist(SPHERE), 100, 100),
    "NIST with numbers as text": (_nist((*SPHERE[:2], "sample_n_bytes -s1 1")), 50, 100),
    "NIST with a longer head": (_nist(SPHERE, 2048), 100, 100),
    "NIST, compressed": (
        _nist((*SPHERE, "sample_coding -s26 pcm,embedded-shorten-v2.00")), 0, 1124,
    ),
    "NIST without a number": (_nist(SPHERE[:2]), 0, len(_nist(SPHERE[:2]))),
    "RF64": (
        b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQ", 28, 500) + bytes(28), 508, 56,
    ),
    "RF64 of a size that no disk holds": (
        b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQ", 28, 1 << 62) + bytes(28), 0, 0,
    ),
    "W64": (b"riff" + bytes(12) + struct.pack("<Q", 500) + bytes(16), 500, 40),
    "AIFF": (
        _aiff(b"AIFF", (b"NAME", 3, b"abc"), (b"SSND", 200, SOUND), (b"ANNO", 4, b"abcd")),
        12 + 8 + 4 + 8 + 200, 12 + 8 + 4 + 8 + 100 + 8 + 4,
    ),
    "AIFF-C": (_aiff(b"AIFC", (b"SSND", 100, SOUND)), 120, 120),
    "8SVX": (_aiff(b"8SVX", (b"SSND", 9, b"no sound."), (b"BODY", 200, SOUND)), 238, 138),
    "AIFF without a chunk of sound": (_aiff(b"AIFF", (b"NAME", 30, bytes(30)), said=300), 308, 50),
    "AU": (b".snd" + struct.pack(">II", 32, 200) + bytes(20) + SOUND, 232, 132),
    "AU of a size that its writer did not know": (
        b".snd" + struct.pack(">II", 32, 0xFFFFFFFF) + bytes(20) + SOUND, 0, 132,
    ),
    "AU, as large as can be": (
        b".snd" + struct.pack(">II", 32, UNKNOWN - 1) + bytes(20), UNKNOWN + 31, 32,
    ),
    "another format": (b"fLaC" + SOUND, 0, 104),
    "less than any header": (_wav(120)[:31], 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_promised_and_what_is_there(tmp_path, name):
    data, promised, there = CASES[name]
    (path := tmp_path / "sound").write_bytes(data)
    assert promised_bytes(path) == (promised, there)


def test_damaged_chunks_end_the_search(tmp_path):
    path = tmp_path / "sound"
    for size in (-5, 1 << 40):  # backwards, and beyond the end
        path.write_bytes(_caf(120).replace(struct.pack(">4sq", b"info", 3),
                                           struct.pack(">4sq", b"info", size)))  # fmt: skip
        assert promised_bytes(path) == (0, path.stat().st_size)


def test_a_wav_whose_recorder_died_has_sound_and_no_size(tmp_path):
    path = tmp_path / "a.wav"
    begin = len(_wav(0, sound=b""))
    for said, size, sound, expected in (
        (0, 0, SOUND, True),  # nothing was written
        (begin - 8, 0, SOUND, True),  # the length of the header alone
        (begin - 7, 0, SOUND, False),  # it knows its length: the sound is empty, a chunk follows
        (0, 100, SOUND, False),
        (0, 0, b"", False),
    ):
        path.write_bytes(_wav(size, said=said, sound=sound))
        assert sizeless(path) is expected, (said, size)
    for data in (_wav(0, order=">", said=0), _wav(0, said=0).replace(b"WAVE", b"AVI "),
                 _wav(0, said=0).replace(b"data", b"dada")):  # fmt: skip
        path.write_bytes(data)
        assert not sizeless(path)


def _page(body, *, last, segments=None):
    lengths = [255] * (len(body) // 255) + [len(body) % 255] if segments is None else segments
    return (b"OggS\0" + bytes([4 if last else 0]) + bytes(20) + bytes([len(lengths)])
            + bytes(lengths) + body)  # fmt: skip


def test_an_ogg_ends_with_a_whole_page_that_is_marked_as_the_last(tmp_path):
    path, first, last = tmp_path / "a.ogg", _page(bytes(300), last=False), _page(SOUND, last=True)
    for data, lacks in (
        (first + last, False),
        (last, False),
        (first + last[:-1], True),
        (first + last[:27], True),  # the lengths of its segments are missing
        (first + last[:26], True),
        (first, True),
        (SOUND, True),
        (b"", True),
        (first + _page(b"", last=True), False),
        (bytes(200_000) + last, False),
        (first + _page(bytes(65_025), last=True, segments=[255] * 255), False),
        (first + _page(bytes(65_024), last=True, segments=[255] * 255), True),
    ):
        path.write_bytes(data)
        assert ogg_lacks_end(path) is lacks, (len(data), data[:4])


def test_an_mp3_tells_its_length_in_its_first_frame(tmp_path):
    path, frame = tmp_path / "a.mp3", b"\xff\xfb\x90\x00" + bytes(32)
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 3]) + b"Xing".ljust(2 * 128 + 3)  # seven bits a byte
    for data, told in (
        (frame + b"Xing", True),
        (frame + b"Info", True),
        (frame + b"VBRI", True),
        (frame + b"LAME", False),
        (tag + frame + b"Xing", True),
        (tag + frame, False),  # what the tag says is no frame
        (tag + frame.ljust(508) + b"Xing", True),
        (tag + frame.ljust(509) + b"Xing", False),  # of a later frame
        (b"ID3\x04", False),
    ):
        path.write_bytes(data)
        assert mp3_tells_length(path) is told, data[:12]


@pytest.mark.parametrize("step", [1, 3, 7, 1000, -1])
def test_a_mended_wav_reads_as_if_it_had_its_sizes(tmp_path, step):
    (path := tmp_path / "a.wav").write_bytes(_wav(0, said=0))
    mended, parts = MendedWav(path), []
    while part := mended.read(step):
        parts.append(part)
    assert b"".join(parts) == _wav(100)
    assert mended.tell() == len(_wav(100))
    assert mended.seek(-100, os.SEEK_END) == len(_wav(100)) - 100 and mended.read() == SOUND
    assert mended.seek(5) == 5 and mended.read(2) == _wav(100)[5:7]
    mended.close()
    mended.close()


def _through(data):
    """Return what `open_pipe` gives of bytes that come through a pipe."""
    there, ours = os.pipe()
    os.write(ours, data)
    os.close(ours)
    opened = open_pipe(there)
    with os.fdopen(opened, "rb") if isinstance(opened, int) else opened as file:
        found = file.read()
    os.close(there)
    return found, isinstance(opened, int)


def test_pipes_give_what_came_with_a_size_that_means_unknown():
    empty = _wav(0)
    at = empty.index(b"data") + 4
    assert _through(empty) == (empty[:at] + b"\xff" * 4 + SOUND, True)
    for data in (_wav(100), _wav(0, order=">"), CASES["AIFF"][0], CASES["AU"][0], CASES["RF64"][0],
                 _wav(100)[:30], _wav(100)[:4], b"RIFF"):  # fmt: skip
        assert _through(data) == (data, data[:4] in header._STREAMED), data[:20]
    for data in (b"fLaC" + SOUND, b"OggS" + SOUND, b"", b"caff"):
        assert _through(data) == (data, False)


def test_a_chunk_that_is_too_large_to_be_a_note_is_passed_on_unread():
    note = struct.pack("<4sI", b"LIST", header._MOST_HEADER + 1)
    data = b"RIFF" + bytes(4) + b"WAVE" + note + SOUND + struct.pack("<4sI", b"data", 0)
    assert _through(data) == (data, True)
