"""`prunus card`: say what an ONNX file of another exporter does not say itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.card import foreign
from prunus.runtime.command import Console
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option

VERBS = (
    Verb("add", "Write a copy of a foreign ONNX file that carries a card.",
         f"{__name__}:AddOptions", f"{__name__}:add"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AddOptions:
    """What `prunus card add` does.

    The graph stays as it is, apart from sizes that --shape fixes. Pictures need to know how they go
    in (--before), poses and masks how they come out (--after); KEY=VALUE are fields of the card,
    shown by prunus inspect, and a value @FILE stands for the lines of a text.

    \b
    Examples:
      prunus card add resnet.onnx --shape x:1x3x224x224 --licence MIT -o resnet-224.onnx
      prunus card add seg.onnx --task segmentation --before colour=rgb --before mean=0,0,0 \\
        --before std=255,255,255 --after classes=background,person -o person.onnx
    """

    model: str = argument("ONNX file without a card.")
    task: str = option("generic, pose or segmentation.", default="generic")
    name: str = option("Name of the model; default: the file's.", default="")
    licence: str = option("Licence of the weights.", default="unknown")
    origin: str = option("Where the weights come from, one sentence.", default="unknown")
    shape: tuple[str, ...] = shared.shape()
    before: tuple[str, ...] = foreign.before()
    after: tuple[str, ...] = option(
        "How outputs are read: skeleton=coco17, classes=sky,road; repeatable.", default=(),
        metavar="KEY=VALUE",
    )  # fmt: skip
    output: Path | None = shared.output("The file with the card; default: NAME-card.onnx.")


def add(options: AddOptions, console: Console) -> None:
    """Write a copy of a foreign ONNX file that carries a card."""
    from prunus.export.foreign.add import About, add_card
    from prunus.export.graph.shapes import read_shapes
    from prunus.runtime.tasks.adopting import AFTER, BEFORE, read_words

    path = Path(options.model)
    output = options.output or Path(f"{path.stem}-card.onnx")
    about = About(
        options.task, options.name, options.licence, options.origin, read_shapes(options.shape),
        read_words(options.before, BEFORE), read_words(options.after, AFTER),
    )  # fmt: skip
    card, remarks = add_card(path, output, about)
    shapes = [f"--shape {word}" for word in options.shape]
    lines = [
        f"wrote {output}  {card.name} ({card.task})",
        *(f"  in   {spec.describe()}" for spec in card.inputs),
        *(f"  out  {spec.describe()}" for spec in card.outputs),
        *(f"  {remark}" for remark in remarks),
        "  no PyTorch network stands behind it; compare it with its source: "
        + " ".join(["prunus check", str(output), "--against", str(path), *shapes]),
    ]
    body = {"file": str(output), "card": json.loads(card.to_json()), "remarks": remarks}
    console.say("\n".join(lines), json_text(body, indent=1))
