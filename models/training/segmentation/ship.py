"""Ship a trained person segmentation: averaged weights in compact storage, and their origin.

``python -m prunus.models.training.segmentation.ship --run runs/person``
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from prunus.models.checkpoints.compact import STORAGE, compress
from prunus.models.segmentation.classes import PERSON
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.training.data_record import noted_counts
from prunus.models.training.segmentation.state import CLASSES
from prunus.models.training.segmentation.train import FINE_STAGES, STAGES
from prunus.models.training.shipping import (
    START_RECORD,
    arithmetic_of,
    run_facts,
    ship_parser,
    used_sources,
    write_weights,
)
from prunus.models.training.state import SavedRun, read_run
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
        "what": "crops of OpenCV's vtest.avi, frames 0-599, one around each person; people from "
        "close by in the npm packages of teachers/package_pictures.json, as they are and put "
        "before other scenes",
        "labels": "where MediaPipe's selfie network (Apache-2.0) and motion agree; where two looks "
        "of that network agree; as pasted",
        "licence": "OpenCV sample data (Apache-2.0 package); packages under the MIT licence",
    },
}


def shipped_state(saved: SavedRun) -> dict[str, torch.Tensor]:
    """Return the averaged weights in compact storage, without the classifier never called."""
    config = edaformer_config(saved.facts["variant"], classes=CLASSES)
    state = {}
    for name, like in EDAFormer(config).state_dict().items():
        if "conv_seg" not in name:
            value = saved.average[name]
            state[name] = value if like.is_floating_point() else value.round().to(like.dtype)
    return compress(state)


def provenance(saved: SavedRun, pictures: dict[str, int]) -> dict[str, object]:
    """Return what the weights were made of and how, as plain data.

    Args:
        saved: The run's checkpoint.
        pictures: Pictures used, by set (``synthetic``, ``real``).
    """
    variant, clock = saved.facts["variant"], saved.clock
    return {
        "model": f"EDAFormer-{variant.upper()}, classes {' / '.join(PERSON.names)}",
        "trained_by": "prunus.models.training.segmentation.train, from random weights",
        "data": used_sources(_SOURCES, pictures),
        "held_out": ["vtest.avi frames 650-794", "outlined pictures", "renders of seed 900"],
        "samples_seen": clock.samples,
        "precision": f"{arithmetic_of(saved.facts)}, float32 weights; "
        f"exponential average {STORAGE}",
        "input_sizes": [f"{s.size[0]}x{s.size[1]}" for s in STAGES[: clock.stage + 1]],
        **run_facts(clock, note="shared with other work, no GPU"),
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
    saved = read_run(run)
    about = {"classes": PERSON.names, "model": "edaformer", "palette": PERSON.palette,
             "variant": saved.facts["variant"], "fresh": []}  # fmt: skip
    record = provenance(saved, noted_counts(run))
    if (run / START_RECORD).is_file():
        sizes = [f"{s.size[0]}x{s.size[1]}" for s in FINE_STAGES[: saved.clock.stage + 1]]
        record |= {
            "trained_by": "prunus.models.training.segmentation.train --init",
            "input_sizes": sizes,
            "continued_from": json.loads((run / START_RECORD).read_text(encoding="utf-8")),
        }
    return write_weights(target, shipped_state(saved), {"prunus": json.dumps(about)}, record)


def main() -> None:
    """Parse the command line and write the files."""
    parser = ship_parser(__doc__, SHIPPED)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    args = parser.parse_args()
    print(export_weights(args.run, args.output))


if __name__ == "__main__":
    main()
