"""Strict import of published codec checkpoints, weight normalisation folded.

Three kinds of files are read:

* WavTokenizer training checkpoints (discriminators and the never used mirrored decoder are left
  out; the configuration is found from the file),
* SpeechTokenizer, DM-Codec and FuseCodec generators (their names agree),
* parts of FreeCodec, of which no weights are published: SuperCodec (content branch), ECAPA-TDNN
  (timbre branch), or a whole model of somebody's own; `names` maps other names onto ours.

The result is complete, or the import is refused with every difference in one message. Old and new
spellings of weight normalisation are the same to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.models.checkpoints.fit import KEY, require_fit, save_imported
from prunus.models.checkpoints.header import read_entry
from prunus.models.checkpoints.read import read_checkpoint, unwrap
from prunus.models.checkpoints.registry import Importer, ImportOptions, fresh_note
from prunus.models.codec.freecodec.freecodec import FreeCodec
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer
from prunus.models.codec.layers.weight_norm import fold_weight_norm
from prunus.models.codec.wavtokenizer import CONFIGS, WavTokenizer
from prunus.runtime.errors import ArtifactError, UsageError, nearest

Rules = Sequence[tuple[str, str]]
MODELS = ("wavtokenizer", "fusecodec", "freecodec")
# torch.nn.utils.parametrizations.weight_norm spells the two parameters so.
_NEW_SPELLING = (
    ("parametrizations.weight.original0", "weight_g"),
    ("parametrizations.weight.original1", "weight_v"),
)
_UNUSED_DECODER = "feature_extractor.encodec.decoder."
_OWN = ("feature_extractor.", "backbone.", "head.")


@dataclass(frozen=True, slots=True)
class ImportedCodec:
    """A checkpoint as our networks read it.

    Attributes:
        model: One of `MODELS`.
        variant: ``tok75`` or ``tok40`` for WavTokenizer, ``16k`` for the others.
        state: Complete state dict of the folded network, float32.
        fresh: Names that the file has no source for; they are freshly initialised (FreeCodec).
        dropped: Names in the file that were not needed.
    """

    model: str
    variant: str
    state: dict[str, Tensor]
    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def build_codec(model: str, variant: str) -> nn.Module:
    """Return an unfolded network with fresh weights.

    Raises:
        UsageError: there is no such model or variant.
    """
    if model not in MODELS:
        raise UsageError(
            f"Unknown codec '{model}'{nearest(model, list(MODELS))}.",
            f"Expected one of: {', '.join(MODELS)}.",
        )
    known = list(CONFIGS) if model == "wavtokenizer" else ["16k"]
    if variant not in known:
        raise UsageError(f"Unknown {model} '{variant}'.", f"Expected one of: {', '.join(known)}.")
    if model == "wavtokenizer":
        return WavTokenizer(CONFIGS[variant])
    return SpeechTokenizer() if model == "fusecodec" else FreeCodec()


def convert_codec(loaded: Any, model: str, *, names: Rules = (), seed: int = 0) -> ImportedCodec:
    """Turn the tensors of a published file into a complete state of our folded network.

    Args:
        loaded: A state dict, or what wraps one.
        model: One of `MODELS`.
        names: (pattern, replacement) pairs, tried in order from the start of each name: the way in
            for files with other names.
        seed: Of the parts of FreeCodec that the file lacks.

    Returns:
        The state.

    Raises:
        UsageError: the file does not fit; the message names what is missing, left over and of
            another shape.
    """
    prepare: Mapping[str, Callable[[dict[str, Tensor]], tuple[str, dict[str, Tensor], list[str]]]]
    prepare = {"wavtokenizer": _wavtokenizer, "fusecodec": _generator, "freecodec": _freecodec}
    if model not in prepare:
        build_codec(model, "")
    state = respell(_renamed(unwrap(loaded), names))
    variant, state, dropped = prepare[model](state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_codec(model, variant)
    own = network.state_dict()
    fresh = sorted(own.keys() - state.keys()) if model == "freecodec" else []
    require_fit(own, state, f"{model} {variant}", fresh=fresh, advice=_advice)
    network.load_state_dict({name: state.get(name, own[name]) for name in own})
    folded = fold_weight_norm(network).state_dict()
    complete = {name: value.contiguous().clone() for name, value in folded.items()}
    return ImportedCodec(model, variant, complete, tuple(fresh), tuple(dropped))


def import_codec(
    source: str | Path, target: str | Path, *, model: str, names: Rules = ()
) -> ImportedCodec:
    """Read a published checkpoint and write a safetensors file that ``prunus export`` takes.

    Raises:
        ArtifactError: the file cannot be read.
        UsageError: it does not fit the model.
    """
    imported = convert_codec(read_checkpoint(source), model, names=names)
    about = {"fresh": imported.fresh, "model": imported.model, "variant": imported.variant}
    save_imported(imported.state, Path(source), target, about)
    return imported


def read_in(
    checkpoint: Path, target: Path, importer: Importer, options: ImportOptions
) -> tuple[str, str]:
    """Import a file for `prunus.models.checkpoints.registry`."""
    rules = read_rules(options.names) if options.names is not None else ()
    imported = import_codec(checkpoint, target, model=importer.name, names=rules)
    return (
        f"{importer.name} {imported.variant}, weight normalisation folded"
        f"{fresh_note(imported.fresh)}",
        f"{importer.name} --checkpoint {target}",
    )


def load_codec(path: str | Path, model: str) -> tuple[nn.Module, str, dict[str, Any]]:
    """Open a file that `import_codec` wrote.

    Returns:
        The folded network in evaluation mode, its variant, and what the file says about itself.

    Raises:
        ArtifactError: no such file, or not one of ours.
        UsageError: it holds another model.
    """
    state = read_checkpoint(path)
    about = read_entry(path, KEY)
    if "variant" not in about or "model" not in about:
        raise ArtifactError(
            f"{path} was not made by 'prunus models import'.",
            f"Import it first: prunus models import {path} --model {model}",
        )
    if about["model"] != model:
        raise UsageError(f"{path} holds {about['model']}; expected {model}.")
    network = fold_weight_norm(build_codec(model, about["variant"]))
    own = network.state_dict()
    require_fit(own, state, f"{model} {about['variant']}", advice=_advice)
    network.load_state_dict(state, assign=True)
    return network.eval(), about["variant"], about


def read_rules(path: str | Path) -> Rules:
    """Read name rules: a JSON object of pattern -> replacement.

    Raises:
        UsageError: not such a file, or a pattern that does not compile.
    """
    try:
        raw = json.loads(Path(path).read_text())
        rules = [(str(a), str(b)) for a, b in raw.items()]
        for pattern, replacement in rules:
            re.compile(pattern)
            re.sub(pattern, replacement, "")
    except (OSError, ValueError, AttributeError, RecursionError, re.error) as error:
        raise UsageError(
            f"Cannot read name rules from {path}: {error}.",
            'Expected JSON such as {"generator\\\\.content\\\\.": "content."}.',
        ) from None
    return rules


def respell(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with the new spelling of weight normalisation replaced by the old."""
    found = {}
    for name, tensor in state.items():
        for new, old in _NEW_SPELLING:
            if name.endswith(new):
                name = name.removesuffix(new) + old  # noqa: PLW2901
        found[name] = tensor
    return found


