from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from prunus.models.macs import count_macs, count_parameters
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.pose.levels import evitpose_plan
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import UsageError

HEADS = ("classic", "simple", "subpixel", "token", "regression")
# variant, head: millions of parameters, GMACs at L0..L3 with 17 joints, from an independent count.
TABLE = {
    ("tiny", "subpixel"): (5.88, 1.538, 1.105, 1.010, 0.905),
    ("tiny", "simple"): (5.56, 1.429, 0.997, 0.901, 0.796),
    ("tiny", "classic"): (7.37, 2.309, 1.876, 1.781, 1.676),
    ("tiny", "token"): (6.78, 1.360, 0.928, 0.832, 0.727),
    ("tiny", "regression"): (5.56, 1.340, 0.907, 0.812, 0.707),
    ("small", "classic"): (24.30, 6.018, 4.458, 4.105, 3.711),
    ("small", "subpixel"): (22.22, 5.133, 3.574, 3.221, 2.826),
    ("small", "simple"): (21.73, 5.078, 3.518, 3.165, 2.770),
    ("small", "token"): (23.00, 4.920, 3.360, 3.007, 2.612),
    ("base", "classic"): (90.01, 20.092, 14.196, 12.839, 11.314),
    ("base", "subpixel"): (86.75, 18.982, 13.085, 11.728, 10.203),
    ("base", "simple"): (85.92, 19.031, 13.134, 11.777, 10.252),
    ("base", "token"): (87.29, 18.695, 12.798, 11.441, 9.916),
}
TABLE_23 = {
    "tiny": (2.357, 1.917, 1.799, 1.728),
    "small": (6.173, 4.594, 4.154, 3.890),
    "base": (20.654, 14.694, 13.003, 11.984),
}
WIDTH = {"tiny": 192, "small": 384, "base": 768}


def _gmacs(config):
    with torch.device("meta"):
        network = EViTPose(config)
        return network, count_macs(network, torch.zeros(1, 3, 256, 192)) / 1e9


def _expected_parameters(d, joints, head):
    backbone = 768 * d + d + 192 * d + joints * d + 12 * (12 * d * d + 13 * d) + 2 * d
    heads = {
        "classic": 16 * 256 * d + 16 * 256 * 256 + 4 * 256 + 256 * joints + joints,
        "simple": 9 * d * joints + joints,
        "subpixel": 1024 * (d + 1) + 512 + 512 * 257 + 256 + 9 * 128 * joints + joints,
        "token": 2 * d + 384 * (d + 1) + 768 + 3072 * 385,
        "regression": d * (d + 1) + 4 * (d + 1),
    }
    return backbone + heads[head]


@pytest.mark.parametrize(("variant", "head"), TABLE)
def test_parameters_and_macs_of_every_variant_head_and_level(variant, head):
    millions, *gmacs = TABLE[variant, head]
    for level, expected in enumerate(gmacs):
        network, got = _gmacs(evitpose_config(variant, f"L{level}", head=head))
        assert got == pytest.approx(expected, rel=0.005)
        exact = _expected_parameters(WIDTH[variant], 17, head)
        assert count_parameters(network) == exact
        assert exact / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize("variant", TABLE_23)
def test_macs_with_23_joints(variant):
    for level, expected in enumerate(TABLE_23[variant]):
        config = evitpose_config(variant, f"L{level}", head="classic", joints=23)
        network, got = _gmacs(config)
        assert got == pytest.approx(expected, rel=0.005)
        assert count_parameters(network) == _expected_parameters(WIDTH[variant], 23, "classic")


KEEP_ALL = PruningPlan("all", (1, 2, 3), (192, 192, 192))
CUTS = PruningPlan("cuts", (1, 2, 3), (120, 60, 20))


