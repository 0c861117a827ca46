"""Train Dolphin on mixtures of real voices with drawn lips: one resumable command, any device.

``python -m prunus.models.training.separation.train --out runs/dolphin --minutes 60``

Each mixture is given twice, once with the lips of either speaker: the sound is the same, so only
the lips can tell which voice is asked for. The schedule follows the clock: `--minutes` is the
length of the whole run, resumed parts included. `--control` trains the same network without lips,
for comparison: it may give either voice.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer
from prunus.models.separation.config import DolphinConfig, dolphin_config
from prunus.models.separation.deployed import MOUTH_MEAN, MOUTH_STD
from prunus.models.separation.dolphin import Dolphin
from prunus.models.separation.lips.coder import LipQuantizer
from prunus.models.training.codec.quantizer import CodebookTrainer
from prunus.models.training.codec.state import load_saved_codec, save_codec
from prunus.models.training.pose.state import Average, Clock
from prunus.models.training.saved_run import WEIGHTS
from prunus.models.training.schedule import rate_factor
from prunus.models.training.separation.mixtures import (
    MixtureBatches,
    MixtureRules,
    Mixtures,
    read_speakers,
)
from prunus.models.training.separation.scores import limited_snr, si_sdr
from prunus.runtime.errors import UsageError

_COMMITMENT = 0.1
_SCALE = 0.1  # of the layers' branches at the start, published: 1e-5
_GATE = -2.0  # bias of the lip coder's gates at the start, published: -10
_SOFT = 0.2  # of the decoder's filters at the start
_LATE = 0.6  # of the run, from where mixtures have their late length
_PLAIN = round(255 * MOUTH_MEAN)  # grey crop that says nothing


@dataclass(frozen=True)
class SeparationTrainConfig:
    """Settings of a run; `minutes` or `steps` ends it, whichever comes first.

    Attributes:
        out: Folder of checkpoint and log.
        data: Folder of the speech cache.
        minutes: Length of the run by the clock.
        steps: Length of the run in steps.
        variant: ``nano`` or ``base``.
        device: ``cpu``, ``cuda`` ...
        seed: Of weights and batches.
        batch: Mixtures per step; each counts twice.
        rate: Learning rate.
        decay: Weight decay of matrices.
        warmup: Steps of rising rate.
        average: Decay of the averaged weights.
        save_minutes: Time between checkpoints.
        control: Train without lips; either voice is right.
        bf16: Compute in bfloat16 where the device gains by it.
        rules: How mixtures are made.
        late_frames: Frames per mixture in the last part of the run, None for those of `rules`:
            short mixtures teach more per second of the machine, long ones are what is deployed.
    """

    out: Path
    data: Path
    minutes: float | None = None
    steps: int | None = None
    variant: str = "nano"
    device: str = "cpu"
    seed: int = 0
    batch: int = 2
    rate: float = 2e-3
    decay: float = 0.01
    warmup: int = 50
    average: float = 0.998
    save_minutes: float = 3.0
    control: bool = False
    bf16: bool = False
    rules: MixtureRules = field(default_factory=MixtureRules)
    late_frames: int | None = None

    def __post_init__(self) -> None:
        if self.minutes is None and self.steps is None:
            raise UsageError("Got no length of the run.", "Give --minutes or --steps.")


class _Book:
    """A codebook of the lip coder as the trainer of codebooks knows them: without batch axis."""

    def __init__(self, quantizer: LipQuantizer) -> None:
        buffers = dict(quantizer.named_buffers())
        prefix = "layers.0._codebook."
        self.embed = buffers[f"{prefix}embed"][0]
        self.embed_avg = buffers[f"{prefix}embed_avg"][0]
        self.cluster_size = buffers[f"{prefix}cluster_size"][0]


@dataclass(frozen=True)
class _Books:
    codebooks: list[_Book]


class SeparationTrainer:
    """Run the training loop and keep its state.

    Args:
        config: Settings.
        resume: Go on from the checkpoint in `config.out`, if there is one.
    """

    def __init__(self, config: SeparationTrainConfig, *, resume: bool) -> None:
        self.config, self.clock = config, Clock()
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        self.network = start_network(dolphin_config(config.variant)).to(self.device)
        self.average = Average(self.network, config.average)
        self.optimiser = self._optimiser()
        if resume and (config.out / WEIGHTS).is_file():
            self._restore()
        books = _Books([_Book(self._quantizer)])
        self.codebooks = CodebookTrainer(cast(ResidualQuantizer, books), seed=config.seed)

    @property
    def _quantizer(self) -> LipQuantizer:
        return self.network.video_encoder.semantic_model.quantizer

    def progress(self) -> float:
        """Return how much of the run is done, 0..1."""
        shares = [0.0]
        if self.config.steps:
            shares.append(self.clock.step / self.config.steps)
        if self.config.minutes:
            shares.append(self.clock.seconds / (60 * self.config.minutes))
        return max(shares)

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        config = self.config
        speakers = read_speakers(config.data, "train")
        late = replace(config.rules, frames=config.late_frames or config.rules.frames)
        early_batches, late_batches = (
            MixtureBatches(speakers, config.batch, config.seed, rules)
            for rules in (config.rules, late)
        )
        config.out.mkdir(parents=True, exist_ok=True)
        mark = saved = time.monotonic()
        with (config.out / "log.jsonl").open("a") as log:
            while self.progress() < 1:
                batches = early_batches if self.progress() < _LATE else late_batches
                facts = self.step(batches[self.clock.step])
                now = time.monotonic()
                self.clock.seconds, mark = self.clock.seconds + now - mark, now
                self.clock.step += 1
                self.clock.samples += 2 * config.batch
                if self.clock.step % 5 == 0:
                    record = {k: round(v, 4) for k, v in facts.items()}
                    record["progress"] = round(self.progress(), 4)
                    use = {"codes_in_use": self.codebooks.use()[0]}
                    log.write(json.dumps({**asdict(self.clock), **record, **use}) + "\n")
                    log.flush()
                if now - saved > 60 * config.save_minutes:
                    self.save()
                    saved = now
        self.save()

    def step(self, batch: Mixtures) -> dict[str, float]:
        """Take one step; return what was measured."""
        mixture, voice, other, mouth = (
            x.to(self.device) for x in (batch.mixture, batch.voice, batch.other, batch.mouth)
        )
        # The first norm hides the level of a window from the network: levels are relative to it.
        level = mixture.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)
        mixture, voice, other = mixture / level, voice / level, other / level
        self.network.train()
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.config.bf16):
            lips, commitment = self._watch(mouth)
            got = self.network.listen(mixture, lips).squeeze(1).float()
        got = _as_long(got, voice.shape[-1])
        score = limited_snr(got, voice)
        if self.config.control:
            score = torch.maximum(score, limited_snr(got, other))
        total = _COMMITMENT * commitment - score.mean()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        factor = rate_factor(self.progress(), self.clock.step, self.config.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate * factor
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.network, self.clock.step)
        with torch.no_grad():
            gain = si_sdr(got, voice) - si_sdr(mixture, voice)
            wrong = si_sdr(got, other)
        return {
            "snr": float(score.detach().mean()),
            "si_sdr_gain": float(gain.mean()),
            "right_voice": float((si_sdr(got.detach(), voice) > wrong).float().mean()),
            "commitment": float(commitment.detach()),
            "gradient": float(norm),
        }

    def _watch(self, mouth: Tensor) -> tuple[Tensor, Tensor]:
        """Return lip features and the commitment loss, with gradients through the quantiser."""
        network, coder = self.network, self.network.video_encoder
        crops = torch.full_like(mouth, _PLAIN) if self.config.control else mouth
        scaled = normalised(crops)
        projected = self._quantizer.project_in(coder.semantic_model(scaled))
        vectors, commitment = self.codebooks.quantise(projected.float(), self.clock.step)
        features = self._quantizer.project_out(vectors) + coder.recon_model(scaled)
        return network.pre_v1(features.transpose(1, 2)), commitment

    def save(self) -> None:
        """Write the checkpoint."""
        save_codec(
            self.config.out, self.network, None, average=self.average,
            optimisers=[self.optimiser], clock=self.clock, config={},
        )  # fmt: skip

    def _restore(self) -> None:
        saved = load_saved_codec(self.config.out)
        self.network.load_state_dict(saved.network)
        self.average.state = {k: v.to(self.device) for k, v in saved.average.items()}
        if saved.optimisers is not None:
            self.optimiser.load_state_dict(saved.optimisers[0])
        self.clock = saved.clock

    def _optimiser(self) -> torch.optim.Optimizer:
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.rate, betas=(0.9, 0.98), fused=True)


def start_network(config: DolphinConfig) -> Dolphin:
    """Return a network whose branches and gates are open enough to learn from the first step.

    As published, layer scales of 1e-5 and closed gates leave nearly every block the identity for
    the first thousands of steps; and the answer begins far too loud.
    """
    network = Dolphin(config)
    with torch.no_grad():
        network.audio_decoder.weight.mul_(_SOFT)
        for name, value in network.named_parameters():
            if name.endswith("layer_scale"):
                value.fill_(_SCALE)
            elif name.endswith("net.2.bias") and "fn.4" in name:  # squeeze-excite, before sigmoid
                value.fill_(_GATE)
    return network


def normalised(mouth: Tensor) -> Tensor:
    """Return (B, 1, F, 88, 88) float32 of crops (B, F, 88, 88) uint8."""
    return ((mouth.float() / 255 - MOUTH_MEAN) / MOUTH_STD).unsqueeze(1)


def _as_long(got: Tensor, samples: int) -> Tensor:
    return torch.nn.functional.pad(got, (0, samples - got.shape[-1]))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train Dolphin on voices with drawn lips.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--data", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=2, help="mixtures per step")
    parser.add_argument("--frames", type=int, default=50, help="video frames per mixture")
    parser.add_argument("--late-frames", type=int, help="the same, after 60 %% of the run")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 (for a GPU)")
    parser.add_argument("--control", action="store_true", help="without lips, for comparison")
    parser.add_argument("--resume", choices=("auto", "no"), default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = SeparationTrainConfig(
        args.out, args.data, args.minutes, args.steps, variant=args.variant, device=args.device,
        seed=args.seed, batch=args.batch, rate=args.rate, bf16=args.bf16, control=args.control,
        rules=MixtureRules(frames=args.frames), late_frames=args.late_frames,
    )  # fmt: skip
    SeparationTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
