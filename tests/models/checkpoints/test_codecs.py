"""Published layouts of codecs, on synthetic files with the published names."""

import json

import pytest
import torch
from safetensors.torch import save_file

from prunus.models.checkpoints import codecs
from prunus.models.checkpoints.codecs import convert_codec, import_codec, load_codec, read_rules
from prunus.models.codec import wavtokenizer
from prunus.models.codec.freecodec import freecodec
from prunus.models.codec.freecodec.freecodec import FreeCodec, FreeCodecConfig
from prunus.models.codec.freecodec.supercodec import SuperCodecConfig
from prunus.models.codec.fusecodec import speechtokenizer
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.models.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig
from prunus.runtime.errors import ArtifactError, UsageError

TINY = {
    "tok75": WavTokenizerConfig("tok75", (2, 2, 2, 2), 16000, 32, 16, 2, 32, 48, 1),
    "tok40": WavTokenizerConfig("tok40", (2, 2, 2, 3), 16000, 32, 16, 2, 32, 48, 1),
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """Replace the published sizes by tiny ones: names are the same, and so is the code."""
    monkeypatch.setattr(codecs, "CONFIGS", TINY)
    small = SpeechTokenizerConfig(base=2, dim=32, codes=16, stages=2, semantic=8)
    free = FreeCodecConfig(
        content=SuperCodecConfig((2, 4, 5, 8), 1, 16, 8, 2, (1, 2, 2, 2)),
        prosody_codes=8, speaker_dim=16, timbre_dim=8, width=8, heads=2, layers=1, blocks=1,
    )  # fmt: skip
    monkeypatch.setattr(codecs, "SpeechTokenizer", lambda: SpeechTokenizer(small))
    monkeypatch.setattr(codecs, "FreeCodec", lambda: FreeCodec(free))
    assert wavtokenizer and speechtokenizer and freecodec


def _noisy(network):
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not name.endswith("window"):
                value.add_(0.1 * torch.randn_like(value))
    return network.eval()


def _training_file(network):
    """Return what a published training checkpoint holds besides the network."""
    state = dict(network.state_dict())
    state["feature_extractor.encodec.decoder.model.0.conv.conv.bias"] = torch.zeros(3)
    state["multiperioddisc.discriminators.0.convs.0.weight"] = torch.zeros(2)
    return {"state_dict": state, "epoch": 3}


@pytest.mark.parametrize("variant", ["tok75", "tok40"])
def test_wavtokenizer_finds_its_variant_and_drops_what_is_unused(variant, tmp_path):
    network = _noisy(WavTokenizer(TINY[variant]))
    torch.save(_training_file(network), tmp_path / "w.ckpt")
    imported = import_codec(tmp_path / "w.ckpt", tmp_path / "w.safetensors", model="wavtokenizer")
    assert imported.variant == variant and len(imported.dropped) == 2 and not imported.fresh
    assert not [n for n in imported.state if "weight_g" in n]
    loaded, found, about = load_codec(tmp_path / "w.safetensors", "wavtokenizer")
    assert found == variant and len(about["source_sha256"]) == 64
    audio = torch.randn(1, 480) * 0.1
    with torch.no_grad():
        expected, codes = network.encode(audio)
        got, same = loaded.encode(audio)
        assert torch.equal(codes, same)
        for row in (0, 3):
            torch.testing.assert_close(
                loaded.decode(got, row), network.decode(expected, row), atol=1e-5, rtol=1e-4
            )


def test_both_spellings_of_weight_norm_and_module_prefixes():
    network = _noisy(SpeechTokenizer(codecs.SpeechTokenizer().config))
    state = network.state_dict()
    new = {
        "module."
        + n.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): v
        for n, v in state.items()
    }
    old, renamed = convert_codec(state, "fusecodec"), convert_codec(new, "fusecodec")
    assert old.state.keys() == renamed.state.keys()
    assert all(torch.equal(old.state[n], renamed.state[n]) for n in old.state)


def test_parts_of_freecodec_start_the_rest_fresh():
    network = _noisy(codecs.FreeCodec())
    whole = network.state_dict()
    speaker = {n.removeprefix("timbre."): v for n, v in whole.items() if n.startswith("timbre.")}
    imported = convert_codec(speaker, "freecodec")
    assert torch.equal(imported.state["timbre.fc.conv.bias"], whole["timbre.fc.conv.bias"])
    assert imported.fresh and not [n for n in imported.fresh if n.startswith("timbre.")]
    places = (("content.encoder.", "encoder."), ("content.rq.", "rq."),
              ("decoder.upsampler.", "decoder."))  # fmt: skip
    content = {b + n.removeprefix(a): v for n, v in whole.items() for a, b in places
               if n.startswith(a)}  # fmt: skip
    imported = convert_codec(content, "freecodec")
    assert not [n for n in imported.fresh if n.startswith(("content.", "decoder.upsampler."))]
    assert convert_codec(whole, "freecodec").fresh == ()


def test_name_rules_are_the_way_in_for_other_names(tmp_path):
    network = _noisy(codecs.FreeCodec())
    state = network.state_dict()
    foreign = {n.replace("timbre.", "spk_encoder.") if n.startswith("timbre.") else n: v
               for n, v in state.items()}  # fmt: skip
    with pytest.raises(UsageError, match=r"unexpected: spk_encoder"):
        convert_codec(foreign, "freecodec")
    (tmp_path / "rules.json").write_text(json.dumps({r"spk_encoder\.": "timbre."}))
    rules = read_rules(tmp_path / "rules.json")
    assert convert_codec(foreign, "freecodec", names=rules).fresh == ()
    (tmp_path / "rules.json").write_text('{"(": "x"}')
    with pytest.raises(UsageError, match="name rules"):
        read_rules(tmp_path / "rules.json")
    with pytest.raises(UsageError, match="renamed"):
        convert_codec(foreign, "freecodec", names=[(".*", "one")])


def test_every_difference_is_in_one_message():
    state = dict(_noisy(SpeechTokenizer(codecs.SpeechTokenizer().config)).state_dict())
    state.pop("transform.bias")
    state["extra.weight"] = torch.zeros(2)
    state["transform.weight"] = torch.zeros(1, 1)
    with pytest.raises(UsageError) as caught:
        convert_codec(state, "fusecodec")
    message = caught.value.message
    assert "missing: transform.bias" in message and "unexpected: extra.weight" in message
    assert "transform.weight is [1, 1], expected" in message


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no head"):
        convert_codec({"head.in.bias": torch.zeros(3)}, "wavtokenizer")
    with pytest.raises(UsageError, match="Unknown codec"):
        convert_codec({"a": torch.zeros(1)}, "wavtokeniser")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="not made by"):
        load_codec(tmp_path / "a.safetensors", "fusecodec")
    with pytest.raises(UsageError, match="does not fit"):
        convert_codec({"unknown": torch.zeros(1)}, "freecodec")
