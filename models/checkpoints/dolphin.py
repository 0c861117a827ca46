"""Strict import of Dolphin's released weights (arXiv 2509.23610).

The release is a folder with ``config.json`` (the constructor's arguments) and ``model.safetensors``
(a float32 state dict). Its own loader skips what does not fit without a word; this one refuses it,
all of it in one message.

The released *weights* are not cleared for commercial or production use by their authors (the lip
coder was distilled from AV-HuBERT and trained on LRS2, LRS3 and VoxCeleb2). prunus ships none: a
user brings the files, and every card made from them says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.models.checkpoints.fit import listed, require_fit, save_imported
from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.checkpoints.registry import Importer, ImportOptions
from prunus.models.separation.config import DolphinConfig, dolphin_config
from prunus.models.separation.dolphin import Dolphin
from prunus.runtime.errors import ArtifactError, UsageError, nearest

LICENCE = "weights: see their authors; not cleared for commercial use"
_INITTED = "video_encoder.semantic_model.quantizer.layers.0._codebook.initted"
_TITLES = ("model_type", "task", "framework", "license", "tags", "architectures", "auto_map")
# The released configuration, as dotted names; an Ellipsis marks what inference does not read.
_RELEASED: Mapping[str, Any] = {
    "num_stages": 4,
    "sample_rate": 16000,
    "vpre_channels": 3872,
    "vmid_channels": ...,
    "vin_channels": 64,
    "vout_channels": 64,
    "module_audio_enc.in_channels": 1,
    "module_audio_enc.out_channels": 256,
    "module_audio_enc.kernel_size": 16,
    "module_audio_enc.stride": 4,
    "module_audio_enc.groups": 1,
    "module_audio_enc.bias": False,
    "module_feature_projector.num_channels": 256,
    "module_feature_projector.in_channels": 256,
    "module_feature_projector.out_channels": 128,
    "module_feature_projector.kernel_size": 1,
    "module_feature_projector.bias": False,
    "module_separator.num_stages": 4,
    "module_separator.relative_positional_encoding.in_channels": 128,
    "module_separator.relative_positional_encoding.num_heads": 8,
    "module_separator.relative_positional_encoding.maxlen": 2000,
    "module_separator.relative_positional_encoding.embed_v": False,
    "module_separator.enc_stage.global_blocks.in_channels": 128,
    "module_separator.enc_stage.global_blocks.num_mha_heads": 8,
    "module_separator.enc_stage.global_blocks.dropout_rate": ...,
    "module_separator.enc_stage.local_blocks.in_channels": 128,
    "module_separator.enc_stage.local_blocks.kernel_size": 65,
    "module_separator.enc_stage.local_blocks.dropout_rate": ...,
    "module_separator.enc_stage.down_conv_layer.in_channels": 128,
    "module_separator.enc_stage.down_conv_layer.samp_kernel_size": 5,
    "module_separator.dec_stage.global_blocks.in_channels": 128,
    "module_separator.dec_stage.global_blocks.num_mha_heads": 8,
    "module_separator.dec_stage.global_blocks.dropout_rate": ...,
    "module_separator.dec_stage.local_blocks.in_channels": 128,
    "module_separator.dec_stage.local_blocks.kernel_size": 65,
    "module_separator.dec_stage.local_blocks.dropout_rate": ...,
    "module_separator.dec_stage.spk_attention": ...,
    "module_separator.simple_fusion.out_channels": 128,
    "module_output_layer.in_channels": 256,
    "module_output_layer.out_channels": 128,
    "module_output_layer.masking": False,
    "module_audio_dec.in_channels": 256,
    "module_audio_dec.out_channels": 1,
    "module_audio_dec.kernel_size": 16,
    "module_audio_dec.stride": 4,
    "module_audio_dec.bias": False,
    "video_encoder_params": ...,
}
_OPTIONAL = ("module_output_layer.masking",)


@dataclass(frozen=True, slots=True)
class ImportedDolphin:
    """A checkpoint as prunus reads it.

    Attributes:
        config: The network.
        state: Complete state dict of `Dolphin(config)`.
        described: True when a ``config.json`` lay beside the weights and agreed.
    """

    config: DolphinConfig
    state: dict[str, Tensor]
    described: bool


def convert_dolphin(state: Mapping[str, Tensor], config: DolphinConfig) -> dict[str, Tensor]:
    """Return a state dict that `Dolphin(config)` loads strictly.

    Args:
        state: Names of the release; ``initted`` may be a float of shape [1] or a bool scalar, as
            versions of the quantiser's library differ.
        config: The network to fill.

    Raises:
        UsageError: missing, unexpected or mismatched entries, all of them listed.
    """
    with torch.device("meta"):
        own = Dolphin(config).state_dict()
    given = dict(state)
    if _INITTED in given and given[_INITTED].numel() == 1:
        given[_INITTED] = given[_INITTED].reshape(1).float()
    require_fit(
        own,
        given,
        f"Dolphin-{config.variant}",
        fresh=[n for n in own if n.endswith("num_batches_tracked")],
        advice=lambda wrong: "Choose the variant that it was trained with (base is the released).",
    )
    if not bool(given[_INITTED].item()):
        raise UsageError("The checkpoint's codebook was never initialised.", "Train it first.")
    counters = {n: torch.zeros(v.shape, dtype=v.dtype) for n, v in own.items() if n not in given}
    return {n: given.get(n, counters.get(n, v)).to(v.dtype).contiguous() for n, v in own.items()}


def read_dolphin(source: str | Path, variant: str = "base") -> ImportedDolphin:
    """Read released weights.

    Args:
        source: The folder of the release, or its weights file; a ``config.json`` beside the file is
            read too.
        variant: ``base`` or ``nano``.

    Raises:
        ArtifactError: a file that cannot be read.
        UsageError: weights or a configuration that do not fit.
    """
    weights = weights_file(source)
    config = dolphin_config(variant)
    beside = weights.with_name("config.json")
    described = variant == "base" and beside.is_file()
    if described:
        check_config(beside)
    return ImportedDolphin(config, convert_dolphin(read_checkpoint(weights), config), described)


def weights_file(source: str | Path) -> Path:
    """Return the weights of a release's folder, or the file itself.

    Raises:
        ArtifactError: the folder holds none.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    inside = path / "model.safetensors"
    if not inside.is_file():
        raise ArtifactError(f"{path} holds no model.safetensors.", "Give the weights file itself.")
    return inside