def _toy(plan=CUTS, **changes):
    config = EViTPoseConfig("toy", 32, 2, plan, "subpixel", depth=4)
    torch.manual_seed(1)
    network = EViTPose(replace(config, **changes)).eval()
    for value in network.parameters():  # far from the initial near-zero outputs
        value.data.add_(torch.randn_like(value), alpha=0.05)
    return network


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 256, 192, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("score", ["sum", "max"])
@pytest.mark.parametrize("fill", ["carry", "zero", "mask"])
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_keeping_all_patches_is_the_dense_network(images, head, fill, score):
    network = _toy(KEEP_ALL, head=head, fill=fill, score=score)
    dense = network.with_plan(evitpose_plan("L0"))
    torch.testing.assert_close(network(images), dense(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("fill", ["carry", "zero", "mask"])
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_a_batch_is_its_pictures(images, head, fill):
    """Batch 1 gathers by another operator than larger batches; both must agree."""
    network = _toy(head=head, fill=fill)
    together = network(images)
    assert together.shape == (3, 17, 4) if head == "regression" else (3, 17, 64, 48)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def _grid_and_trace(network, images):
    """Return the grid before the last norm, and what each block was given and gave."""
    seen = []
    hooks = [
        b.register_forward_hook(lambda _, i, o: seen.append((i[0], o))) for b in network.blocks
    ]
    grid = []
    hooks.append(network.last_norm.register_forward_hook(lambda _, i, o: grid.append(i[0])))
    network(images)
    for hook in hooks:
        hook.remove()
    return grid[1], seen


@pytest.mark.parametrize("fill", ["carry", "zero", "mask"])
def test_dropped_patches_come_back_as_promised(images, fill):
    """Replay the cuts with a plain list of positions per picture."""
    network = _toy(fill=fill)
    grid, seen = _grid_and_trace(network, images)
    background = {
        "carry": None,
        "zero": torch.zeros(192, 32),
        "mask": (network.mask_token + network.pos_embed)[0].detach() if fill == "mask" else None,
    }[fill]
    for picture in range(3):
        where = list(range(192))
        expected = torch.full((192, 32), float("nan")) if background is None else background.clone()
        for _, (_, selection) in seen:
            if selection is None:
                continue
            kept = selection.kept[picture].tolist()
            assert kept == sorted(set(kept))
            for row, position in enumerate(where):
                if background is None:
                    expected[position] = selection.patches[picture, row]
            where = [where[k] for k in kept]
        assert len(where) == 20
        expected[where] = seen[-1][1][0][picture, 17:]
        torch.testing.assert_close(grid[picture], expected, rtol=0, atol=0)


@torch.no_grad()
def test_the_kept_patches_are_the_most_attended(images):
    """Compare with ranks from the whole attention matrix, computed in double precision."""
    for score in ("sum", "max"):
        network = _toy(score=score)
        block = network.blocks[1]
        _, seen = _grid_and_trace(network, images)
        tokens, (_, selection) = seen[1]
        attention = block.attn
        qkv = attention.qkv(block.norm1(tokens)).double().reshape(3, 209, 3, 2, 16)
        query, key = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)
        full = torch.softmax(query @ key.transpose(-1, -2) / 4.0, dim=-1)
        paid = full.mean(dim=1)[:, :17, 17:]
        rank = paid.sum(1) if score == "sum" else paid.amax(1)
        expected = rank.argsort(dim=1, descending=True)[:, :120].sort(dim=1).values
        assert torch.equal(selection.kept, expected)


def test_with_plan_shares_parameters():
    network = _toy(PruningPlan("L0", (), ()))
    twin = network.with_plan(CUTS)
    assert twin.config.plan == CUTS and network.config.plan.blocks == ()
    own, shared = dict(network.named_parameters()), dict(twin.named_parameters())
    assert own.keys() == shared.keys()
    assert all(own[name] is shared[name] for name in own)
    assert network.state_dict().keys() == twin.state_dict().keys()
    assert len(network.cuts) == 0 and len(twin.cuts) == 3


def test_any_joint_count():
    for joints in (1, 14, 133):
        network = EViTPose(evitpose_config("tiny", "L2", joints=joints)).eval()
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 256, 192)).shape == (1, joints, 64, 48)


def test_training_step_under_autocast_reaches_every_parameter(images):
    network = _toy(fill="mask").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heatmaps = network(images)
    heatmaps.float().square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    # Joint tokens do reach the grid through attention; the last norm is shared.
    assert without == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_ranking_is_not_rounded_under_autocast():
    """Scores that bfloat16 cannot tell apart still rank in the right order."""
    from prunus.models.tokens.reducer import Attention
    from prunus.models.tokens.scores import special_probability

    generator = torch.Generator().manual_seed(5)
    query = torch.randn(2, 2, 17, 16, generator=generator)
    key = torch.randn(2, 2, 209, 16, generator=generator)
    seen = Attention(query, key, key)
    plain = special_probability(seen, 17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = special_probability(seen, 17)
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_a_fresh_network_starts_quiet(images):
    for head in ("classic", "simple", "subpixel"):
        network = EViTPose(evitpose_config("tiny", head=head)).eval()
        with torch.no_grad():
            assert network(images[:1]).abs().max() < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fill": "cary"}, "did you mean 'carry'"),
        ({"score": "mean"}, "Unknown score"),
        ({"heads": 5}, "32 channels do not split into 5 heads"),
        ({"joints": 0}, "at least 1"),
        ({"height": 250}, "multiples of 16"),
        ({"plan": PruningPlan("p", (4,), (10,))}, r"blocks 0\.\.3"),
        ({"plan": PruningPlan("p", (1,), (193,))}, "only 192 enter"),
        ({"head": "clasic"}, "did you mean 'classic'"),
    ],
)
def test_wrong_configurations_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        _toy(**change)


def test_a_cut_that_reads_other_blocks_is_refused_when_it_is_built():
    with pytest.raises(UsageError, match=r"'hiprune' at block 3 reads blocks \(1,\)"):
        _toy(plan=PruningPlan("own", (3,), (5,), ("hiprune",)), depth=4)


