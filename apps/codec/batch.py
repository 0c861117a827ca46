"""Codes of any number of recordings, as `prunus encode` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prunus.apps.batch.task import BatchTask, Found
from prunus.apps.codec.app import encode_file, open_codec
from prunus.apps.codec.options import CodecBatchOptions
from prunus.apps.common.model_files import codec_name, find_model
from prunus.apps.io.sources.clip import CLIPS
from prunus.runtime.audio.pcodec import PcodecReader
from prunus.runtime.tasks.codec.card import Part
from prunus.runtime.tasks.codec.codec import CodecFormat

_PARTS: tuple[Part, ...] = ("encoder", "speaker")


class CodecBatch(BatchTask):
    """A row per block of codes and stream; see `BatchTask`."""

    suffixes = (".flac", ".mp3", ".ogg", ".opus", ".wav", *CLIPS)
    columns = (("stream", "string"), ("codes", "list<list<int32>>"))
    options: CodecBatchOptions

    def files(self) -> tuple[Path, ...]:
        """See `BatchTask`."""
        name = codec_name(self.options.model)
        speaker = Path(f"{name}-{_PARTS[1]}.onnx")
        return (find_model(f"{name}-{_PARTS[0]}.onnx"), *([speaker] if speaker.is_file() else ()))

    def open(self, stack: ExitStack) -> None:
        """See `BatchTask`."""
        codec = open_codec(self.options.model, _PARTS, self.options.compute)
        self._codec = stack.enter_context(codec)

    def media(self, source: Path) -> str:
        """See `BatchTask`."""
        return ".pcodec"

    def run(self, source: Path, folder: Path, media: Path | None, seat: Any) -> Found:
        """See `BatchTask`."""
        coded = media or folder / "sound.pcodec"
        done = encode_file(self._codec, str(source), str(coded), strict=self.options.strict)
        with coded.open("rb") as file:
            header = PcodecReader(file).header
        facts = {
            "sample_rate_hz": header.sample_rate_hz,
            "samples": round(done.seconds * header.sample_rate_hz),
            "codec": header.identity,
            "voice": None if header.voice is None else [float(v) for v in header.voice],
        }
        faults = (f"{source} is cut off: {done.cut}",) if done.cut else ()
        return Found(_rows(coded, self._codec.format), facts, done.notes, faults)


def _rows(path: Path, form: CodecFormat) -> Iterator[dict[str, Any]]:
    """Yield the codes, block by block, with the time at which each block begins."""
    with path.open("rb") as file:
        reader, frames = PcodecReader(file), 0
        for codes in reader.blocks(tuple(stream.name for stream in form.streams)):
            seconds = frames * form.hop / form.sample_rate_hz
            for stream in form.streams:
                rows = codes[stream.name]
                yield {"seconds": seconds, "stream": stream.name, "codes": rows.tolist()}
            frames += rows.shape[1] * form.streams[-1].stride
