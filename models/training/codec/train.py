"""Train NsfCodec on the speech cache: one resumable command, any device.

``python -m prunus.models.training.codec.train --out runs/codec --minutes 60``, then
``... --out runs/codec --export-only nsfcodec_16k.safetensors``

The schedule follows the clock: `--minutes` is the length of the whole run, resumed parts included.
`--adversarial 0.5` switches discriminators on after half of it (for a GPU).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.causal import CausalStack
from prunus.models.codec.layers.source_filter import NOISE_FRAMES
from prunus.models.codec.nsfcodec.nsfcodec import (
    DECODER_DELAY,
    ENCODER_DELAY,
    NsfCodec,
    NsfCodecConfig,
    zero_past,
)
from prunus.models.training.codec.discriminator import SpectrumDiscriminator
from prunus.models.training.codec.losses import SpectralLoss, pitch_agreement, pitch_loss
from prunus.models.training.codec.quantizer import CodebookTrainer
from prunus.models.training.codec.ship import export_codec_weights
from prunus.models.training.codec.state import load_saved_codec, save_codec
from prunus.models.training.pose.state import Average, Clock
from prunus.models.training.saved_run import WEIGHTS
from prunus.models.training.schedule import rate_factor
from prunus.models.training.speech.batches import SpeechAugment, SpeechBatches, read_recordings

_COMMITMENT, _PITCH, _FEATURES = 0.25, 0.3, 2.0
_LEAD = ENCODER_DELAY + DECODER_DELAY


@dataclass(frozen=True)
class CodecTrainConfig:
    """Settings of a run; `minutes` or `steps` ends it, whichever comes first.

    Attributes:
        out: Folder of checkpoint and log.
        data: Folder of the speech cache.
        minutes: Length of the run by the clock.
        steps: Length of the run in steps.
        network: Sizes of the codec.
        device: ``cpu``, ``cuda`` ...
        seed: Of weights and batches.
        batch: Pieces per step.
        frames: Frames of 20 ms per piece that count.
        rate: Learning rate.
        decay: Weight decay of matrices.
        bf16: Compute the stacks in bfloat16.
        warmup: Steps of rising rate.
        average: Decay of the averaged weights.
        adversarial: Progress after which discriminators join, 1 for never.
        save_minutes: Time between checkpoints.
        augment: Variation of the pieces.
    """

    out: Path
    data: Path
    minutes: float | None = None
    steps: int | None = None
    network: NsfCodecConfig = field(default_factory=NsfCodecConfig)
    device: str = "cpu"
    seed: int = 0
    batch: int = 16
    frames: int = 48
    rate: float = 1e-3
    decay: float = 0.02
    bf16: bool = True
    warmup: int = 50
    average: float = 0.997
    adversarial: float = 1.0
    save_minutes: float = 3.0
    augment: SpeechAugment = field(default_factory=SpeechAugment)


class CodecTrainer:
    """Run the training loop and keep its state.

    Args:
        config: Settings.
        resume: Go on from the checkpoint in `config.out`, if there is one.
    """

    def __init__(self, config: CodecTrainConfig, *, resume: bool) -> None:
        self.config, self.clock = config, Clock()
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        self.network = NsfCodec(config.network).to(self.device)
        self.judge = SpectrumDiscriminator().to(self.device) if config.adversarial < 1 else None
        self.loss = SpectralLoss(config.network.sample_rate_hz).to(self.device)
        self.optimisers = self._optimisers()
        self.average = Average(self.network, config.average)
        if resume and (config.out / WEIGHTS).is_file():
            self._restore()
        self.codebooks = CodebookTrainer(self.network.quantizer, seed=config.seed)
        self._forwards = self._in_half() if config.bf16 else {}

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
        recordings = read_recordings(config.data, "train")
        length = config.frames + _LEAD
        batches = SpeechBatches(recordings, length, config.batch, config.seed, config.augment)
        config.out.mkdir(parents=True, exist_ok=True)
        if self.clock.step == 0:
            start_levels(self.network, batches[0][0].to(self.device))
            self.average = Average(self.network, config.average)
        mark = saved = time.monotonic()
        with (config.out / "log.jsonl").open("a") as log:
            while self.progress() < 1:
                sound, pitch = batches[self.clock.step]
                facts = self.step(sound.to(self.device), pitch.to(self.device))
                now = time.monotonic()
                self.clock.seconds, mark = self.clock.seconds + now - mark, now
                self.clock.step += 1
                self.clock.samples += len(sound)
                if self.clock.step % 10 == 0:
                    record = {k: round(v, 4) for k, v in facts.items()}
                    record["progress"] = round(self.progress(), 4)
                    use = {"codes_in_use": self.codebooks.use()}
                    log.write(json.dumps({**asdict(self.clock), **record, **use}) + "\n")
                    log.flush()
                if now - saved > 60 * config.save_minutes:
                    self.save()
                    saved = now
        self.save()

    def step(self, sound: Tensor, pitch: Tensor) -> dict[str, float]:
        """Take one step on sounds (B, F * hop) and pitch codes (B, F); return what was measured."""
        network, config, hop = self.network, self.config, self.config.network.hop
        network.train()
        logits, features, _ = network.encoder(sound, self._past(network.encoder, len(sound)))
        logits, features = logits[:, ENCODER_DELAY:], features[:, ENCODER_DELAY:]
        known = pitch[:, : logits.shape[1]]
        vectors, commitment = self.codebooks.quantise(features.float(), self.clock.step)
        past = self._past(network.decoder, len(sound))
        self._vary_source(past)
        got, _ = network.decoder(known, vectors, past)
        got = got[:, DECODER_DELAY * hop :]
        wanted = sound[:, : got.shape[1]]
        spectral, tone = self.loss(got, wanted), pitch_loss(logits, known)
        total = spectral + _COMMITMENT * commitment + _PITCH * tone
        facts = {"spectral": float(spectral.detach()), "commitment": float(commitment.detach()),
                 "pitch": float(tone.detach()),
                 "pitch_right": pitch_agreement(logits.argmax(dim=2), known)}  # fmt: skip
        factor = rate_factor(self.progress(), self.clock.step, config.warmup)
        if self.judge is not None and self.progress() >= config.adversarial:
            total = total + self._adversarial(self.judge, wanted, got, factor, facts)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        facts["gradient"] = float(norm)
        self._update(self.optimisers[0], factor)
        self.average.update(network, self.clock.step)
        return facts

    def save(self) -> None:
        """Write the checkpoint."""
        save_codec(
            self.config.out, self.network, self.judge, average=self.average,
            optimisers=self.optimisers, clock=self.clock, config=asdict(self.config.network),
        )  # fmt: skip

    def _adversarial(
        self, judge: SpectrumDiscriminator, wanted: Tensor, got: Tensor, factor: float,
        facts: dict[str, float],
    ) -> Tensor:  # fmt: skip
        told = judge.loss(wanted, got)
        told.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 10.0)
        self._update(self.optimisers[1], factor)
        disbelief, distance = judge.generator_loss(wanted, got)
        facts |= {"judge": float(told.detach()), "disbelief": float(disbelief.detach())}
        return disbelief + _FEATURES * distance

    def _update(self, optimiser: torch.optim.Optimizer, factor: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.config.rate * factor * group.get("share", 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if len(self.optimisers) > 1:  # the generator's losses leave gradients in the judges
            self.optimisers[1].zero_grad(set_to_none=True)

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": self.config.decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=self.config.rate, betas=(0.9, 0.98), fused=True)
        ]
        if self.judge is not None:
            judges = [{"params": list(self.judge.parameters()), "share": 0.3}]
            made.append(torch.optim.AdamW(judges, lr=self.config.rate, betas=(0.5, 0.9)))
        return made

    def _restore(self) -> None:
        saved = load_saved_codec(self.config.out)
        self.network.load_state_dict(saved.network)
        self.average.state = {k: v.to(self.device) for k, v in saved.average.items()}
        if self.judge is not None and saved.judge:
            self.judge.load_state_dict(saved.judge)
        if saved.optimisers is not None:
            for optimiser, state in zip(self.optimisers, saved.optimisers, strict=False):
                optimiser.load_state_dict(state)
        self.clock = saved.clock

    def _past(self, part: Any, batch: int) -> list[Tensor]:
        return [state.to(self.device) for state in zero_past(part.states(), batch)]

    def _vary_source(self, past: list[Tensor]) -> None:
        """Begin each piece at another place in period and noise, as a stream would."""
        generator = torch.Generator().manual_seed(self.config.seed + self.clock.step)
        batch = past[0].shape[0]
        phase = torch.rand((batch, 1), generator=generator)
        count = torch.randint(NOISE_FRAMES, (batch, 1), generator=generator).float()
        past[-5], past[-4] = phase.to(self.device), count.to(self.device)

    def _in_half(self) -> dict[str, Callable[..., Any]]:
        """Let the stacks, and nothing else, compute in bfloat16."""
        kept = {}
        for name, module in self.network.named_modules():
            if isinstance(module, CausalStack):
                kept[name] = module.forward
                module.forward = _autocast(module, self.device.type)  # type: ignore[method-assign]
        return kept


@torch.no_grad()
def start_levels(network: NsfCodec, sound: Tensor) -> None:
    """Let the untrained decoder speak with the average spectrum of (B, T) sounds.

    Otherwise the first hundreds of steps go into finding how loud speech is.
    """
    shaper, head = network.decoder.filter, network.decoder.head
    noise = network.decoder.source.noise.flatten().unsqueeze(0)

    def level(x: Tensor) -> Tensor:
        spectrum = functional.conv1d(x.unsqueeze(1), shaper.analysis, stride=shaper.hop)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = real.pow(2) + imaginary.pow(2) + 1e-4
        return 0.5 * power.log().mean(dim=(0, 2))

    share = shaper.spread / shaper.spread.sum(dim=1, keepdim=True)
    bands = share @ (level(sound) - level(noise)) - 0.5 * math.log(2.0)  # half the power to each
    head.bias.copy_(bands.repeat(head.out_features // len(bands)))


def _autocast(module: nn.Module, device: str) -> Callable[..., Any]:
    plain = module.forward

    def forward(x: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(device, torch.bfloat16):
            out, following = plain(x, past)
        return out.float(), following

    return forward


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train NsfCodec on the speech cache.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--data", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--no-bf16", action="store_true", help="compute in float32 throughout")
    parser.add_argument("--adversarial", type=float, default=1.0, metavar="SHARE",
                        help="switch discriminators on after this share of the run")  # fmt: skip
    parser.add_argument("--resume", choices=("auto", "no"), default="auto")
    parser.add_argument("--export-only", type=Path, metavar="FILE",
                        help="write the run's averaged weights, do not train")  # fmt: skip
    args = parser.parse_args()
    if args.export_only is not None:
        print(export_codec_weights(args.out, args.data, args.export_only, args.device))
        return
    torch.set_num_threads(args.threads)
    config = CodecTrainConfig(
        args.out, args.data, args.minutes, args.steps, device=args.device, seed=args.seed,
        batch=args.batch, rate=args.rate, bf16=not args.no_bf16, adversarial=args.adversarial,
    )  # fmt: skip
    CodecTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
