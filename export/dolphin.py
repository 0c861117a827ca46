"""Export Dolphin: one graph for the lips, one for the voice, of a fixed length.

Run as ``python -m prunus.export.dolphin --help`` or as ``prunus export dolphin``. Heat diffusion
becomes a short depthwise filter (`prunus.models.separation.voice.heat`); what that costs is on
the card.
Weights of nano ship; for the published size random ones are for speed and memory only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from prunus.export.common.options import require_fp32, takes
from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    exporter_name,
    require_writable,
)
from prunus.export.common.samples import Samples
from prunus.export.graph.compact import compact_file
from prunus.export.separation.options import DolphinOptions, Part
from prunus.export.separation.samples import separation_samples
from prunus.export.separation.weights import (
    SeparatorWeights,
    apply_weights,
    find_weights,
    weights_of,
)
from prunus.models.separation.channels_first import GlobalNorm
from prunus.models.separation.config import MAX_RADIUS, DolphinConfig, dolphin_config
from prunus.models.separation.deployed import DeployedLips, DeployedVoice, ExactVoice
from prunus.models.separation.dolphin import LIP_REACH, Dolphin, build_dolphin
from prunus.models.separation.lips.coder import LipQuantizer
from prunus.models.separation.lips.layers import LinearAttention, RMSNorm, SqueezeExcite
from prunus.models.separation.voice.heat_layer import HeatLayer, network_gain_error, set_heat
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)
from prunus.runtime.tasks.separation.metric import snr_db

PARTS: tuple[Part, ...] = ("lips", "voice")
PAPER = "arXiv 2509.23610"
SECONDS = (0.4, 8.0)
# Windows that are made at least, and those of them, spread, on which an export is compared with
# PyTorch; one has thousands of samples. int8 takes more, half of which calibrate.
_MADE, _JUDGED, _INT8_WINDOWS = 4, 2, 8
# Sums over thousands of values, epsilons below half's range, and the search of the nearest code.
_FLOAT32 = (GlobalNorm, RMSNorm, LinearAttention, SqueezeExcite, LipQuantizer)


@takes(DolphinOptions)
def export_dolphin(options: DolphinOptions, progress: Progress) -> list[Path]:
    """Export Dolphin as self-describing ONNX files ``NAME-lips.onnx`` and ``NAME-voice.onnx``.

    int8 is for the voice, and there for what bears it, see `kept_modules`: rounding in the lip
    coder turns into other codes, so it stays float32.

    Args:
        options: See `DolphinOptions`; its fields may be given by name instead.
        progress: Told about each graph.

    Returns:
        The files, lips first.

    Raises:
        UsageError: an option that cannot be, such as small files in another number format.
        PrunusError: see `export_artifact`.
    """
    require_fp32(options.small, options.precision)
    config = replace(dolphin_config(options.variant), token_step=options.token_step)
    if options.heat_radius is not None:
        config = replace(config, heat_radius=options.heat_radius)
    frames = {
        "voice": frames_of(options.seconds, config),
        "lips": frames_of(options.lip_seconds, config),
    }
    parts = [part for part in PARTS if not options.parts or part in options.parts]
    paths = [
        path_of(options.output, config, options.seconds, options.precision, part) for part in parts
    ]
    for path in paths:
        require_writable(path)
    weights = find_weights(config, options.weights.checkpoint, options.weights.seed)
    network = build_network(config, weights)
    for k, (part, path) in enumerate(zip(parts, paths, strict=True)):
        progress.update(k, len(parts), part)
        card = build_card(config, weights, part, frames[part])
        chosen = "fp32" if part == "lips" and options.precision == "int8" else options.precision
        count = _INT8_WINDOWS if chosen == "int8" else _JUDGED
        made = max(count, _MADE)
        seen = _features(network, weights, config, frames[part], made) if part == "voice" else None
        data = separation_samples(card, options.calibration, made, seen).first(count)
        if part == "voice":
            card = _with_costs(card, network, config, weights, data)
        module = deployed(network, part, rewrite=options.rewrite)
        how = ExportOptions(chosen, keep_fp32=kept_modules(module, chosen), exact=_exact(module))
        export_artifact(module, card, data, path, options=how)
        if options.small:
            compact_file(path)
    progress.update(len(parts), len(parts), "done")
    return paths


def frames_of(seconds: float, config: DolphinConfig) -> int:
    """Return the video frames of a window; raises UsageError for a length that cannot be."""
    frames = round(seconds * config.frame_rate)
    shortest, longest = SECONDS
    if not shortest <= seconds <= longest or abs(frames / config.frame_rate - seconds) > 1e-6:
        raise UsageError(
            f"Got a window of {seconds:g} s; expected {shortest:g} to {longest:g} s in steps of "
            f"{1 / config.frame_rate:g} s.",
            "The network was trained on clips of 2 to 4 s: keep near them.",
        )
    return frames


def path_of(
    output: str | Path | None, config: DolphinConfig, seconds: float, precision: str, part: str
) -> Path:
    """Return where a graph goes."""
    if output is None:
        coarse = f"-T{config.token_step}" if config.token_step > 1 else ""
        output = f"dolphin-{config.variant}-{seconds:g}s{coarse}-{precision}"
    return Path(f"{str(output).removesuffix('.onnx')}-{part}.onnx")


def build_network(config: DolphinConfig, weights: SeparatorWeights) -> Dolphin:
    """Build the network with its weights, in evaluation mode."""
    network = build_dolphin(config, max(weights.seed, 0))
    apply_weights(network, weights)
    return network


def deployed(network: Dolphin, part: Part, *, rewrite: bool = True) -> nn.Module:
    """Return the module of one graph, in evaluation mode; see `export_dolphin` for `rewrite`."""
    if part == "lips":
        return DeployedLips(network, by_frames=rewrite).eval()
    return DeployedVoice(network, plane=rewrite).eval()


def kept_modules(module: nn.Module, precision: str) -> tuple[str, ...]:
    """Return the names of the outermost modules that stay float32 in a precision.

    int8 is for the feed-forward parts of the last decoder step: they run at the full frame rate,
    which makes them the largest share of the work, and nothing amplifies their rounding. On nano
    with untrained weights they leave 41 dB SNR; all feed-forward parts together leave 7 dB.

    fp16 spares the heat layers of the encoder, whose error every later block repeats: 34 dB instead
    of 32, as measured on the same network.
    """
    if precision == "fp32":
        return ()
    found: list[str] = []
    for name, child in module.named_modules():
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        early = isinstance(child, HeatLayer) and ".enc_stages." in name
        if isinstance(child, _FLOAT32) or (early and precision == "fp16"):
            found.append(name)
        elif precision == "int8" and name:
            inside = _in_last_step(module, name)
            leads = any(_in_last_step(module, f"{name}.{inner}") for inner, _ in _parts(child))
            depthwise = isinstance(child, nn.Conv1d) and child.groups > 1
            if depthwise or not (inside or leads):
                found.append(name)
    return tuple(found)


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in module.named_modules() if name]


def _in_last_step(module: nn.Module, name: str) -> bool:
    """Return whether a module is a feed-forward part of the last decoder step, or inside one."""
    voice = cast(DeployedVoice, module)
    last = len(voice.network.separator.dec_stages) - 1
    inside = name.startswith(f"network.separator.dec_stages.{last}.")
    return inside and "FFN" in name.split(".")


def _features(
    network: Dolphin, weights: SeparatorWeights, config: DolphinConfig, frames: int, count: int
) -> Any:
    """Return what the lip coder sees in drawn mouths, (n, V, F) float32."""
    mouths = separation_samples(build_card(config, weights, "lips", frames), None, count)
    coder = DeployedLips(network).eval()
    with torch.no_grad():
        found = [coder(torch.from_numpy(clip[None]))[0].numpy() for clip in mouths["mouth"]]
    return np.concatenate(found)


def _with_costs(
    card: ModelCard,
    network: Dolphin,
    config: DolphinConfig,
    weights: SeparatorWeights,
    data: Samples,
) -> ModelCard:
    """Return the card with what short filters and coarser tokens cost at the output, in dB."""
    post = cast(SeparatorPostprocess, card.postprocess)
    feed = [torch.from_numpy(data[spec.name][:1]) for spec in card.inputs]
    short = _voice(network, feed)
    set_heat(network, "filter", MAX_RADIUS)
    wide = _voice(network, feed)
    set_heat(network, "filter", config.heat_radius)
    error = network_gain_error(network, config.heat_radius)
    post = replace(post, heat_gain_error=float(f"{error:.3g}"), heat_snr_db=_decibels(wide, short))
    if config.token_step > 1:
        plain = build_network(replace(config, token_step=1), weights)
        post = replace(post, token_snr_db=_decibels(_voice(plain, feed), short))
    return replace(card, postprocess=post)


def _voice(network: Dolphin, feed: Sequence[torch.Tensor]) -> Any:
    with torch.no_grad():
        return DeployedVoice(network).eval()(*feed).numpy()


def _decibels(expected: Any, got: Any) -> float:
    return round(min(snr_db(expected, got), 200.0), 1)


def approximations(paths: Sequence[Path]) -> list[str]:
    """Return one line per approximation that a card names."""
    lines = []
    for path in paths:
        card = read_card(path)
        post = card.postprocess
        if not isinstance(post, SeparatorPostprocess) or post.part != "voice":
            continue
        lines.append(
            f"heat filters of radius {post.heat_radius}: gain off by {post.heat_gain_error:.2g} at "
            f"most, the voice by {post.heat_snr_db:g} dB SNR"
        )
        if post.token_step > 1:
            about = "" if card.weights.trained else "; UNTRAINED weights: no measure of SI-SDR"
            lines.append(
                f"tokens {post.token_step} times coarser: {post.token_snr_db:g} dB SNR of the "
                f"voice against the network's own tokens{about}"
            )
    return lines


def build_card(
    config: DolphinConfig, weights: SeparatorWeights, part: Part, frames: int
) -> ModelCard:
    """Describe one graph; number formats are filled in by the pipeline."""
    samples = frames * config.sample_rate // config.frame_rate
    lips = TensorSpec(
        "lips", "float32", (1, config.video_channels, frames), ("batch", "channel", "frame")
    )
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: MouthPreprocess | MixturePreprocess
    if part == "lips":
        size = config.lips.image
        crops = TensorSpec(
            "mouth", "uint8", (1, frames, size, size), ("batch", "frame", "row", "column"),
            "intensity", 0.0, 255.0,
        )  # fmt: skip
        last = float(config.lips.codes - 1)
        codes = TensorSpec("codes", "int64", (1, frames), ("batch", "frame"), "index", 0.0, last)
        inputs, outputs = (crops,), (lips, codes)
        preprocess = MouthPreprocess(
            frames, size, config.frame_rate, LIP_REACH, drawing=weights.drawing
        )
        post = SeparatorPostprocess("lips")
    else:
        mixture = TensorSpec(
            "mixture", "float32", (1, samples), ("batch", "sample"), "1", -1.0, 1.0
        )
        voice = TensorSpec("voice", "float32", (1, samples), ("batch", "sample"))
        inputs, outputs = (mixture, lips), (voice,)
        preprocess = MixturePreprocess(samples, frames, config.sample_rate, config.frame_rate)
        post = SeparatorPostprocess(
            "voice",
            heat_radius=config.heat_radius,
            token_step=config.token_step,
            level=weights.level,
        )
    return ModelCard(
        task="separation",
        model="dolphin",
        variant=f"{config.variant}-{part}",
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=inputs,
        outputs=outputs,
        preprocess=preprocess,
        postprocess=post,
    )


def config_of(card: ModelCard) -> tuple[DolphinConfig, Part]:
    """Return the configuration and the part that a card describes.

    Raises:
        ArtifactError: it is not a Dolphin.
    """
    variant, _, part = card.variant.partition("-")
    post = card.postprocess
    if card.model != "dolphin" or part not in PARTS or not isinstance(post, SeparatorPostprocess):
        raise ArtifactError(
            f"The card describes {card.model} {card.variant}; expected a Dolphin.",
            "Give a file made by: prunus export dolphin",
        )
    config = dolphin_config(variant)
    if part == "voice":
        config = replace(config, heat_radius=post.heat_radius, token_step=post.token_step)
    return config, part


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the module of one graph, see `prunus.export.common.registry`."""
    config, part = config_of(card)
    return deployed(build_network(config, weights_of(card.weights, config, checkpoint)), part)


def exact_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild what a graph is held to: the voice in float64, see `ExactVoice`."""
    module = reference_module(card, checkpoint)
    return _exact(module) or module


def _exact(module: nn.Module) -> nn.Module | None:
    return ExactVoice(module) if isinstance(module, DeployedVoice) else None


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 4) -> Samples:
    """Find inputs for one graph, see `separation_samples`."""
    return separation_samples(card, source, min(limit, 4))


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("dolphin"))
