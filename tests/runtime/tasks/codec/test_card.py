"""What a codec's card may say: code streams, windows, and the rates that follow from them."""

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess, CodeStream


@pytest.mark.parametrize(("size", "bits"), [(2, 1), (3, 2), (4, 2), (1024, 10), (1025, 11)])
def test_bits_hold_every_index(size, bits):
    assert CodeStream("codes", 1, size).bits == bits


@pytest.mark.parametrize("change", [{"codebooks": 0}, {"size": 1}, {"stride": 0}])
def test_a_stream_without_codes_is_refused(change):
    words = {"name": "codes", "codebooks": 1, "size": 2, "stride": 1}
    assert CodeStream(**words).codebooks == 1
    with pytest.raises(ArtifactError, match="The code stream 'codes'"):
        CodeStream(**(words | change))


def test_a_window_counts_without_its_context():
    form = CodecPreprocess(16000, 320, 50, left=8, right=2, fade=320)
    assert form.commit == 40
    assert CodecPreprocess(1, 1, 3, left=1, right=1, fade=1).commit == 1


@pytest.mark.parametrize(
    "change",
    [{"sample_rate_hz": 0}, {"hop": 0}, {"left": 9}, {"right": 9}, {"left": 5, "right": 5},
     {"left": -1}, {"right": -1}, {"fade": -1}, {"fade": 321}],
)  # fmt: skip
def test_a_window_without_room_is_refused(change):
    words = {"sample_rate_hz": 16000, "hop": 320, "frames": 9}
    with pytest.raises(ArtifactError, match="windows of 9 frames"):
        CodecPreprocess(**(words | change))


def test_rate_and_stride_of_several_streams():
    streams = (CodeStream("slow", 1, 1024, 6), CodeStream("fast", 3, 256, 4))
    codes = CodecPostprocess("encoder", streams)
    assert codes.stride == 12
    # 10 bits each 6 frames and 24 each 4, at 50 frames a second.
    assert codes.bits_per_second(CodecPreprocess(16000, 320, 12)) == pytest.approx(
        50 * (10 / 6 + 24 / 4)
    )


def test_a_codec_has_streams_and_no_negative_voice():
    stream = (CodeStream("codes", 1, 2),)
    assert CodecPostprocess("decoder", stream, 0).stride == 1
    for streams, voice in (((), 0), (stream, -1)):
        said = f"{len(streams)} code streams and a voice of {voice}"
        with pytest.raises(ArtifactError, match=said):
            CodecPostprocess("decoder", streams, voice)
