"""Quality: PESQ and STOI beside the original, DNSMOS and PLCMOS without it."""

from __future__ import annotations

import numpy as np

from prunus.apps.judges.judge import RATE_HZ, Audio, Heard, file_in, load, session

_WINDOW = 144160  # 9.01 s, what DNSMOS was trained on
# From the network's raw scores to the published scale (Reddy et al., ICASSP 2022, its own code).
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)


class Pesq:
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2): 1 to 4.64."""

    name, compares = "PESQ", True

    def __init__(self) -> None:
        self._pesq = load("pesq", "PESQ")

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
        self._stoi = load("pystoi", "STOI").stoi

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
        place = "dnsmos_models/sig_bak_ovr.onnx"
        self._session = session(file_in("speechmos", place, "DNSMOS"), "DNSMOS")
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


class Plcmos:
    """Quality of a call from which packets were lost, without a reference, PLCMOS v2: 1 to 5.

    Diener et al., Interspeech 2023: log power of windows of 32 ms every 16, and a vector that
    stands for a listener. The mean over as many listeners as its own code takes, here always the
    same ones.
    """

    name, compares = "PLCMOS", False
    _LISTENERS, _SIZE, _HOP = 15, 512, 256

    def __init__(self) -> None:
        place = "plcmos_models/plcmos_v2.onnx"
        self._session = session(file_in("speechmos", place, "PLCMOS"), "PLCMOS")
        drawn = np.random.default_rng(0).standard_normal((self._LISTENERS, 1, 64))
        self._listeners = drawn.astype(np.float32)

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        if not len(heard.decoded):
            return float("nan")
        levels = self.levels(heard.decoded)[None, None]
        feeds = [{"degraded_audio": levels, "rater_embed": one} for one in self._listeners]
        return float(np.mean([self._session.run(None, feed)[0] for feed in feeds]))

    def levels(self, sound: Audio) -> Audio:
        """Return (frames, 257) float32 of a sound (T,): ln(power) / 20."""
        sound = np.clip(sound, -1.0, 1.0).astype(np.float64)
        frames = -(-(len(sound) + self._HOP) // self._HOP)
        padded = np.pad(sound, (self._HOP, frames * self._HOP - len(sound)))
        cut = np.lib.stride_tricks.sliding_window_view(padded, self._SIZE)[:: self._HOP]
        power = np.abs(np.fft.rfft(cut * np.hamming(self._SIZE + 1)[:-1], axis=1)) ** 2
        # Digital silence lies 120 dB below the softest bin, or at -80 dB where all is silent.
        least = power[power > 0].min() * 1e-12 if power.any() else 1e-8
        return (np.log(np.where(power > 0, power, least)) / 20.0).astype(np.float32)
