"""A voice that is relative to its window comes out at the level of the sound."""

import numpy as np

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)
from prunus.runtime.tasks.separation.separator import SpeechSeparator

FRAMES, STEP = 10, 640


class _Session:
    def __init__(self, card: ModelCard, work) -> None:
        self.card, self._work = card, work

    def run(self, inputs):
        return self._work(inputs)

    def close(self) -> None:
        pass


def _separator(level: str) -> SpeechSeparator:
    """A network that, like Dolphin, gives the same for a window at any level."""
    lips = TensorSpec("lips", "float32", (1, 1, FRAMES), ("b", "v", "f"))
    mouth = TensorSpec("mouth", "uint8", (1, FRAMES, 88, 88), ("b", "f", "y", "x"))
    mixture = TensorSpec("mixture", "float32", (1, FRAMES * STEP), ("b", "sample"))
    voice = TensorSpec("voice", "float32", (1, FRAMES * STEP), ("b", "sample"))

    def card(part, inputs, outputs, pre) -> ModelCard:
        return ModelCard(
            task="separation", model="dolphin", variant=f"nano-{part}", paper="",
            licence="", exporter="", weights=Weights("", "x", "", True), inputs=inputs,
            outputs=outputs, preprocess=pre, postprocess=SeparatorPostprocess(part, level=level),
        )  # fmt: skip

    def normalised(inputs):
        sound = inputs["mixture"]
        return {"voice": sound / np.sqrt((sound**2).mean())}

    return SpeechSeparator(
        _Session(card("lips", (mouth,), (lips,), MouthPreprocess(FRAMES, reach=1)),
                 lambda _: {"lips": np.zeros((1, 1, FRAMES), np.float32)}),
        _Session(card("voice", (mixture, lips), (voice,), MixturePreprocess(FRAMES * STEP, FRAMES)),
                 normalised),
    )  # fmt: skip


def test_loud_and_soft_parts_keep_their_levels_across_windows() -> None:
    time = np.arange(3 * 16_000) / 16_000
    sound = np.sin(2 * np.pi * 300 * time) * np.where(time < 1.5, 0.4, 0.02)
    mouths = [(np.zeros((88, 88), np.uint8), k / 25) for k in range(75)]
    voice = _separator("relative").separate(sound.astype(np.float32), mouths)
    np.testing.assert_allclose(voice, sound, atol=1e-4)
    free = _separator("free").separate(sound.astype(np.float32), mouths)
    assert np.abs(free - sound).max() > 1  # each window at a level of its own
