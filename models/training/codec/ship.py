"""Turn a finished run into weights, and write down what they were made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunus.models.codec.nsfcodec.nsfcodec import NsfCodec, NsfCodecConfig
from prunus.models.codec.nsfcodec.weights import rounded, save_nsf
from prunus.models.training.shipping import arithmetic_of, run_facts
from prunus.models.training.speech.batches import SpeechAugment, SpeechBatches, read_recordings
from prunus.models.training.speech.cache import MANIFEST
from prunus.models.training.state import SavedRun, read_run
from prunus.runtime.card.artifact import sha256_of, write_whole

_PIECE, _PIECES = 150, 32  # frames of 20 ms, and how many pieces the level is matched on
ORIGIN = "trained by prunus from scratch on studio speech of four speakers from Debian packages"


def data_record(cache: Path) -> list[dict[str, Any]]:
    """Return what the manifest of a speech cache says, without the single recordings."""
    rows = json.loads((cache / MANIFEST).read_text())
    kept = ("name", "package", "version", "speaker", "language", "licence", "credit", "split",
            "minutes")  # fmt: skip
    return [{**{key: row[key] for key in kept}, "recordings": len(row["clips"])} for row in rows]


def provenance(saved: SavedRun, cache: Path, device: str) -> dict[str, Any]:
    """Return what weights were made of and how, as plain data."""
    data, clock = data_record(cache), saved.clock
    return {
        "model": "nsfcodec",
        "what": "causal source-filter codec, 16 kHz, a pitch code and residual codes per 20 ms",
        "trained_by": "prunus.models.training.codec.train, from random weights",
        "origin": ORIGIN,
        "data": [row for row in data if row["split"] == "train"],
        "held_out": [row for row in data if row["split"] != "train"],
        "parameters": sum(v.numel() for k, v in saved.network.items() if _trained(k)),
        "samples_seen": clock.samples,
        "discriminators": "judge" in saved.parts,
        "precision": f"{arithmetic_of(saved.facts, ' of the stacks')}, float32 weights; their "
        "exponential average, matrices and code vectors rounded to 8 bits with a scale per row",
        **run_facts(clock, device),
    }


def export_codec_weights(run: Path, cache: Path, target: Path, device: str = "cpu") -> Path:
    """Write the averaged, rounded weights and, beside them, ``<name>.json``; return the path.

    Args:
        run: Folder of the training.
        cache: The speech it was trained on.
        target: ``.safetensors`` file.
        device: Device of the training, for the record.

    Raises:
        ArtifactError: the run has no checkpoint.
    """
    saved = read_run(run)
    config = NsfCodecConfig(**json.loads(saved.facts["config"]))
    record = provenance(saved, cache, device)
    state, decibels = level_matched(saved.average, config, cache)
    record["level_matched_db"] = round(decibels, 2)
    save_nsf(state, config, record, target)
    record |= {"weights_sha256": sha256_of(target)}
    write_whole(target.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return target


@torch.no_grad()
def level_matched(
    state: Mapping[str, torch.Tensor], config: NsfCodecConfig, cache: Path
) -> tuple[dict[str, torch.Tensor], float]:
    """Return weights whose output is as loud as the input, and the decibels that were added.

    The loss compares logarithms of noisy magnitudes, so what it leads to is too soft: the middle of
    logarithms lies below the logarithm of the mean. One constant on all band levels mends that. It
    is found on pieces of the training data.
    """
    network = NsfCodec(config)
    network.load_state_dict(rounded(state))
    pieces = SpeechBatches(
        read_recordings(cache, "train"), _PIECE, _PIECES, 1, SpeechAugment(0.0, 1.0, (0, 0), 0.0)
    )
    sound, _ = pieces[0]
    got = network.eval()(sound)
    ratios = sound.pow(2).mean(dim=1).add(1e-9) / got.pow(2).mean(dim=1).add(1e-9)
    gain = float(0.5 * ratios.log().median())
    changed = dict(state)
    changed["decoder.head.bias"] = state["decoder.head.bias"] + gain
    return changed, 20.0 * gain / math.log(10.0)


def _trained(name: str) -> bool:
    return not name.endswith(("cluster_size", "inited", "embed_avg"))
