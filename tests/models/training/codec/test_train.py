"""The codec's trainer on made-up voices: it learns, goes on, and hands over what it has."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from prunus.models.codec.nsfcodec.nsfcodec import NsfCodecConfig
from prunus.models.codec.nsfcodec.pitch_grid import PITCHES
from prunus.models.codec.nsfcodec.weights import load_nsf
from prunus.models.training.codec.discriminator import SpectrumDiscriminator
from prunus.models.training.codec.losses import SpectralLoss, pitch_agreement, pitch_loss
from prunus.models.training.codec.quantizer import CodebookTrainer
from prunus.models.training.codec.ship import export_codec_weights
from prunus.models.training.codec.train import CodecTrainConfig, CodecTrainer
from prunus.models.training.speech.pitch import track_pitch
from prunus.models.training.state import read_run
from prunus.runtime.errors import ArtifactError, UsageError

RATE = 16000
SMALL = NsfCodecConfig(
    width=48, hidden=96, encoder_blocks=1, decoder_blocks=1, pitch_width=32, stages=2, codes=64,
    dim=16, mel_bands=40, bands=32,
)  # fmt: skip


def _voice(seconds, seed):
    """Buzz with moving pitch and formant, and hiss between: enough to learn something from."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE * seconds) / RATE
    hertz = 130 + 40 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * time)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    formant = 700 + 400 * np.sin(2 * np.pi * 1.1 * time)
    sound = sum(np.cos(k * phase) / (1 + ((k * hertz - formant) / 200) ** 2) for k in range(1, 25))
    talking = np.sin(2 * np.pi * 1.5 * time) > -0.5
    hiss = 0.05 * rng.standard_normal(len(time))
    return (0.2 * np.where(talking, sound / 3, hiss)).astype(np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A speech cache of two made-up speakers, one of them for the test."""
    root = tmp_path_factory.mktemp("speech")
    rows = []
    for k, split in enumerate(("train", "test")):
        sound = _voice(20, k)
        np.save(root / f"voice{k}.sound.npy", np.rint(sound * 32767).astype(np.int16))
        np.save(root / f"voice{k}.pitch.npy", track_pitch(sound))
        rows.append({"name": f"voice{k}", "package": "made", "version": "1", "speaker": f"s{k}",
                     "language": "en", "licence": "none", "credit": "nobody", "split": split,
                     "minutes": 0.33, "clips": [{}]})  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(rows))
    return root


def _config(out, cache, **changes):
    base = CodecTrainConfig(
        out, cache, steps=50, network=SMALL, batch=4, frames=16, rate=3e-3, warmup=5, average=0.9,
        bf16=False,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.mark.slow
def test_fifty_steps_make_every_loss_fall_and_the_weights_are_handed_over(tmp_path, cache):
    CodecTrainer(_config(tmp_path / "run", cache), resume=False).run()
    lines = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [10, 20, 30, 40, 50]
    assert lines[-1]["spectral"] < 0.85 * lines[0]["spectral"]
    assert lines[-1]["pitch"] < 0.8 * lines[0]["pitch"]
    assert min(lines[-1]["codes_in_use"]) > 8

    target = export_codec_weights(tmp_path / "run", cache, tmp_path / "codec.safetensors")
    network, about = load_nsf(target)
    assert (about["steps"], about["samples_seen"]) == (50, 200)
    assert [row["speaker"] for row in about["data"]] == ["s0"]
    assert [row["speaker"] for row in about["held_out"]] == ["s1"]
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["parameters"] == sum(p.numel() for p in network.parameters()) + 2 * 64 * 16
    sound = torch.from_numpy(_voice(4, 0))[None]
    with torch.no_grad():
        got = network(sound)
    # As loud as what it was trained on, whatever the loss led to.
    assert abs(20 * np.log10(float(got.std() / sound.std()))) < 1.5
    assert "level_matched_db" in record
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_a_resumed_run_goes_on_where_it_stopped(tmp_path, cache):
    whole = _config(tmp_path / "whole", cache, steps=6)
    CodecTrainer(whole, resume=False).run()
    parts = dataclasses.replace(whole, out=tmp_path / "parts")
    first = CodecTrainer(parts, resume=True)
    # A schedule is a function of the run's length, so the first part keeps the whole run's.
    first.progress = lambda: max(first.clock.step / 6, first.clock.step // 3)
    first.run()
    second = CodecTrainer(parts, resume=True)
    assert second.clock.step == 3
    second.run()
    one, two = read_run(whole.out), read_run(parts.out)
    assert one.clock.step == two.clock.step == 6
    for name, value in one.network.items():
        torch.testing.assert_close(two.network[name], value, atol=2e-3, rtol=2e-2, msg=name)


@pytest.mark.slow
def test_discriminators_join_when_told(tmp_path, cache):
    config = _config(tmp_path, cache, steps=3, adversarial=0.3, bf16=True)
    CodecTrainer(config, resume=False).run()
    saved = read_run(tmp_path)
    assert saved.parts["judge"] and saved.optimisers is not None and len(saved.optimisers) == 2
    CodecTrainer(dataclasses.replace(config, steps=4), resume=True).run()
    assert read_run(tmp_path).clock.step == 4


def test_the_spectral_loss_ignores_phase_and_hears_level_and_colour():
    loss = SpectralLoss()
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn((1, 16000), generator=generator)
    other = 0.1 * torch.randn((1, 16000), generator=generator)
    assert float(loss(noise, noise)) < 1e-6
    assert float(loss(-noise, noise)) < 1e-5
    same_kind = float(loss(other, noise))
    louder, duller = float(loss(4 * other, noise)), float(loss(other.cumsum(1) * 0.1, noise))
    assert louder > same_kind + 1 and duller > same_kind + 0.5
    assert torch.isfinite(loss(torch.zeros(1, 16000), torch.zeros(1, 16000)))


def test_the_pitch_loss_is_least_at_the_pitch():
    pitch = torch.tensor([[0, 100]])
    logits = torch.zeros(1, 2, 1 + PITCHES)
    flat = float(pitch_loss(logits, pitch))
    right, near, wrong = logits.clone(), logits.clone(), logits.clone()
    right[0, 0, 0] = right[0, 1, 100] = near[0, 0, 0] = near[0, 1, 101] = 8.0
    wrong[0, 0, 50] = wrong[0, 1, 0] = 8.0
    losses = [float(pitch_loss(x, pitch)) for x in (right, near, logits, wrong)]
    assert losses == sorted(losses) and losses[2] == flat
    assert pitch_agreement(right.argmax(2), pitch) == 1.0
    assert pitch_agreement(near.argmax(2), pitch) == 1.0
    assert pitch_agreement(wrong.argmax(2), pitch) == 0.0


def test_codebooks_follow_their_vectors_and_unused_codes_come_back():
    from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer

    generator = torch.Generator().manual_seed(1)
    quantizer = ResidualQuantizer(2, 16, 4)
    trainer = CodebookTrainer(quantizer)
    centres = 3 * torch.randn((12, 4), generator=generator)
    losses = []
    for step in range(60):
        chosen = torch.randint(12, (8, 20), generator=generator)
        features = centres[chosen] + 0.1 * torch.randn((8, 20, 4), generator=generator)
        features.requires_grad_()
        passed, commitment = trainer.quantise(features, step)
        losses.append(float(commitment.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert trainer.use()[0] > 8
    passed.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))
    # A code far from everything is put where vectors are.
    book = quantizer.codebooks[0]
    book.embed[3] = book.embed_avg[3] = 1e3
    book.cluster_size[3] = 0.0
    trainer.quantise(features.detach(), 60)
    assert float(book.embed[3].abs().max()) < 50


def test_judges_tell_and_are_told():
    judge = SpectrumDiscriminator((128, 256), 8)
    generator = torch.Generator().manual_seed(0)
    real = 0.1 * torch.randn((2, 4000), generator=generator)
    fake = torch.zeros(2, 4000, requires_grad=True)
    optimiser = torch.optim.Adam(judge.parameters(), 3e-3)
    before = float(judge.loss(real, fake).detach())
    for _ in range(15):
        loss = judge.loss(real, fake)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(judge.loss(real, fake).detach()) < 0.7 * before
    disbelief, distance = judge.generator_loss(real, fake)
    (disbelief + distance).backward()
    assert torch.isfinite(fake.grad).all() and float(fake.grad.abs().sum()) > 0


def test_a_missing_run_is_explained(tmp_path):
    with pytest.raises(ArtifactError, match="no checkpoint"):
        read_run(tmp_path)


def test_a_run_goes_on_with_the_recordings_that_it_began_with(tmp_path, cache):
    folder = tmp_path / "speech"
    shutil.copytree(cache, folder)
    CodecTrainer(_config(tmp_path / "run", folder, steps=1), resume=False).run()
    sound = np.load(folder / "voice0.sound.npy")
    np.save(folder / "voice0.sound.npy", np.roll(sound, 1))
    rest = CodecTrainer(_config(tmp_path / "run", folder, steps=2), resume=True)
    with pytest.raises(UsageError, match="have changed: it began with recordings"):
        rest.run()
    assert read_run(tmp_path / "run").clock.step == 1
    np.save(folder / "voice0.sound.npy", sound)
    rest.run()
    assert read_run(tmp_path / "run").clock.step == 2
