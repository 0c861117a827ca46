"""How much of the other voices a separator removed: SI-SDR and SDR, and what was gained.

The *improvement* is the score of the separated voice minus that of the mixture, both against the
clean voice; published tables call them SI-SNRi (or SI-SDRi) and SDRi.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.quality import MOST_DB, si_sdr_db
from prunus.runtime.errors import MissingDependencyError, TensorError

Audio = npt.NDArray[np.float32]
SDR_TAPS = 512  # of the filter that BSS Eval lets a voice differ by


def sdr_db(clean: Audio, heard: Audio) -> float:
    """Return BSS Eval's SDR (Vincent et al., 2006) with its 512-tap distortion filter.

    Args:
        clean: (T,) float32.
        heard: (T,) float32, aligned to it.

    Returns:
        Decibels within +-100; NaN when either is silent.

    Raises:
        TensorError: the lengths differ.
        MissingDependencyError: fast-bss-eval is not installed.
    """
    if clean.shape != heard.shape or clean.ndim != 1:
        raise TensorError(
            f"Got sounds of {list(clean.shape)} and {list(heard.shape)} samples; expected equal "
            "lengths."
        )
    if not clean.any() or not heard.any():
        return float("nan")
    library = load_bss_eval()
    found = library.sdr(
        clean[None].astype(np.float64), heard[None].astype(np.float64),
        filter_length=SDR_TAPS, return_perm=False, load_diag=1e-10,
    )  # fmt: skip
    return float(np.clip(np.ravel(found)[0], -MOST_DB, MOST_DB))


def improvement(clean: Audio, mixture: Audio, voice: Audio) -> dict[str, float]:
    """Return ``SI-SDR dB``, ``SI-SDRi dB``, and ``SDR dB``, ``SDRi dB`` where they can be had.

    Args:
        clean: (T,) float32, the voice alone.
        mixture: (T,) float32, what the separator was given.
        voice: (T,) float32, what it gave.
    """
    after, before = si_sdr_db(clean, voice), si_sdr_db(clean, mixture)
    found = {"SI-SDR dB": after, "SI-SDRi dB": after - before}
    try:
        sdr = sdr_db(clean, voice)
        found |= {"SDR dB": sdr, "SDRi dB": sdr - sdr_db(clean, mixture)}
    except MissingDependencyError:
        pass
    return found


def load_bss_eval() -> Any:
    """Import fast-bss-eval; raises MissingDependencyError when it is not installed."""
    try:
        import fast_bss_eval
    except ImportError:
        raise MissingDependencyError("fast_bss_eval", "eval-audio", "SDR") from None
    return fast_bss_eval
