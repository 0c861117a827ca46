"""Make a weights file of a separation training, for ``prunus export dolphin --checkpoint``.

``python -m prunus.models.training.export_separation_weights runs/dolphin -o dolphin-nano.safetensors``
"""  # noqa: E501 - a command is not broken

from __future__ import annotations

import argparse
from pathlib import Path

from prunus.models.checkpoints.own_dolphin import OwnDolphin, write_own
from prunus.models.training.codec_state import load_saved_codec
from prunus.models.training.evaluate_separation import load_trained

LICENCE = "CC-BY-SA-3.0 (speech), see docs/training-separation.md"


def export_weights(run: Path, out: Path, variant: str = "nano") -> OwnDolphin:
    """Write the averaged weights of a run.

    Raises:
        ArtifactError: there is no checkpoint in the folder.
        SourceError: the file cannot be written.
    """
    clock = load_saved_codec(run).clock
    origin = (
        f"trained by prunus: {clock.step} steps, {clock.samples} mixtures of studio speech with "
        f"lips drawn from it, {clock.seconds / 60:.0f} minutes"
    )
    about = OwnDolphin(variant, origin, LICENCE, drawing="lips", level="relative")
    write_own(out, load_trained(run, variant).state_dict(), about)
    return about


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description="Make a weights file of a separation training.")
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--variant", default="nano")
    args = parser.parse_args()
    print(f"{args.output}: {export_weights(args.run, args.output, args.variant).origin}")


if __name__ == "__main__":
    main()
