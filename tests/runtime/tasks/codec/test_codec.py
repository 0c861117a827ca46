"""The codec task on exported graphs: whole, in pieces, and against PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus.models.checkpoints import codecs
from prunus.models.codec.untrained import initialise
from prunus.runtime.errors import ArtifactError, TensorError, UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec, find_parts, joined

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# A function-scoped fixture would be made once for all examples, which is what is wanted here.
PROPERTY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=["wavtokenizer", "fusecodec", "freecodec"])
def codec(request, tiny_codec):
    with SpeechCodec.open(tiny_codec(request.param), "onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def wavtokenizer(tiny_codec):
    with SpeechCodec.open(tiny_codec("wavtokenizer"), "onnxruntime", threads=1) as opened:
        yield opened


def _sound(count, seed=0):
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(count)).astype(np.float32)


def _network(model, variant):
    network = codecs.build_codec(model, variant)
    initialise(network, 0)
    return network.eval()


def _snr(expected, got):
    noise = float(((got.astype(np.float64) - expected) ** 2).sum())
    return 10 * np.log10(float((expected.astype(np.float64) ** 2).sum()) / max(noise, 1e-30))


@pytest.mark.parametrize("count", [1, 160, 319, 320, 321, 4999, 16000, 40001])
def test_lengths_are_exact_to_the_sample(codec, count):
    speech = codec.encode(_sound(count))
    assert speech.samples == count
    for stream in codec.format.streams:
        expected = codec.format.frames_of(count) // stream.stride
        assert speech.codes[stream.name].shape == (stream.codebooks, expected)
    sound = codec.decode(speech)
    assert sound.shape == (count,) and sound.dtype == np.float32
    assert np.abs(sound).max() <= 1.0
    assert (speech.voice is None) == (codec.format.voice == 0)


def test_wavtokenizer_codes_equal_the_offline_network(wavtokenizer, small_codecs):
    network = _network("wavtokenizer", "tok75")
    sound = _sound(320 * 57)
    silence = np.zeros(320 * 8, np.float32)
    with torch.no_grad():
        whole = torch.from_numpy(np.concatenate((sound, silence)))[None]
        expected = network.encode(whole)[1][0].numpy()[:, :57]
    got = wavtokenizer.encode(sound).codes["codes"]
    assert np.array_equal(got, expected)
    assert len(np.unique(got)) > 20


def test_wavtokenizer_decodes_what_fits_a_window_exactly(wavtokenizer, small_codecs):
    network = _network("wavtokenizer", "tok75")
    for frames in (3, 31, 48):
        speech = wavtokenizer.encode(_sound(320 * frames, seed=frames))
        with torch.no_grad():
            codes = torch.from_numpy(speech.codes["codes"])
            expected = network.decode(network.codes_to_features(codes))[0].clamp(-1, 1).numpy()
        assert _snr(expected, wavtokenizer.decode(speech)) > 90


def test_fusecodec_decodes_exactly_but_for_the_last_frame(tiny_codec, small_codecs):
    network = _network("fusecodec", "16k")
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 64, (3, 41))
    with torch.no_grad():
        tensor = torch.from_numpy(codes)[:, None]
        expected = network.decode(tensor)[0, 0].clamp(-1, 1).numpy()
    with SpeechCodec.open(tiny_codec("fusecodec"), "onnxruntime", parts=("decoder",)) as codec:
        stream = codec.decoder()
        got = np.concatenate((stream.push({"codes": codes}), stream.flush()))
    assert got.shape == expected.shape
    assert _snr(expected[:-320], got[:-320]) > 90
    # The last frame sees its mirror behind the LSTM instead of at every layer.
    assert np.abs(got[-320:] - expected[-320:]).max() < 0.5


@PROPERTY
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.integers(0, 1000))
def test_any_schedule_of_sound_gives_the_same_codes(codec, sizes, seed):
    sound = _sound(sum(sizes) + 1, seed)
    whole = codec.encode(sound).codes
    stream = codec.encoder()
    pieces, at = [], 0
    for size in [*sizes, 1]:
        pieces.append(stream.push(sound[at : at + size]))
        at += size
    got = joined([*pieces, stream.flush()])
    assert stream.samples == len(sound)
    for name, codes in whole.items():
        assert np.array_equal(got[name], codes), name


@PROPERTY
@given(st.lists(st.integers(0, 4), min_size=1, max_size=16), st.integers(0, 1000))
def test_any_schedule_of_codes_gives_the_same_sound(codec, sizes, seed):
    rng = np.random.default_rng(seed)
    stride = codec.format.stride
    total = (sum(sizes) + 1) * stride
    codes = {
        s.name: rng.integers(0, s.size, (s.codebooks, total // s.stride))
        for s in codec.format.streams
    }
    width = codec.format.voice
    voice = rng.standard_normal(width).astype(np.float32) if width else None
    whole_stream = codec.decoder(voice)
    whole = np.concatenate((whole_stream.push(codes), whole_stream.flush()))
    stream = codec.decoder(voice)
    pieces, at = [], 0
    for size in [*sizes, 1]:
        until = at + size * stride
        pieces.append(
            stream.push({s.name: codes[s.name][:, at // s.stride : until // s.stride]
                         for s in codec.format.streams})
        )  # fmt: skip
        at = until
    got = np.concatenate([*pieces, stream.flush()])
    assert len(got) == len(whole) == total * codec.format.hop
    np.testing.assert_allclose(got, whole, atol=1e-6)


def test_eager_streams_answer_early_and_lose_nothing(codec):
    hop, count = codec.format.hop, 320 * 96
    sound = _sound(count)
    stream, first, pieces = codec.encoder(eager=True), 0, []
    for at in range(0, count, hop):
        pieces.append(stream.push(sound[at : at + hop]))
        if not first and pieces[-1][codec.format.streams[0].name].size:
            first = at + hop
    codes = joined([*pieces, stream.flush()])
    assert codes[codec.format.streams[0].name].shape[1] == 96
    pre = codec.sessions["encoder"].card.preprocess
    assert 0 < first <= (pre.commit + stream.latency // hop + pre.frames % pre.commit) * hop + hop
    decoder = codec.decoder(codec.voice_of(sound), eager=True)
    out = [decoder.push({n: c[:, k * c.shape[1] // 12 : (k + 1) * c.shape[1] // 12]
                         for n, c in codes.items()}) for k in range(12)]  # fmt: skip
    assert sum(map(len, [*out, decoder.flush()])) == count


def test_seams_do_not_click(wavtokenizer):
    """At seams the sound may jump no more than it does elsewhere."""
    speech = wavtokenizer.encode(_sound(320 * 160))
    sound = wavtokenizer.decode(speech)
    steps = np.abs(np.diff(sound))
    seams = [(34 + 16 * k) * 320 for k in range(7)]
    at_seams = np.concatenate([steps[s - 2 : s + 2] for s in seams])
    assert at_seams.max() <= steps.max()
    assert at_seams.mean() < 3 * steps.mean()


def test_silence_and_full_scale_stay_finite(codec):
    for sound in (np.zeros(5000, np.float32), np.ones(5000, np.float32),
                  np.sign(_sound(5000)).astype(np.float32)):  # fmt: skip
        assert np.isfinite(codec.decode(codec.encode(sound))).all()


def test_a_long_stream_does_not_drift(wavtokenizer):
    """Equal pieces of periodic sound settle to equal codes, however long the stream."""
    period = _sound(320 * 6, seed=5)
    stream = wavtokenizer.encoder()
    codes = joined([stream.push(period) for _ in range(200)])["codes"][0]
    settled = codes[6 * 20 : 6 * 190].reshape(-1, 6)
    assert (settled == settled[0]).all()


def test_wrong_inputs_are_named(codec):
    with pytest.raises(TensorError, match="mono"):
        codec.encode(np.zeros((2, 100), np.float32))
    with pytest.raises(TensorError, match="not empty"):
        codec.encode(np.zeros(0, np.float32))
    bad = np.zeros(100, np.float32)
    bad[7] = np.nan
    with pytest.raises(TensorError, match="Sample 7"):
        codec.encode(bad)
    speech = codec.encode(_sound(640))
    stream = codec.decoder(speech.voice)
    name, size = codec.format.streams[0].name, codec.format.streams[0].size
    with pytest.raises(TensorError, match=f"0 to {size - 1}"):
        stream.push({**speech.codes, name: np.full_like(speech.codes[name], size)})
    with pytest.raises(TensorError, match=name):
        stream.push({"other": np.zeros((1, 1), np.int64)})
    if codec.format.voice:
        with pytest.raises(TensorError, match="voice"):
            codec.decoder(None)


def test_parts_must_belong_together(tiny_codec, tmp_path):
    name = tiny_codec("wavtokenizer")
    assert list(find_parts(f"{name}-decoder.onnx")) == ["encoder", "decoder"]
    with pytest.raises(ArtifactError, match="no encoder"):
        SpeechCodec.open(tmp_path / "nothing")
    other = tiny_codec("fusecodec")
    mixed = tmp_path / "mixed"
    for part, source in (("encoder", name), ("decoder", other)):
        (tmp_path / f"mixed-{part}.onnx").write_bytes(
            (source.parent / f"{source.name}-{part}.onnx").read_bytes()
        )
    with pytest.raises(ArtifactError, match="other weights"):
        SpeechCodec.open(mixed, "onnxruntime")
    (tmp_path / "mixed-encoder.onnx").write_bytes(
        (name.parent / f"{name.name}-decoder.onnx").read_bytes()
    )
    with pytest.raises(ArtifactError, match="is the decoder"):
        SpeechCodec.open(mixed, "onnxruntime", parts=("encoder",))
    with SpeechCodec.open(name, "onnxruntime", parts=("decoder",)) as half:
        with pytest.raises(UsageError, match="without its encoder"):
            half.encode(_sound(100))


@pytest.mark.parametrize("model", ["wavtokenizer", "fusecodec", "freecodec"])
def test_openvino_gives_the_same(tiny_codec, model):
    """It merges nodes that do nothing into the inputs, whose names it then lists among others."""
    pytest.importorskip("openvino")
    sound = _sound(320 * 40)
    with (
        SpeechCodec.open(tiny_codec(model), "onnxruntime", threads=1) as one,
        SpeechCodec.open(tiny_codec(model), "openvino", threads=1) as other,
    ):
        speech = one.encode(sound)
        got = other.encode(sound)
        for name, codes in speech.codes.items():
            assert (got.codes[name] == codes).mean() > 0.99
        assert _snr(one.decode(speech), other.decode(speech)) > 60
