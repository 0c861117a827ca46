"""`prunus export`: one sub-command per model, each calling the script of that model."""

from __future__ import annotations

import typer

from prunus.apps.cli.exports.codec import freecodec, fusecodec, nsfcodec, wavtokenizer
from prunus.apps.cli.exports.faces import faces
from prunus.apps.cli.exports.pose import evitpose, movenet, unitranspose
from prunus.apps.cli.exports.segmentation import edaformer, selfie
from prunus.apps.cli.exports.separation import dolphin

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Export a model as one static ONNX file that carries its own card.

\b
Examples:
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx
  prunus export unitranspose --variant small --skeleton unified23 --joints mpii16
  prunus export movenet package/ --variant lightning -o movenet_lightning.onnx
""",
)

for verb in (
    evitpose,
    unitranspose,
    movenet,
    edaformer,
    selfie,
    faces,
    nsfcodec,
    wavtokenizer,
    freecodec,
    fusecodec,
    dolphin,
):
    app.command(verb.__name__)(verb)