def test_constant_indices_are_a_control(images):
    """One colour of the checkerboard stays, the same in every picture."""
    plan = PruningPlan("own", (1,), (96,), ("checkerboard",))
    pruned = _toy(plan=plan)
    with torch.no_grad():
        tokens, selection = pruned.blocks[1](
            pruned.blocks[0](pruned.embed(images))[0], pruned.cuts["1"]
        )
    rows = torch.arange(16).repeat_interleave(12)
    columns = torch.arange(12).repeat(16)
    kept = torch.nonzero((rows + columns) % 2 == (rows + columns)[selection.kept[0, 0]] % 2)[:, 0]
    assert tokens.shape == (3, 17 + 96, 32)
    assert torch.equal(selection.kept, kept.expand(3, -1))
    with torch.no_grad():
        assert pruned(images).shape == (3, 17, 64, 48)


@torch.no_grad()
def test_constant_cuts_come_back_without_a_scatter(images):
    """Strided patches as the general way puts them; pooled ones as their cell's change."""
    network = _toy(score="strided")
    tokens, done = network.embed(images), []
    for number, block in enumerate(network.blocks):
        cut = network.cuts[str(number)] if str(number) in network.cuts else None
        tokens, selection = block(tokens, cut)
        done += [selection] if selection else []
    assert len(done) == len(network.config.plan.blocks) > 1
    patches = tokens[:, 17:]
    expected = network._scattered(patches, done)
    assert torch.equal(network._unwound(patches, done), expected)
    assert torch.equal(network.features(images)[1], network.last_norm(expected))

    plan = PruningPlan("custom", (3,), (48,))  # 2 x 2 patches a cell, at the last block
    pooled = _toy(plan=plan, score="pooled")
    grid, seen = _grid_and_trace(pooled, images)
    patches = seen[-1][1][1].patches.transpose(1, 2).unflatten(2, (16, 12))
    means = functional.avg_pool2d(patches, 2)
    last = pooled.blocks[3]
    change = last.mlp(last.norm2(means.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    came = patches + change.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(grid, came.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)
    both = PruningPlan("own", (1, 2), (48, 20), ("average_pool", "joint"))
    assert _toy(plan=both)(images).shape == (3, 17, 64, 48)  # ranked after means
    with pytest.raises(UsageError, match="Keep one of"):
        EViTPose(replace(network.config, score="pooled"))
    with pytest.raises(UsageError, match="fill 'carry'"):
        EViTPose(replace(network.config, score="pooled", plan=plan, fill="zero"))


def test_unknown_variant():
    with pytest.raises(UsageError, match="did you mean 'small'"):
        evitpose_config("smal")


@torch.no_grad()
def test_deployed_pose_places_a_known_peak():
    """The outer pixel centres of heatmap and crop coincide: (47, 63) is (191, 255)."""

    class Peaks(torch.nn.Module):
        config = evitpose_config("tiny")

        def forward(self, images):
            y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
            at = torch.stack((torch.linspace(8, 40, 17), torch.linspace(10, 50, 17)), 1)
            maps = torch.stack([torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in at])
            return maps.expand(images.shape[0], -1, -1, -1) * images.amax().clamp(max=1.0)

    keypoints = DeployedPose(Peaks()).eval()(torch.full((2, 256, 192, 3), 255, dtype=torch.uint8))
    assert keypoints.shape == (2, 17, 3)
    x = torch.linspace(8, 40, 17) / 47 * 191
    y = torch.linspace(10, 50, 17) / 63 * 255
    torch.testing.assert_close(keypoints[0, :, 0], x, rtol=0, atol=0.02)
    torch.testing.assert_close(keypoints[0, :, 1], y, rtol=0, atol=0.02)


@torch.no_grad()
def test_deployed_pose_normalises_raw_pixels():
    network = _toy()
    raw = torch.randint(0, 256, (2, 256, 192, 3), dtype=torch.uint8)
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    expected = network(((raw.float() - mean) / std).permute(0, 3, 1, 2))
    _, heatmaps = DeployedPose(network, heatmaps=True).eval()(raw)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_deployed_regression():
    network = _toy(head="regression")
    raw = torch.randint(0, 256, (2, 256, 192, 3), dtype=torch.uint8)
    keypoints = DeployedPose(network).eval()(raw)
    assert keypoints.shape == (2, 17, 3)
    assert (keypoints[..., 0] <= 191).all() and (keypoints[..., 1] <= 255).all()
    assert ((keypoints[..., 2] > 0) & (keypoints[..., 2] < 1)).all()
    with pytest.raises(UsageError, match="no heatmaps"):
        DeployedPose(network, heatmaps=True)


def test_macs_are_the_same_on_real_and_on_meta_tensors():
    config = evitpose_config("tiny", "L2")
    image = torch.zeros(1, 3, 256, 192)
    real = count_macs(EViTPose(config), image)
    assert real / 1e9 == pytest.approx(1.010, rel=5e-3)
    with torch.device("meta"):
        assert count_macs(EViTPose(config), torch.zeros_like(image, device="meta")) == real
