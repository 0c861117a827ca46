"""`prunus encode` and `prunus decode`: speech to a few hundred bytes per second, and back."""

from __future__ import annotations

import sys

from prunus.apps.codec.app import CodecSummary, decode_file, encode_file, open_codec
from prunus.apps.codec.options import DecodeOptions, EncodeOptions
from prunus.runtime.command import Console
from prunus.runtime.json_text import json_text


def encode(options: EncodeOptions, console: Console) -> None:
    """Encode speech with a neural codec."""
    source, target = options.source, options.target
    with open_codec(options.model, ("encoder", "speaker"), options.compute) as codec:
        with console.progress("encode") as progress:
            summary = encode_file(codec, source, target, strict=options.strict, progress=progress)
    _tell(summary, console)


def decode(options: DecodeOptions, console: Console) -> int | None:
    """Decode a .pcodec file to 16-bit WAV."""
    with console.progress("decode") as progress:
        summary = decode_file(
            lambda: open_codec(options.model, ("decoder",), options.compute),
            options.source,
            options.target,
            progress=progress,
        )
    _tell(summary, console)
    return 1 if summary.damage else None


def _tell(summary: CodecSummary, console: Console) -> None:
    # Standard output may carry the result.
    stream = sys.stderr if summary.target == "-" else sys.stdout
    if console.json:
        print(json_text(summary.to_dict(), indent=1), file=stream)
    elif not console.quiet or summary.damage:
        print(summary.to_text(), file=stream)
