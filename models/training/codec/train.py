"""Train NsfCodec on the speech cache: one resumable command, any device.

``python -m prunus.models.training.codec.train --out runs/codec --minutes 60``, then
``... --out runs/codec --export-only nsfcodec_16k.safetensors``

The schedule follows the clock: `--minutes` is the length of the whole run, resumed parts included.
`--adversarial 0.5` switches discriminators on after half of it (for a GPU).
"""

from __future__ import annotations

import json
import math
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
from prunus.models.training.data_record import fingerprint, note_data
from prunus.models.training.loop import Facts, RunConfig, Trainer, add_bf16, start, train_parser
from prunus.models.training.speech.batches import SpeechAugment, SpeechBatches, read_recordings
from prunus.models.training.state import (
    Average,
    Optimisers,
    adam_of,
    read_run,
    saved_in,
    write_run,
)

_COMMITMENT, _PITCH, _FEATURES = 0.25, 0.3, 2.0
_LEAD = ENCODER_DELAY + DECODER_DELAY


@dataclass(frozen=True)
class CodecTrainConfig(RunConfig):
    """Settings of a run; the stacks alone compute in bfloat16.

    Attributes:
        rate: Learning rate.
        decay: Weight decay of matrices.
        warmup: Steps of rising rate.
        average: Decay of the averaged weights.
        network: Sizes of the codec.
        batch: Pieces per step.
        frames: Frames of 20 ms per piece that count.
        adversarial: Progress after which discriminators join, 1 for never.
        augment: Variation of the pieces.
    """

    rate: float = 1e-3
    decay: float = 0.02
    warmup: int = 50
    average: float = 0.997
    network: NsfCodecConfig = field(default_factory=NsfCodecConfig)
    batch: int = 16
    frames: int = 48
    adversarial: float = 1.0
    augment: SpeechAugment = field(default_factory=SpeechAugment)


class CodecTrainer(Trainer):
    """Run the training loop and keep its state.

    Args:
        config: Settings.
        resume: Go on from the checkpoint in `config.out`, if there is one.
    """

    config: CodecTrainConfig
    network: NsfCodec

    def __init__(self, config: CodecTrainConfig, *, resume: bool) -> None:
        super().__init__(config)
        torch.manual_seed(config.seed)
        self.network = NsfCodec(config.network).to(self.device)
        self.judge = SpectrumDiscriminator().to(self.device) if config.adversarial < 1 else None
        self.loss = SpectralLoss(config.network.sample_rate_hz).to(self.device)
        self.optimisers = self._optimisers()
        self.average = Average(self.network, config.average)
        if resume and saved_in(config.out):
            saved = read_run(config.out)
            if self.judge is not None and "judge" in saved.parts:
                self.judge.load_state_dict(saved.parts["judge"])
            self.restore(saved)
        self.codebooks = CodebookTrainer(self.network.quantizer, seed=config.seed)
        if config.bf16:
            self._compute_in_half()

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        config = self.config
        recordings = read_recordings(config.data, "train")
        length = config.frames + _LEAD
        batches = SpeechBatches(recordings, length, config.batch, config.seed, config.augment)
        hashes = {"recordings": fingerprint(recordings)}
        note_data(config.out, {"recordings": len(recordings)}, hashes, begun=self.clock.step > 0)
        if self.clock.step == 0:
            start_levels(self.network, batches[0][0].to(self.device))
            self.average = Average(self.network, config.average)

        def step(batch: tuple[Tensor, Tensor]) -> tuple[int, Facts]:
            sound, pitch = batch
            return len(sound), self.step(sound.to(self.device), pitch.to(self.device))

        self.go_through(self.until_done(batches), step)
        self.save()

    def details(self) -> dict[str, Any]:
        """Return how many codes of each book are in use."""
        return {"codes_in_use": self.codebooks.use()}

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
        factor = self.factor()
        if self.judge is not None and self.progress() >= config.adversarial:
            total = total + self._adversarial(self.judge, wanted, got, factor, facts)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        facts["gradient"] = float(norm)
        self.optimisers.step(factor, only=0)
        if self.judge is not None:  # the generator's losses leave gradients in the judges
            self.judge.zero_grad(set_to_none=True)
        self.average.update(network, self.clock.step)
        return facts

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"network": self.network.state_dict(), "average": self.average.state}
        if self.judge is not None:
            parts["judge"] = self.judge.state_dict()
        config = json.dumps(asdict(self.config.network))
        facts = {"config": config, "bf16": str(self.config.bf16)}
        write_run(self.config.out, parts, self.optimisers, self.clock, facts)

    def _adversarial(
        self, judge: SpectrumDiscriminator, wanted: Tensor, got: Tensor, factor: float,
        facts: dict[str, float],
    ) -> Tensor:  # fmt: skip
        told = judge.loss(wanted, got)
        told.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 10.0)
        self.optimisers.step(factor, only=1)
        disbelief, distance = judge.generator_loss(wanted, got)
        facts |= {"judge": float(told.detach()), "disbelief": float(disbelief.detach())}
        return disbelief + _FEATURES * distance

    def _optimisers(self) -> Optimisers:
        rate = self.config.rate
        made = [adam_of(self.network, rate, self.config.decay)]
        if self.judge is not None:
            judges = [{"params": list(self.judge.parameters()), "share": 0.3}]
            made.append(torch.optim.AdamW(judges, lr=rate, betas=(0.5, 0.9)))
        return Optimisers(made, rate)

    def _past(self, part: Any, batch: int) -> list[Tensor]:
        return [state.to(self.device) for state in zero_past(part.states(), batch)]

    def _vary_source(self, past: list[Tensor]) -> None:
        """Begin each piece at another place in period and noise, as a stream would."""
        generator = torch.Generator().manual_seed(self.config.seed + self.clock.step)
        batch = past[0].shape[0]
        phase = torch.rand((batch, 1), generator=generator)
        count = torch.randint(NOISE_FRAMES, (batch, 1), generator=generator).float()
        past[-5], past[-4] = phase.to(self.device), count.to(self.device)

    def _compute_in_half(self) -> None:
        """Let the stacks, and nothing else, compute in bfloat16."""
        for module in self.network.modules():
            if isinstance(module, CausalStack):
                module.forward = _autocast(module, self.device.type)  # type: ignore[method-assign]


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
    parser = train_parser(__doc__, ".cache/speech", 1e-3)
    add = parser.add_argument
    add("--batch", type=int, default=16, help="pieces per step")
    add_bf16(parser)
    add("--adversarial", type=float, default=1.0, metavar="SHARE",
        help="switch discriminators on after this share of the run")  # fmt: skip
    add("--export-only", type=Path, metavar="FILE",
        help="write the run's averaged weights, do not train")  # fmt: skip
    args = parser.parse_args()
    if args.export_only is not None:
        print(export_codec_weights(args.out, args.data, args.export_only, args.device))
        return
    config = CodecTrainConfig(**start(args, "batch", "adversarial"))
    CodecTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
