"""Judges of speech: PESQ, STOI, DNSMOS, word errors, speaker similarity. Each needs a package.

All hear mono float32 at 16 kHz. DNSMOS and the speaker encoder come as weights inside packages
whose own code needs much more; only the weights are used, with our own feature extraction.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.quality import mel_bands
from prunus.runtime.errors import MissingDependencyError, UsageError, nearest

Audio = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
RATE_HZ = 16000
EXTRA = "eval-audio"
_WINDOW = 144160  # 9.01 s, what DNSMOS was trained on
# From the network's raw scores to the published scale (Reddy et al., ICASSP 2022, its own code).
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a judge is given.

    Attributes:
        original: (T,) at 16 kHz.
        decoded: (T,) at 16 kHz, aligned to it.
        text: What is said, None when nobody wrote it down.
    """

    original: Audio
    decoded: Audio
    text: str | None = None


class Judge(Protocol):
    """Returns a score; NaN where it cannot tell, for example because a sound is silent."""

    name: str
    compares: bool

    def score(self, heard: Heard) -> float:
        """Judge one sound."""


class Pesq:
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2): 1 to 4.64."""

    name, compares = "PESQ", True

    def __init__(self) -> None:
        self._pesq = _load("pesq", "PESQ")

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        try:
            return float(self._pesq.pesq(RATE_HZ, heard.original, heard.decoded, "wb"))
        except self._pesq.PesqError:  # no speech found, or shorter than a quarter of a second
            return float("nan")


class Stoi:
    """Short-time objective intelligibility (Taal et al., TASLP 2011): 0 to 1."""

    name, compares = "STOI", True

    def __init__(self) -> None:
        self._stoi = _load("pystoi", "STOI").stoi

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        import warnings

        with warnings.catch_warnings():
            # Too little speech is a warning and a score of 1e-5 there.
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(self._stoi(heard.original, heard.decoded, RATE_HZ))
            except (RuntimeWarning, ValueError):
                return float("nan")


class Dnsmos:
    """Overall quality without a reference, DNSMOS P.835: 1 to 5, in practice up to 3.5."""

    name, compares = "DNSMOS", False

    def __init__(self) -> None:
        folder = _folder_of("speechmos", "DNSMOS")
        runtime = _load("onnxruntime", "DNSMOS")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = runtime.InferenceSession(
            str(folder / "dnsmos_models" / "sig_bak_ovr.onnx"), options,
            providers=["CPUExecutionProvider"],
        )  # fmt: skip
        self._input = self._session.get_inputs()[0].name

    def score(self, heard: Heard) -> float:
        """See `Judge`; the mean over windows of 9.01 s, one a second; short sounds are repeated."""
        sound = np.clip(heard.decoded, -1.0, 1.0).astype(np.float32)
        if not len(sound):
            return float("nan")
        if len(sound) < _WINDOW:
            sound = np.resize(sound, _WINDOW)
        scores = []
        for begin in range(0, len(sound) - _WINDOW + 1, RATE_HZ):
            window = sound[None, begin : begin + _WINDOW]
            raw = float(self._session.run(None, {self._input: window})[0][0][2])
            scores.append(np.polyval(_OVERALL, raw))
        return float(np.mean(scores))


class WordErrors:
    """Word error rate in per cent of an offline recogniser, pocketsphinx with its US English model.

    Against the transcript where there is one, else against what it hears in the original.
    """

    name, compares = "WER %", False

    def __init__(self) -> None:
        self._decoder = _load("pocketsphinx", "The word error rate").Decoder(loglevel="FATAL")
        self._known: dict[bytes, str] = {}

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        text = heard.text if heard.text is not None else self.transcribe(heard.original)
        words = normalised(text)
        if not words:
            return float("nan")
        return 100.0 * word_distance(words, normalised(self.transcribe(heard.decoded))) / len(words)

    def transcribe(self, sound: Audio) -> str:
        """Return what the recogniser hears."""
        data = np.rint(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        if data not in self._known:
            self._decoder.start_utt()
            self._decoder.process_raw(data, full_utt=True)
            self._decoder.end_utt()
            found = self._decoder.hyp()
            self._known[data] = found.hypstr if found is not None else ""
        return self._known[data]


class Speaker:
    """Cosine between the voices of both sounds, by Resemblyzer's GE2E encoder; -1 to 1.

    Its published weights, loaded as plain tensors; without its silence trimming.
    """

    name, compares = "speaker", True
    _PARTIAL, _STEP = 160, 77  # frames of one look, and between two: 1.6 s and 0.77 s

    def __init__(self) -> None:
        folder = _folder_of("resemblyzer", "Speaker similarity")
        torch = _load("torch", "Speaker similarity", "models")
        saved = torch.load(folder / "pretrained.pt", map_location="cpu", weights_only=True)
        weights = saved["model_state"]
        self._torch = torch
        self._lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self._linear = torch.nn.Linear(256, 256)
        for prefix, module in (("lstm.", self._lstm), ("linear.", self._linear)):
            own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            module.load_state_dict(own)
        self._bands = mel_bands(RATE_HZ, 400, 40, slaney=True)

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        one, other = self.embed(heard.original), self.embed(heard.decoded)
        return float(one @ other) if one.any() and other.any() else float("nan")

    def embed(self, sound: Audio) -> Floats:
        """Return (256,) of length one, zeros for silence."""
        level = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))) if len(sound) else 0.0
        if level == 0.0:
            return np.zeros(256)
        louder = max(1.0, 10.0 ** (-30.0 / 20.0) / level)  # raised to -30 dB, never lowered
        padded = np.pad(louder * sound.astype(np.float64), 200)
        frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
        power = np.abs(np.fft.rfft(frames * np.hanning(401)[:-1], axis=1)) ** 2
        mels = (power @ self._bands.T).astype(np.float32)
        mels = np.pad(mels, ((0, max(0, self._PARTIAL - len(mels))), (0, 0)))
        looks = np.stack(
            [mels[k : k + self._PARTIAL]
             for k in range(0, len(mels) - self._PARTIAL + 1, self._STEP)]
        )  # fmt: skip
        with self._torch.no_grad():
            _, (hidden, _) = self._lstm(self._torch.from_numpy(looks))
            raw = self._torch.relu(self._linear(hidden[-1]))
            raw = raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-9)
        mean: Floats = raw.numpy().astype(np.float64).mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


JUDGES: Mapping[str, Callable[[], Judge]] = {
    "pesq": Pesq,
    "stoi": Stoi,
    "dnsmos": Dnsmos,
    "wer": WordErrors,
    "speaker": Speaker,
}


def open_judges(names: Sequence[str] | None) -> tuple[list[Judge], list[str]]:
    """Return judges, and a line about each that is not installed.

    Args:
        names: Out of `JUDGES`; None: whatever is installed.

    Raises:
        UsageError: an unknown name.
        MissingDependencyError: a judge that was asked for is not installed.
    """
    judges: list[Judge] = []
    missing = []
    for name in JUDGES if names is None else names:
        if name not in JUDGES:
            raise UsageError(
                f"Unknown judge '{name}'{nearest(name, list(JUDGES))}.",
                f"Known: {', '.join(JUDGES)}.",
            )
        try:
            judges.append(JUDGES[name]())
        except MissingDependencyError as error:
            if names is not None:
                raise
            missing.append(f"{error.message} {error.hint}")
    return judges, missing


def normalised(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation and alternative marks.

    >>> normalised("Hello, World(2)!")
    ['hello', 'world']
    """
    import re

    return re.findall(r"[a-z']+", re.sub(r"\(\d+\)", "", text.lower()))


def word_distance(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions between two lists of words.

    >>> word_distance(["a", "b", "c"], ["a", "x", "c", "d"])
    2
    """
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def _load(package: str, purpose: str, extra: str = EXTRA) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError(package, extra, purpose) from None


def _folder_of(package: str, purpose: str) -> Path:
    """Return where a package lies, without running any of its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        error = MissingDependencyError(package, EXTRA, purpose)
        if package == "resemblyzer":  # its dependencies are many and unused here
            error.hint = "Install it with: pip install --no-deps resemblyzer"
        raise error
    return Path(next(iter(spec.submodule_search_locations)))
