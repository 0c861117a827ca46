"""Options of `prunus run tensors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.apps.common import options as shared
from prunus.apps.common.options import BackendChoice
from prunus.runtime.card import foreign
from prunus.runtime.options import argument, group, option


@dataclass(frozen=True, slots=True)
class TensorsOptions:
    """What `run_tensors` does.

    Inputs are arrays (.npy, or .npz for all), numbers, pictures where the card or --before says how
    they go in, and sounds (WAV, FLAC). What comes out is described; -o keeps it whole.

    \b
    Examples:
      prunus run tensors resnet.onnx --input x=batch.npy --json -o outputs.npz
      prunus run tensors vad.onnx --input input=talk.wav --input state=h.npy --input sr=16000
    """

    model: str = argument("Model file or listed name; a card is not needed.")
    input: tuple[str, ...] = shared.inputs()
    noise: bool = option("Fill inputs that are not given with uniform noise.", default=False)
    before: tuple[str, ...] = foreign.before()
    rate: int | None = option("Sample rate of sounds in Hz; default: the file's.", default=None,
                              minimum=1000, maximum=768_000)  # fmt: skip
    shape: tuple[str, ...] = shared.shape()
    output: Path | None = shared.output("All outputs, as .npz.")
    compute: BackendChoice = group(BackendChoice)
