"""Judge a separator on speakers that it has not heard: gain, swapped lips, frozen lips.

``python -m prunus.models.training.separation.evaluate runs/dolphin --data .cache/speech``

Four questions, each over the same mixtures:

* *gain*: by how many dB of SI-SDR is the voice purer than the mixture was?
* *swap*: with the lips of the other speaker, does the other voice come out?
* *frozen*: with lips that stand still, is it worse, as it must be if the lips are read?
* *control*: what does the same network reach that was trained without lips? It may give either
  voice, and the better one is counted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from prunus.models.separation.config import dolphin_config
from prunus.models.separation.dolphin import Dolphin
from prunus.models.training.separation.mixtures import (
    MixtureBatches,
    MixtureRules,
    Mixtures,
    Speaker,
    read_folder,
    read_speakers,
)
from prunus.models.training.separation.scores import si_sdr
from prunus.models.training.separation.train import normalised
from prunus.models.training.state import read_run


@dataclass(frozen=True, slots=True)
class SeparationScores:
    """Means over all mixtures and both speakers of each.

    Attributes:
        mixtures: How many.
        before_db: SI-SDR of the mixture.
        gain_db: SI-SDR of the voice above that.
        swapped_gain_db: Gain towards the *other* voice when the lips are swapped.
        frozen_gain_db: Gain with lips that stand still.
        best_of_two_db: Gain towards the nearer voice, whichever was asked for.
        right_voice: Share of answers that are nearer to the voice that was asked for.
        swap_follows: Share of answers that change to the other voice with the lips.
    """

    mixtures: int
    before_db: float
    gain_db: float
    swapped_gain_db: float
    frozen_gain_db: float
    best_of_two_db: float
    right_voice: float
    swap_follows: float

    @property
    def reads_lips(self) -> bool:
        """Whether swapped lips swap the voice and frozen ones cost at least half a decibel."""
        return self.swap_follows >= 0.7 and self.frozen_gain_db <= self.gain_db - 0.5


@torch.no_grad()
def evaluate(network: Dolphin, batches: MixtureBatches, count: int) -> SeparationScores:
    """Score a network on the first `count` batches."""
    network.eval()
    device = next(network.parameters()).device
    rows: list[Tensor] = []
    for k in range(count):
        rows.append(_judge(network, batches[k], device))
    table = torch.cat(rows)
    means = table.mean(dim=0).tolist()
    return SeparationScores(len(table) // 2, *(round(x, 3) for x in means))


def _judge(network: Dolphin, batch: Mixtures, device: torch.device) -> Tensor:
    """Return (2 n, 7): the columns of `SeparationScores` per row of the batch."""
    mixture, voice, other = (x.to(device) for x in (batch.mixture, batch.voice, batch.other))
    swapped = batch.mouth.reshape(-1, 2, *batch.mouth.shape[1:]).flip(1).reshape(batch.mouth.shape)
    still = batch.mouth[:, :1].expand_as(batch.mouth)
    got, crossed, frozen = (
        _separate(network, mixture, mouth.to(device)) for mouth in (batch.mouth, swapped, still)
    )
    before, before_other = si_sdr(mixture, voice), si_sdr(mixture, other)
    right, wrong = si_sdr(got, voice), si_sdr(got, other)
    gain = right - before
    nearer = torch.maximum(gain, wrong - before_other)
    follows = (right > wrong) & (si_sdr(crossed, other) > si_sdr(crossed, voice))
    columns = (
        before,
        gain,
        si_sdr(crossed, other) - before_other,
        si_sdr(frozen, voice) - before,
        nearer,
        (right > wrong).float(),
        follows.float(),
    )
    return torch.stack(columns, dim=1).cpu()


def _separate(network: Dolphin, mixture: Tensor, mouth: Tensor) -> Tensor:
    got = network(mixture, normalised(mouth)).squeeze(1)
    return torch.nn.functional.pad(got, (0, mixture.shape[-1] - got.shape[-1]))


def load_trained(folder: Path, variant: str, *, average: bool = True) -> Dolphin:
    """Return the network of a training run.

    Raises:
        ArtifactError: there is no checkpoint in the folder.
    """
    saved = read_run(folder)
    network = Dolphin(dolphin_config(variant))
    network.load_state_dict(saved.average if average else saved.network)
    return network.eval()


def unseen_batches(
    data: Path, folder: Path | None, size: int, frames: int, seed: int = 1000
) -> MixtureBatches:
    """Return mixtures of speakers that no training heard.

    Without a folder the speech cache's test split serves: one unseen speaker against unseen
    sentences of one whose other sentences were trained on.
    """
    speakers: Sequence[Speaker] = (
        read_folder(folder) if folder is not None else read_speakers(data, "test")
    )
    return MixtureBatches(speakers, size, seed, MixtureRules(frames=frames))


def main() -> None:
    """Parse the command line, score, and print JSON."""
    parser = argparse.ArgumentParser(description="Judge a trained Dolphin on unseen speakers.")
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--data", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--speakers", type=Path, help="folder with one folder per speaker")
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--size", type=int, default=2, help="mixtures per batch")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--last", action="store_true", help="the last weights, not their average")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = load_trained(args.run, args.variant, average=not args.last).to(args.device)
    batches = unseen_batches(args.data, args.speakers, args.size, args.frames)
    scores = evaluate(network, batches, args.batches)
    print(json.dumps({**asdict(scores), "reads_lips": scores.reads_lips}, indent=1))


if __name__ == "__main__":
    main()