def check_config(path: str | Path) -> None:
    """Compare a ``config.json`` with the released configuration.

    Raises:
        ArtifactError: not JSON.
        UsageError: an unknown, missing or different setting, named.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"Cannot read {path}: {error}.", "Download it again.") from None
    if not isinstance(raw, dict):
        raise ArtifactError(f"{path} holds a {type(raw).__name__}; expected an object.")
    found = _flatten({k: v for k, v in raw.items() if k not in _TITLES})
    for name, value in found.items():
        if name not in _RELEASED:
            raise UsageError(
                f"{path} has the unknown setting '{name}'{nearest(name, list(_RELEASED))}.",
                "Only the released configuration of Dolphin is known.",
            )
        expected = _RELEASED[name]
        if expected is not ... and value != expected:
            raise UsageError(
                f"{path} has {name} = {value!r}; the released Dolphin has {expected!r}.",
                "Only the released configuration of Dolphin is known.",
            )
    lost = [n for n, v in _RELEASED.items() if v is not ... and n not in found]
    lost = [n for n in lost if n not in _OPTIONAL]
    if lost:
        raise UsageError(f"{path} lacks {listed('settings', lost)}.", "Download it again.")


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in _RELEASED:
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def import_checkpoint(
    source: str | Path, target: str | Path, *, variant: str = "base"
) -> ImportedDolphin:
    """Turn released weights into one safetensors file that says where it came from.

    Raises:
        ArtifactError: a file that cannot be read.
        UsageError: weights or a configuration that do not fit.
    """
    imported = read_dolphin(source, variant)
    about = {"licence": LICENCE, "model": "dolphin", "variant": variant}
    save_imported(imported.state, weights_file(source), target, about)
    return imported


def read_in(
    checkpoint: Path, target: Path, importer: Importer, options: ImportOptions
) -> tuple[str, str]:
    """Import a file or folder for `prunus.models.checkpoints.registry`."""
    variant = options.variant or "base"
    imported = import_checkpoint(checkpoint, target, variant=variant)
    agreed = ", its config.json agrees" if imported.described else ""
    return (
        f"Dolphin-{variant}{agreed}; {LICENCE}",
        f"dolphin --variant {variant} --checkpoint {target}",
    )
