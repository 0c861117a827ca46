"""NsfCodec's files: small without a change, exact as streams, judged in units of codecs."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from prunus.export import nsfcodec
from prunus.export.common.pipeline import run_onnx
from prunus.export.graph.compact import FourierMatrix, compact, expand_weights, stored
from prunus.export.nsfcodec import export_nsfcodec, load_samples, reference_module
from prunus.export.verify.check import check_artifact
from prunus.models.codec.layers.istft import forward_kernel, inverse_kernel
from prunus.models.codec.nsfcodec.nsfcodec import NsfCodecConfig
from prunus.models.codec.nsfcodec.weights import save_nsf, untrained_nsf
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec, joined

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CONFIG = NsfCodecConfig(
    width=64, hidden=96, encoder_blocks=1, decoder_blocks=1, pitch_width=32, stages=2, codes=64,
    dim=16, mel_bands=40, bands=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as the trainer writes it, of a small network whose vectors all differ."""
    path = tmp_path_factory.mktemp("weights") / "codec.safetensors"
    state = untrained_nsf(5, CONFIG).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.dim() == 1 and "codebook" not in name:
            state[name] = value + 0.01 * torch.randn(value.shape, generator=generator)
    save_nsf(state, CONFIG, {"origin": "made up", "licence": "Apache-2.0"}, path)
    return path


@pytest.fixture(scope="module")
def name(weights, tmp_path_factory):
    """NAME of small files."""
    target = tmp_path_factory.mktemp("codec") / "small"
    export_nsfcodec(checkpoint=weights, small=True, output=target)
    return target


@pytest.fixture(scope="module")
def codec(name):
    with SpeechCodec.open(name, "onnxruntime", threads=1) as opened:
        yield opened


def _sound(count, seed=0):
    rng = np.random.default_rng(seed)
    frames = -(-count // 320)
    level = 10.0 ** (-2.5 * rng.random((frames, 1)))
    return (0.2 * level * rng.standard_normal((frames, 320))).reshape(-1)[:count].astype("f")


def _graph(name, part):
    return onnx.load(f"{name}-{part}.onnx")


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=12), st.integers(0, 99))
def test_any_schedule_gives_the_offline_network(codec, weights, sizes, seed):
    network = nsfcodec.load_nsf(weights)[0]
    sound = _sound(sum(sizes) + 1, seed)
    with torch.no_grad():
        pitch, codes = network.encode(torch.from_numpy(sound)[None])
        said = network.decode(pitch, codes)[0].numpy()
    stream, pieces, at = codec.encoder(), [], 0
    for size in [*sizes, 1]:
        pieces.append(stream.push(sound[at : at + size]))
        at += size
    found = joined([*pieces, stream.flush()])
    assert np.array_equal(found["pitch"], pitch.numpy())
    assert np.array_equal(found["codes"], codes[:, 0].numpy())
    speaker, out, at = codec.decoder(), [], 0
    for size in [*(size % 7 for size in sizes), found["pitch"].shape[1]]:
        out.append(speaker.push({n: c[:, at : at + size] for n, c in found.items()}))
        at += size
    got = np.concatenate([*out, speaker.flush()])
    assert got.shape == said.shape
    np.testing.assert_allclose(got, said, atol=2e-5)


def test_lengths_rate_and_delay_are_declared(codec):
    assert codec.format.bits_per_second == 50 * (8 + 2 * 6)
    assert codec.encoder().latency == codec.decoder().latency == 320
    for count in (1, 319, 320, 321, 4000):
        speech = codec.encode(_sound(count))
        assert codec.decode(speech).shape == (count,)


def test_silence_and_full_scale_stay_finite(codec):
    for sound in (np.zeros(4000), np.ones(4000), np.sign(_sound(4000))):
        out = codec.decode(codec.encode(sound.astype(np.float32)))
        assert np.isfinite(out).all() and np.abs(out).max() <= 1


def test_small_files_hold_the_same_numbers(name, weights, tmp_path):
    plain = export_nsfcodec(checkpoint=weights, output=tmp_path / "plain")
    for path, part in zip(plain, ("encoder", "decoder"), strict=True):
        small = _graph(name, part)
        assert small.ByteSize() < 0.5 * path.stat().st_size
        whole = onnx.load(str(path))
        card = read_card(f"{name}-{part}.onnx")
        assert card == read_card(path)
        samples = load_samples(card, limit=8)
        one, two = run_onnx(whole, samples), run_onnx(small, samples)
        for key, values in one.items():
            if values.dtype.kind == "i":
                assert np.array_equal(values, two[key]), key
            else:
                np.testing.assert_allclose(values, two[key], atol=3e-5, err_msg=key)


