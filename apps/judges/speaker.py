"""The speaker: does the voice stay that of the same person?"""

from __future__ import annotations

import numpy as np

from prunus.apps.judges.judge import RATE_HZ, Audio, Floats, Heard, file_in, load
from prunus.runtime.audio.quality import mel_bands, power

_PURPOSE = "Speaker similarity"
# Its dependencies are many and unused here.
_HINT = "Install it with: pip install --no-deps resemblyzer"


class Speaker:
    """Cosine between the voices of both sounds, by Resemblyzer's GE2E encoder; -1 to 1.

    Its published weights, loaded as plain tensors; without its silence trimming.
    """

    name, compares = "speaker", True
    _PARTIAL, _STEP = 160, 77  # frames of one look, and between two: 1.6 s and 0.77 s

    def __init__(self) -> None:
        path = file_in("resemblyzer", "pretrained.pt", _PURPOSE, _HINT)
        torch = load("torch", _PURPOSE, "models")
        saved = torch.load(path, map_location="cpu", weights_only=True)
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
        mels = (power(padded, 400, 160) @ self._bands.T).astype(np.float32)
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
