"""Re-derive the MoveNet files, see `prunus.export.convert.package`.

``movenet_multipose.onnx`` has the dense heads only, which `runtime.tasks.pose.people` decodes;
``movenet_lightning.onnx`` and ``movenet_thunder.onnx`` are decoded in the graph.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from prunus.export.common.options import parse_size, takes
from prunus.export.convert.options import MovenetOptions
from prunus.export.convert.package import Size, Source, export_sources, public_card
from prunus.models.pose.skeleton import COCO17
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess, PeoplePostprocess
from prunus.runtime.tasks.registry import Processing

STRIDE = 4  # input pixels per cell of the heads
MAXIMUM_PEOPLE = 16

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


def movenet_card(source: Source, size: Size) -> ModelCard:
    """Return the card of a converted MoveNet with an input of `size` (height, width)."""
    multipose = source.variant == "multipose"
    post: Processing = (
        PeoplePostprocess("movenet_multipose", STRIDE, MAXIMUM_PEOPLE, COCO17.name, COCO17.joints)
        if multipose
        else KeypointPostprocess(
            "movenet", COCO17.name, COCO17.joints, COCO17.limbs, COCO17.flip_pairs, COCO17.sigmas
        )
    )
    return public_card(
        source,
        size,
        origin=f"MoveNet {source.variant}",
        exporter="movenet",
        task="detection" if multipose else "pose",
        model="movenet",
        paper="MoveNet (Google, 2021), after CenterNet (arXiv 1904.07850)",
        outputs=tuple(_outputs(source, size)),
        preprocess=ImagePreprocess(
            *size,
            "letterbox" if multipose else "udp_affine",
            mean=(127.5,) * 3,
            std=(127.5,) * 3,
        ),
        postprocess=post,
    )


def _outputs(source: Source, size: Size) -> list[TensorSpec]:
    if source.variant != "multipose":
        axes = ("batch", "person", "joint", "y_x_score")
        return [TensorSpec("keypoints", "float32", (1, 1, 17, 3), axes, "fraction of input")]
    grid = (1, size[0] // STRIDE, size[1] // STRIDE)
    axes = ("batch", "row", "column", "channel")
    return [
        TensorSpec(name, "float32", (*grid, _HEAD_CHANNELS[name]), axes, unit)
        for name, unit in zip(source.outputs, ("1", "1", *["cell"] * 4), strict=True)
    ]


def _source(
    variant: str, size: Size, outputs: Mapping[str, str], shards_sha256: str, fixed: bool = True
) -> Source:
    name, stem = f"movenet_{variant}", f"movenet-{variant}"
    return Source(name, variant, stem, size, outputs, shards_sha256, movenet_card, fixed=fixed)


# 352x448 for MultiPose: on frames 650-794 of OpenCV's vtest clip (people 40-110 pixels tall in
# 768x576) it finds 94 % of what a 576x768 input finds, at a third of its cost; 256x256 finds 65 %.
SOURCES: Mapping[str, Source] = {
    source.variant: source
    for source in (
        _source(
            "multipose",
            (352, 448),
            _MULTIPOSE_HEADS,
            "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
            fixed=False,
        ),
        _source(
            "lightning",
            (192, 192),
            {"keypoints": "Identity"},
            "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
        ),
        _source(
            "thunder",
            (256, 256),
            {"keypoints": "Identity"},
            "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
        ),
    )
}


@takes(MovenetOptions)
def export_movenet(options: MovenetOptions, progress: Progress) -> list[Path]:
    """Convert one MoveNet, or all, and write them.

    Args:
        options: See `MovenetOptions`; its fields may be given by name instead.
        progress: Not used: it takes a second.

    Raises:
        PrunusError: see `export_sources`.
    """
    size = parse_size(options.size) if options.size is not None else None
    return export_sources(options.files, SOURCES, options.variant, size)


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("movenet"))