@pytest.mark.parametrize("inverse", [False, True])
def test_fourier_matrices_are_computed(inverse):
    kernel = (inverse_kernel(480) * 0.5 if inverse else forward_kernel(480)).numpy()
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Conv", ["x", "matrix"], ["y"])],
            "one",
            [onnx.helper.make_tensor_value_info("x", 1, [1, 1, 480])],
            [onnx.helper.make_tensor_value_info("y", 1, [1, 482, 1])],
            [numpy_helper.from_array(kernel, "matrix")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    small = compact(model, {"matrix": FourierMatrix(480, inverse, 0.5 if inverse else 1.0)})
    assert small.ByteSize() < 0.02 * model.ByteSize()
    import onnxruntime

    sound = _sound(480).reshape(1, 1, 480)
    outputs = [
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": sound})[0]
        for m in (model, small)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-5 * np.abs(outputs[0]).max())
    assert stored(small, "matrix") is None


def test_constants_that_do_not_fit_stay_as_they_are():
    odd = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([], "one", [], [], [numpy_helper.from_array(odd, "odd")])
    )
    assert np.array_equal(stored(compact(model), "odd"), odd)
    assert [t.name for t in compact(model).graph.initializer] == ["odd"]
    assert stored(model, "other") is None


def test_engines_are_built_from_the_same_numbers(name, tmp_path):
    for part in ("encoder", "decoder"):
        path, target = f"{name}-{part}.onnx", tmp_path / f"{part}.onnx"
        assert expand_weights(path, target)
        wide = onnx.load(str(target))
        onnx.checker.check_model(wide, full_check=True)
        assert not [t for t in wide.graph.initializer if t.data_type == onnx.TensorProto.INT8]
        samples = load_samples(read_card(path), limit=6)
        one, two = run_onnx(_graph(name, part), samples), run_onnx(wide, samples)
        assert all(np.array_equal(one[key], two[key]) for key in one)
        assert not expand_weights(target, tmp_path / "again.onnx")


def test_weights_come_back_from_the_files(name, weights):
    graphs = (_graph(name, "encoder"), _graph(name, "decoder"))
    network = nsfcodec.load_nsf(weights)[0]
    for key, value in network.state_dict().items():
        if not key.endswith(("cluster_size", "inited", "embed_avg")):
            assert torch.equal(nsfcodec._weight(graphs, key), value), key


def test_openvino_keeps_float32_although_weights_are_stored_in_8_bits(name, weights):
    pytest.importorskip("openvino")
    for part in ("encoder", "decoder"):
        path = f"{name}-{part}.onnx"
        report = check_artifact(path, checkpoint=weights, limit=8, backends=("openvino",))
        report.raise_if_failed()
    sound = _sound(6000)
    with (
        SpeechCodec.open(name, "openvino", threads=1) as one,
        SpeechCodec.open(name, "onnxruntime", threads=1) as two,
    ):
        expected = two.encode(sound)
        assert np.array_equal(one.encode(sound).codes["codes"], expected.codes["codes"])
        np.testing.assert_allclose(one.decode(expected), two.decode(expected), atol=1e-4)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_check_judges_both_graphs_and_notices_other_weights(name, weights, part, tmp_path):
    path = f"{name}-{part}.onnx"
    report = check_artifact(path, checkpoint=weights, limit=12)
    report.raise_if_failed()
    assert part == "decoder" or "24 of 24 codes equal" in report.to_text()
    other = tmp_path / "other.safetensors"
    save_nsf(untrained_nsf(6, CONFIG).state_dict(), CONFIG, {}, other)
    with pytest.raises(ArtifactError, match="was exported from"):
        reference_module(read_card(path), other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_stay_within_their_budgets(weights, tmp_path, precision):
    paths = export_nsfcodec(checkpoint=weights, precision=precision, output=tmp_path / "low")
    assert [read_card(p).precision.precision for p in paths] == (
        ["fp16", "fp16"] if precision == "fp16" else ["fp32", "int8"]
    )


@pytest.mark.slow
def test_steps_may_hold_more_frames(weights, tmp_path, codec):
    export_nsfcodec(checkpoint=weights, step=3, output=tmp_path / "three")
    sound = _sound(10000)
    with SpeechCodec.open(tmp_path / "three", "onnxruntime", threads=1) as longer:
        one, three = codec.encode(sound), longer.encode(sound)
        for key, values in one.codes.items():
            assert np.array_equal(values, three.codes[key])
        np.testing.assert_allclose(codec.decode(one), longer.decode(three), atol=2e-5)


def test_wrong_requests_are_named(weights, tmp_path):
    with pytest.raises(UsageError, match="small"):
        export_nsfcodec(checkpoint=weights, small=True, precision="int8", output=tmp_path / "a")
    with pytest.raises(UsageError, match="0 frames"):
        export_nsfcodec(checkpoint=weights, step=0, output=tmp_path / "a")
    with pytest.raises(ArtifactError, match="no weights"):
        export_nsfcodec(checkpoint=tmp_path / "none", output=tmp_path / "a")
    assert not list(tmp_path.iterdir())
