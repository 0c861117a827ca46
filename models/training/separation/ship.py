"""Ship a trained separator: averaged weights in compact storage, and what they were made of.

``python -m prunus.models.training.separation.ship runs/dolphin --data .cache/speech``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.models.checkpoints.compact import compress, on_grid
from prunus.models.checkpoints.dolphin_nano import OwnDolphin
from prunus.models.training.codec.ship import data_record
from prunus.models.training.shipping import run_facts, ship_parser, write_weights
from prunus.models.training.state import Clock, read_run
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
    return {
        "model": "dolphin-nano",
        "trained_by": "prunus.models.training.separation.train, from random weights",
        "lips": "drawn from the voice, see docs/training-separation.md; no face was ever shown",
        "data": [row for row in rows if row["split"] == "train"],
        "held_out": [row for row in rows if row["split"] != "train"],
        "mixtures_seen": clock.samples // 2,
        "precision": "float32; exponential average, matrices in 8 bits with a scale per row",
        **run_facts(clock, device),
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
    saved = read_run(run)
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
    parser = ship_parser(__doc__, SHIPPED)
    add = parser.add_argument
    add("run", type=Path, help="folder of a training run")
    add("--variant", default="nano", help="nano or base")
    add("--data", type=Path, help="the speech cache, for the record")
    add("--device", default="cpu", help="what it was trained on, for the record")
    args = parser.parse_args()
    about = export_weights(args.run, args.output, args.variant, args.data, args.device)
    print(f"{args.output}: {about.origin}")


if __name__ == "__main__":
    main()