def _renamed(state: Mapping[str, Tensor], names: Rules) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in names:
            new, count = re.subn("^(?:" + pattern + ")", replacement, name)
            if count:
                break
        if new in renamed:
            raise UsageError(f"Two tensors of the file are renamed to '{new}'.", "Check the rules.")
        renamed[new] = tensor
    return renamed


def _wavtokenizer(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    kept = {
        n: v for n, v in state.items() if n.startswith(_OWN) and not n.startswith(_UNUSED_DECODER)
    }
    dropped = [name for name in state if name not in kept]
    outputs = kept.get("head.out.bias")
    sizes = {config.fft_size + 2: name for name, config in CONFIGS.items()}
    if outputs is None or len(outputs) not in sizes:
        got = "no head.out.bias" if outputs is None else f"a head of {len(outputs)} outputs"
        known = ", ".join(f"{size} ({name})" for size, name in sizes.items())
        raise UsageError(f"The checkpoint has {got}; expected one of {known}.")
    return sizes[len(outputs)], kept, dropped


def _generator(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    return "16k", state, []


def _freecodec(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    if "blocks.0.conv.conv.weight" in state and "mfa.conv.conv.weight" in state:
        return "16k", {f"timbre.{n}": v for n, v in state.items()}, []
    if "encoder.1.downs_one.conv.weight" in state:
        places = {"encoder.": "content.encoder.", "rq.": "content.rq.",
                  "decoder.": "decoder.upsampler."}  # fmt: skip
        placed = {}
        for name, tensor in state.items():
            prefix = next((p for p in places if name.startswith(p)), "")
            placed[places.get(prefix, "") + name.removeprefix(prefix)] = tensor
        return "16k", placed, []
    return "16k", state, []


def _advice(wrong: list[str]) -> str:
    return "Choose the model that the file was trained as, or map its names with --names."
