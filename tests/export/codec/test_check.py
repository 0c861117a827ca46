"""`prunus check` judges every graph of every codec: codes in per cent, sound in decibels."""

import json

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.export.codec.samples import codec_samples
from prunus.runtime.card.artifact import read_card
from prunus.runtime.tasks.codec.codec import find_parts

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("polygraphy")

STATES = ("state_snr_db", "worst_state_snr_db")
UNITS = {
    ("wavtokenizer", "encoder"): {"codes_equal_percent", *STATES},
    ("wavtokenizer", "decoder"): {"snr_db"},
    ("fusecodec", "encoder"): {"codes_equal_percent"},
    ("fusecodec", "decoder"): {"snr_db", *STATES},
    ("freecodec", "encoder"): {"codes_equal_percent"},
    ("freecodec", "decoder"): {"snr_db"},
    ("freecodec", "speaker"): {"snr_db"},
}


@pytest.mark.parametrize(("model", "part"), list(UNITS))
def test_every_graph_passes_in_units_of_its_task(tiny_codec, small_codecs, capsys, model, part):
    path = find_parts(tiny_codec(model))[part]
    assert main(["check", str(path), "--samples", "4", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    text = json.dumps(report)
    for unit in UNITS[model, part]:
        assert unit in text


def test_another_codebook_fails_the_check(tiny_codec, small_codecs, tmp_path, capsys):
    """Weights of another seed: the graph is whole, and the codes are not the reference's."""
    import onnx
    from onnx import numpy_helper

    path = find_parts(tiny_codec("wavtokenizer"))["encoder"]
    model = onnx.load(path)
    largest = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT),
        key=lambda t: int(np.prod(t.dims)),
    )
    values = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(values[::-1].copy(), largest.name))
    onnx.save(model, tmp_path / "other.onnx")
    assert main(["check", str(tmp_path / "other.onnx"), "--samples", "4"]) == 1
    assert "codes_equal_percent" in capsys.readouterr().out


def test_a_recording_is_cut_into_the_windows_of_the_card(tiny_codec, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    sound = np.linspace(-0.5, 0.5, 48000).astype(np.float32)
    soundfile.write(tmp_path / "ramp.wav", sound, 48000, subtype="FLOAT")
    card = read_card(find_parts(tiny_codec("wavtokenizer"))["encoder"])
    samples = codec_samples(card, tmp_path / "ramp.wav", 3)
    audio = samples.arrays["audio"]
    assert audio.shape == (3, card.inputs[0].shape[1]) and samples.source == "ramp.wav"
    flat = audio.reshape(-1)[100:-100]
    assert (np.diff(flat) > 0).mean() > 0.99  # the ramp goes on across windows
