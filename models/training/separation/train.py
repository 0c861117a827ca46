"""Train Dolphin on mixtures of real voices with drawn lips: one resumable command, any device.

``python -m prunus.models.training.separation.train --out runs/dolphin --minutes 60``

Each mixture is given twice, once with the lips of either speaker: the sound is the same, so only
the lips can tell which voice is asked for. The schedule follows the clock: `--minutes` is the
length of the whole run, resumed parts included. `--control` trains the same network without lips,
for comparison: it may give either voice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer
from prunus.models.separation.config import DolphinConfig, dolphin_config
from prunus.models.separation.deployed import MOUTH_MEAN, MOUTH_STD
from prunus.models.separation.dolphin import Dolphin
from prunus.models.separation.lips.coder import LipQuantizer
from prunus.models.training.codec.quantizer import CodebookTrainer
from prunus.models.training.data_record import fingerprint, note_data
from prunus.models.training.loop import (
    FOREVER,
    Facts,
    RunConfig,
    Trainer,
    add_bf16,
    start,
    train_parser,
)
from prunus.models.training.separation.mixtures import (
    MixtureBatches,
    MixtureRules,
    Mixtures,
    read_speakers,
)
from prunus.models.training.separation.scores import limited_snr, si_sdr
from prunus.models.training.state import (
    Average,
    Optimisers,
    adam_of,
    read_run,
    saved_in,
    write_run,
)

_COMMITMENT = 0.1
_SCALE = 0.1  # of the layers' branches at the start, published: 1e-5
_GATE = -2.0  # bias of the lip coder's gates at the start, published: -10
_SOFT = 0.2  # of the decoder's filters at the start
_LATE = 0.6  # of the run, from where mixtures have their late length
_PLAIN = round(255 * MOUTH_MEAN)  # grey crop that says nothing


@dataclass(frozen=True)
class SeparationTrainConfig(RunConfig):
    """Settings of a run.

    Attributes:
        rate: Learning rate.
        decay: Weight decay of matrices.
        warmup: Steps of rising rate.
        variant: ``nano`` or ``base``.
        batch: Mixtures per step; each counts twice.
        control: Train without lips; either voice is right.
        rules: How mixtures are made.
        late_frames: Frames per mixture in the last part of the run, None for those of `rules`:
            short mixtures teach more per second of the machine, long ones are what is deployed.
    """

    rate: float = 2e-3
    decay: float = 0.01
    warmup: int = 50
    variant: str = "nano"
    batch: int = 2
    control: bool = False
    rules: MixtureRules = field(default_factory=MixtureRules)
    late_frames: int | None = None


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


class SeparationTrainer(Trainer):
    """Run the training loop and keep its state.

    Args:
        config: Settings.
        resume: Go on from the checkpoint in `config.out`, if there is one.
    """

    config: SeparationTrainConfig
    network: Dolphin
    every = 5

    def __init__(self, config: SeparationTrainConfig, *, resume: bool) -> None:
        super().__init__(config)
        torch.manual_seed(config.seed)
        self.network = start_network(dolphin_config(config.variant)).to(self.device)
        self.average = Average(self.network, config.average)
        self.optimisers = Optimisers(
            [adam_of(self.network, config.rate, config.decay)], config.rate
        )
        if resume and saved_in(config.out):
            self.restore(read_run(config.out))
        books = _Books([_Book(self._quantizer)])
        self.codebooks = CodebookTrainer(cast(ResidualQuantizer, books), seed=config.seed)

    @property
    def _quantizer(self) -> LipQuantizer:
        return self.network.video_encoder.semantic_model.quantizer

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        config = self.config
        speakers = read_speakers(config.data, "train")
        late = replace(config.rules, frames=config.late_frames or config.rules.frames)
        early, late_ones = (
            MixtureBatches(speakers, config.batch, config.seed, rules)
            for rules in (config.rules, late)
        )
        hashes = {"speakers": fingerprint(speakers)}
        note_data(config.out, {"speakers": len(speakers)}, hashes, begun=self.clock.step > 0)

        def step(number: int) -> tuple[int, Facts]:
            batches = early if self.progress() < _LATE else late_ones
            return 2 * config.batch, self.step(batches[number])

        self.go_through(self.until_done(range(FOREVER)), step)
        self.save()

    def details(self) -> dict[str, Any]:
        """Return how many codes are in use."""
        return {"codes_in_use": self.codebooks.use()[0]}

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
        self.optimisers.step(self.factor())
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
        parts = {"network": self.network.state_dict(), "average": self.average.state}
        write_run(self.config.out, parts, self.optimisers, self.clock, {})


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
    parser = train_parser(__doc__, ".cache/speech", 2e-3)
    add = parser.add_argument
    add("--variant", default="nano", help="nano or base")
    add("--batch", type=int, default=2, help="mixtures per step")
    add("--frames", type=int, default=50, help="video frames per mixture")
    add("--late-frames", type=int, help="the same, after 60 %% of the run")
    add_bf16(parser, recipe=False)
    add("--control", action="store_true", help="without lips, for comparison")
    args = parser.parse_args()
    settings = start(args, "variant", "batch", "control", "late_frames")
    config = SeparationTrainConfig(**settings, rules=MixtureRules(frames=args.frames))
    SeparationTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
