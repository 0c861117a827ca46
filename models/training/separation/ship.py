"""Ship a trained separator: averaged weights in compact storage, and what they were made of.

``python -m prunus.models.training.separation.ship runs/dolphin --data .cache/speech``
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.models.checkpoints.compact import compress, on_grid
from prunus.models.checkpoints.dolphin_nano import OwnDolphin
from prunus.models.training.codec.ship import data_record
from prunus.models.training.codec.state import load_saved_codec
from prunus.models.training.pose.state import Clock
from prunus.models.training.shipping import write_weights
from prunus.models.zoo import WEIGHTS

SHIPPED = WEIGHTS / "dolphin_nano.safetensors.xz"
LICENCE = "Apache-2.0; trained on speech under CC-BY and CC-BY-SA, see LICENSES.md"


def shipped_state(average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return averaged weights in compact storage, matrices rounded to eight bits a number.

    Compact exports (``prunus export dolphin --small``) hold the very same numbers.
    """
    matrices = {n: v for n, v in average.items() if v.is_floating_point() and v.dim() > 1}
    return compress({**average, **{n: on_grid(v.float()) for n, v in matrices.items()}})


def provenance(clock: Clock, data: Path | None, device: str) -> dict[str, Any]:
    """Return what weights were made of and how, as plain data.

    Args:
        clock: Of the training.
        data: The speech cache; None: the record is without speakers.
        device: Device of the training.
    """
    rows = [] if data is None else data_record(data)
    hardware = f"{os.cpu_count()}-core CPU ({platform.machine()}), no GPU"
    return {
        "model": "dolphin-nano",
        "trained_by": "prunus.models.training.separation.train, from random weights",
        "lips": "drawn from the voice, see docs/training-separation.md; no face was ever shown",
        "data": [row for row in rows if row["split"] == "train"],
        "held_out": [row for row in rows if row["split"] != "train"],
        "steps": clock.step,
        "mixtures_seen": clock.samples // 2,
        "wall_minutes": round(clock.seconds / 60, 1),
        "hardware": hardware if device == "cpu" else device,
        "precision": "float32; exponential average, matrices in 8 bits with a scale per row",
        "torch": torch.__version__.split("+")[0],
        "licence": LICENCE,
    }


def export_weights(
    run: Path,
    target: Path = SHIPPED,
    variant: str = "nano",
    data: Path | None = None,
    device: str = "cpu",
) -> OwnDolphin:
    """Write the averaged weights of a run and, beside them, ``<name>.json``.

    Args:
        run: Folder of the training.
        target: ``.safetensors`` or ``.safetensors.xz`` file.
        variant: Size of the network.
        data: The speech cache, for the record.
        device: Device of the training, for the record.

    Raises:
        ArtifactError: there is no checkpoint in the folder.
        SourceError: the file cannot be written.
    """
    saved = load_saved_codec(run)
    clock = saved.clock
    origin = (
        f"trained by prunus: {clock.step} steps, {clock.samples // 2} mixtures of studio speech "
        f"with lips drawn from it, {clock.seconds / 60:.0f} minutes"
    )
    about = OwnDolphin(variant, origin, LICENCE, drawing="lips", level="relative")
    record = provenance(clock, data, device)
    write_weights(target, shipped_state(saved.average), about.header(), record)
    return about


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Make a weights file of a separation training.")
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--data", type=Path, help="the speech cache, for the record")
    parser.add_argument("--device", default="cpu", help="what it was trained on, for the record")
    args = parser.parse_args()
    about = export_weights(args.run, args.output, args.variant, args.data, args.device)
    print(f"{args.output}: {about.origin}")


if __name__ == "__main__":
    main()
