"""Released files come in whole or not at all."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunus.models.checkpoints import dolphin
from prunus.models.separation.config import dolphin_config
from prunus.models.separation.dolphin import build_dolphin
from prunus.runtime.errors import ArtifactError, UsageError


@pytest.fixture(scope="module")
def state():
    net = build_dolphin(dolphin_config("nano"), seed=3)
    return {k: v.clone() for k, v in net.state_dict().items()}


def _released_config():
    """Build config.json as the release nests it."""
    nested = {"license": "x", "tags": ["y"], "model_type": "dolphin", "auto_map": {"a": "b"}}
    for name, value in dolphin._RELEASED.items():
        place = nested
        *parents, last = name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = {"layers": ["residual"], "flash_attn": True} if value is ... else value
    return nested


def test_a_complete_file_is_imported_bit_for_bit(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    imported = dolphin.import_checkpoint(tmp_path, tmp_path / "out.safetensors", variant="nano")
    written = load_file(tmp_path / "out.safetensors")
    assert set(written) == set(state) and not imported.described
    assert all(torch.equal(written[k], v) for k, v in state.items())
    build_dolphin(imported.config).load_state_dict(imported.state, strict=True)
    with safe_open(tmp_path / "out.safetensors", "pt") as handle:
        about = json.loads(handle.metadata()["prunus"])
    assert about["variant"] == "nano" and "not cleared" in about["licence"]
    assert len(about["source_sha256"]) == 64


def test_both_forms_of_the_flag_are_read(state):
    config = dolphin_config("nano")
    other = dict(state)
    other[dolphin._INITTED] = torch.tensor(True)
    assert dolphin.convert_dolphin(other, config)[dolphin._INITTED].shape == (1,)
    other[dolphin._INITTED] = torch.tensor(False)
    with pytest.raises(UsageError, match="never initialised"):
        dolphin.convert_dolphin(other, config)


def test_every_difference_is_named_at_once(state):
    wrong = dict(state)
    del wrong["pre_v1.conv.bias"]
    wrong["extra.weight"] = torch.zeros(1)
    wrong["audio_decoder.weight"] = torch.zeros(1, 1, 16)
    with pytest.raises(UsageError) as caught:
        dolphin.convert_dolphin(wrong, dolphin_config("nano"))
    for part in ("pre_v1.conv.bias", "extra.weight", "audio_decoder.weight is [1, 1, 16]"):
        assert part in str(caught.value)


def test_weights_of_another_size_are_refused(state):
    with pytest.raises(UsageError, match="does not fit Dolphin-base"):
        dolphin.convert_dolphin(state, dolphin_config("base"))


def test_counters_of_norms_may_be_missing(state):
    light = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    converted = dolphin.convert_dolphin(light, dolphin_config("nano"))
    assert set(converted) == set(state)


def test_the_released_configuration_is_accepted_and_others_are_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(_released_config()))
    dolphin.check_config(path)
    for change, words in (
        ({"num_stages": 5}, "num_stages = 5"),
        ({"num_stagse": 4}, "num_stages"),
        ({"module_separator": {}}, "lacks"),
    ):
        path.write_text(json.dumps(_released_config() | change))
        with pytest.raises(UsageError, match=words):
            dolphin.check_config(path)
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match="expected an object"):
        dolphin.check_config(path)


def test_the_released_configuration_is_the_base_variant():
    config, released = dolphin_config("base"), dolphin._RELEASED
    assert config.lips.features == released["vpre_channels"]
    assert config.sample_rate == released["sample_rate"]
    assert config.audio_channels == released["module_audio_enc.out_channels"]
    assert config.max_positions == released["module_separator.relative_positional_encoding.maxlen"]
    assert config.local_kernel == released["module_separator.enc_stage.local_blocks.kernel_size"]


def test_folders_without_weights_are_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        dolphin.read_dolphin(tmp_path)


def test_the_command_line_imports_a_release(tmp_path, state, capsys):
    from prunus.apps.cli.main import main

    save_file(state, tmp_path / "model.safetensors")
    target = tmp_path / "mine.safetensors"
    words = ["import", str(tmp_path), "--model", "dolphin", "--variant", "nano", "-o", str(target)]
    code, told = main(["models", *words]), capsys.readouterr()
    assert code == 0, told.err
    assert "not cleared for commercial use" in told.out
    assert "prunus export dolphin --variant nano" in told.out
    assert torch.equal(load_file(target)["pre_v1.conv.bias"], state["pre_v1.conv.bias"])
