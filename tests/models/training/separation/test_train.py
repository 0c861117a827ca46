"""The separation recipe: mixtures, scores, a few steps, going on, judging."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from prunus.models.separation.config import dolphin_config
from prunus.models.training.separation.evaluate import SeparationScores, evaluate, load_trained
from prunus.models.training.separation.mixtures import (
    MixtureBatches,
    MixtureRules,
    read_folder,
    read_speakers,
)
from prunus.models.training.separation.scores import limited_snr, si_sdr
from prunus.models.training.separation.train import (
    SeparationTrainConfig,
    SeparationTrainer,
    start_network,
)
from prunus.runtime.errors import ArtifactError, UsageError

RULES = MixtureRules(frames=6)


def _voice(seed: int, seconds: float = 12.0) -> np.ndarray:
    """A buzz of its own pitch in syllables of its own rate."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16_000 * seconds)) / 16_000
    buzz = sum(np.sin(2 * np.pi * k * (90 + 60 * seed) * time) / k for k in range(1, 12))
    beats = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + seed), 0, 1)
    return (4000 * buzz * beats).astype(np.int16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers, one of them in two packages, and two for the test."""
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    people = [("a1", "anna", "train"), ("a2", "anna", "train"), ("b", "bert", "train"),
              ("c", "carl", "train"), ("t", "tina", "test"), ("u", "udo", "test")]  # fmt: skip
    for k, (name, speaker, split) in enumerate(people):
        sound = _voice(k)
        np.save(folder / f"{name}.sound.npy", sound)
        np.save(folder / f"{name}.pitch.npy", np.full(len(sound) // 320, 40, np.uint8))
        rows.append({"name": name, "speaker": speaker, "split": split})
    (folder / "manifest.json").write_text(json.dumps(rows))
    return folder


def test_speakers_are_grouped_and_split(cache: Path) -> None:
    train = read_speakers(cache, "train")
    assert [(s.name, len(s.recordings)) for s in train] == [("anna", 2), ("bert", 1), ("carl", 1)]
    assert {s.name for s in read_speakers(cache, "test")}.isdisjoint(s.name for s in train)
    with pytest.raises(ArtifactError, match="no speech cache"):
        read_speakers(cache / "none", "train")


def test_a_mixture_is_the_sum_of_its_voices_and_comes_with_the_lips_of_each(cache: Path) -> None:
    batches = MixtureBatches(read_speakers(cache, "train"), 3, 7, RULES)
    batch = batches[5]
    assert batch.mixture.shape == batch.voice.shape == (6, 6 * 640)
    assert batch.mouth.shape == (6, 6, 88, 88) and batch.mouth.dtype == torch.uint8
    torch.testing.assert_close(batch.mixture[0::2], batch.mixture[1::2])
    torch.testing.assert_close(batch.voice[0::2], batch.other[1::2])
    noise = batch.mixture - batch.voice - batch.other
    assert noise.square().mean().sqrt() < 2e-3
    level = 20 * batch.mixture.square().mean(-1).sqrt().log10()
    assert ((level > -33) & (level < -17)).all()
    ratio = 10 * (batch.voice.square().sum(-1) / batch.other.square().sum(-1)).log10()
    assert (ratio.abs() <= 5.01).all()
    again = MixtureBatches(read_speakers(cache, "train"), 3, 7, RULES)[5]
    assert torch.equal(again.mixture, batch.mixture) and torch.equal(again.mouth, batch.mouth)
    assert not torch.equal(batches[6].mixture, batch.mixture)
    only = MixtureBatches(read_speakers(cache, "train"), 3, 7, RULES, first=["carl"])[0]
    assert only.names[0::2] == ("carl",) * 3


def test_lips_belong_to_their_voice(cache: Path) -> None:
    """Dark pixels of a mouth follow its own voice, not the other one."""
    rules = MixtureRules(frames=50)
    batch = MixtureBatches(read_speakers(cache, "train"), 4, 1, rules)[0]
    dark = (batch.mouth < 75).float().sum(dim=(2, 3))
    own, others = [], []
    for row in range(8):
        envelope, wrong = (
            x[row].reshape(50, 640).square().mean(-1).sqrt() for x in (batch.voice, batch.other)
        )
        own.append(torch.corrcoef(torch.stack([dark[row], envelope]))[0, 1])
        others.append(torch.corrcoef(torch.stack([dark[row], wrong]))[0, 1])
    assert torch.stack(own).mean() > torch.stack(others).mean() + 0.3


def test_scores_are_what_they_are_called() -> None:
    generator = torch.Generator().manual_seed(0)
    voice = torch.randn(2, 8000, generator=generator)
    noise = torch.randn(2, 8000, generator=generator)
    noise -= (noise * voice).sum(-1, keepdim=True) / voice.square().sum(-1, keepdim=True) * voice
    noise *= (voice.square().sum(-1, keepdim=True) / noise.square().sum(-1, keepdim=True)).sqrt()
    got = voice + 0.1 * noise  # 20 dB below
    torch.testing.assert_close(si_sdr(got, voice), torch.full((2,), 20.0), atol=0.1, rtol=0)
    torch.testing.assert_close(si_sdr(3 * got, voice), si_sdr(got, voice), atol=1e-3, rtol=0)
    assert (limited_snr(3 * got, voice) < 0).all()
    assert limited_snr(voice, voice)[0] == pytest.approx(30, abs=0.01)


def test_a_folder_of_speakers_serves_for_judging(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for k, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", _voice(k, 2.0).astype(np.float32) / 32768, 16000)
    assert [s.name for s in read_folder(tmp_path)] == ["one", "two"]
    (tmp_path / "alone").mkdir()
    with pytest.raises(ArtifactError, match="two or more"):
        read_folder(tmp_path / "one")


def _config(cache: Path, out: Path, **changes) -> SeparationTrainConfig:
    values = {"steps": 4, "batch": 1, "warmup": 2, "rules": RULES, "average": 0.5}
    return SeparationTrainConfig(out, cache, **{**values, **changes})


def test_a_run_leaves_weights_and_a_log_and_goes_on(cache: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rules = MixtureRules(frames=4)
    SeparationTrainer(_config(cache, tmp_path, steps=1, rules=rules), resume=False).run()
    rest = SeparationTrainer(_config(cache, tmp_path, steps=5, rules=rules), resume=True)
    assert rest.clock.step == 1
    rest.clock.step = 4  # as if it had been left later
    changed = copytree(cache, tmp_path / "changed")
    np.save(changed / "b.sound.npy", np.roll(np.load(changed / "b.sound.npy"), 1))
    rest.config = replace(rest.config, data=changed)
    with pytest.raises(UsageError, match="have changed: it began with speakers"):
        rest.run()
    rest.config = replace(rest.config, data=cache)
    rest.run()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["step"] == 5 and record["progress"] == 1.0
    assert np.isfinite([record[k] for k in ("snr", "si_sdr_gain", "gradient")]).all()
    assert load_trained(tmp_path, "nano").training is False
    other = SeparationTrainer(_config(cache, tmp_path), resume=False)
    assert other.clock.step == 0


@pytest.mark.slow
def test_training_in_two_parts_equals_training_in_one(cache: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    SeparationTrainer(_config(cache, tmp_path / "a"), resume=False).run()
    half = SeparationTrainer(_config(cache, tmp_path / "b"), resume=False)
    half.config.out.mkdir(parents=True, exist_ok=True)
    batches = MixtureBatches(read_speakers(cache, "train"), 1, 0, RULES)
    for k in range(2):
        half.step(batches[k])
        half.clock.step += 1
    half.save()
    rest = SeparationTrainer(_config(cache, tmp_path / "b"), resume=True)
    assert rest.clock.step == 2
    rest.run()
    whole, parts = (load_trained(tmp_path / x, "nano", average=False) for x in "ab")
    for (name, one), two in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=name)


def test_the_control_sees_no_lips(cache: Path, tmp_path: Path) -> None:
    trainer = SeparationTrainer(_config(cache, tmp_path, control=True), resume=False)
    first = MixtureBatches(read_speakers(cache, "train"), 1, 0, RULES)[0]
    trainer.network.eval()
    with torch.no_grad():
        lips, _ = trainer._watch(first.mouth)
    torch.testing.assert_close(lips[0], lips[1])
    facts = trainer.step(first)
    assert np.isfinite(list(facts.values())).all()


def test_a_run_needs_a_length(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="length"):
        SeparationTrainConfig(tmp_path, tmp_path)


class _Oracle(torch.nn.Module):
    """Gives the voice whose lips it is shown: the truth with a little of the other in it."""

    def __init__(self, batches: MixtureBatches, *, deaf: bool) -> None:
        super().__init__()
        self.batches, self.deaf, self.batch = batches, deaf, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mixture: torch.Tensor, mouth: torch.Tensor) -> torch.Tensor:
        batch = next(b for b in (self.batches[k] for k in range(3))
                     if torch.equal(b.mixture, mixture))  # fmt: skip
        seen = (mouth[:, 0] * 0.165 + 0.421).mul(255).round().to(torch.uint8)
        rows = []
        for row in range(len(mixture)):
            right = torch.equal(seen[row], batch.mouth[row])
            crossed = torch.equal(seen[row], batch.mouth[row ^ 1])
            if self.deaf or right:
                rows.append(batch.voice[row] + 0.1 * batch.other[row])
            elif crossed:
                rows.append(batch.other[row] + 0.1 * batch.voice[row])
            else:
                rows.append(mixture[row])
        return torch.stack(rows).unsqueeze(1)


@pytest.mark.parametrize("deaf", [False, True])
def test_the_judge_tells_who_reads_lips(cache: Path, deaf: bool) -> None:
    batches = MixtureBatches(read_speakers(cache, "test"), 2, 3, RULES)
    scores = evaluate(_Oracle(batches, deaf=deaf), batches, 2)
    assert isinstance(scores, SeparationScores) and scores.mixtures == 4
    assert scores.gain_db > 8 and scores.right_voice > 0.9
    assert scores.reads_lips is not deaf
    if not deaf:
        assert scores.swap_follows > 0.9 and abs(scores.frozen_gain_db) < 0.5


def test_the_start_leaves_branches_open() -> None:
    network = start_network(dolphin_config("nano"))
    scales = [v for n, v in network.named_parameters() if n.endswith("layer_scale")]
    gates = [v for n, v in network.named_parameters() if "fn.4.net.2.bias" in n]
    assert scales and all((v == 0.1).all() for v in scales)
    assert gates and all((v == -2).all() for v in gates)


@pytest.mark.slow
def test_fifty_steps_learn_one_mixture(cache: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = _config(cache, tmp_path, steps=400, warmup=5)
    trainer = SeparationTrainer(config, resume=False)
    batch = MixtureBatches(read_speakers(cache, "train"), 1, 0, RULES)[0]
    scores = []
    for _ in range(50):
        scores.append(trainer.step(batch)["snr"])
        trainer.clock.step += 1
    assert np.mean(scores[-5:]) > np.mean(scores[:5]) + 1.0
