"""Each quantiser on small cases worked out by hand, and against literal loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.quantizers.cascaded import CascadedCodebooks
from prunus.models.blocks.quantizers.dual import SharedIndex
from prunus.models.blocks.quantizers.grouped import MultiCodebook, SphericalGroups
from prunus.models.blocks.quantizers.lookup_free import SignQuantizer
from prunus.models.blocks.quantizers.residual import ResidualStages
from prunus.models.blocks.quantizers.scalar import ScalarQuantizer
from prunus.models.blocks.quantizers.vector import PlainQuantizer
from prunus.runtime.errors import TensorError, UsageError


def _set(parameter, values):
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


def test_vq_takes_the_nearest_and_the_first_of_equals() -> None:
    quantizer = PlainQuantizer(2, 3)
    _set(quantizer.embed, [[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    x = torch.tensor([[0.9, 0.0], [1.1, 0.0], [0.0, 1.6], [1.0, 0.0]])
    out = quantizer(x)
    assert out.codes.tolist() == [[0], [1], [2], [0]]
    assert quantizer.decode(out.codes).tolist() == [[0, 0], [2, 0], [0, 3], [0, 0]]
    # Squared differences: 0.81, 0.81, 1.96, 1.0, over 8 numbers.
    for loss in ("commitment", "codebook"):
        assert float(out.losses[loss].detach()) == pytest.approx(4.58 / 8, abs=1e-6)


def test_vq_starts_from_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    frames = (centres[:, None] + 0.1 * torch.randn(3, 40, 2)).reshape(-1, 2)
    quantizer = PlainQuantizer(2, 3)
    quantizer.start_from(frames)
    gaps = torch.cdist(centres, quantizer.embed.detach()).min(dim=1).values
    assert float(gaps.max()) < 0.1


def test_rvq_codes_what_is_left() -> None:
    quantizer = ResidualStages(1, 2, 3)
    for stage, size in zip(quantizer.stages, (4.0, 2.0, 1.0), strict=True):
        _set(stage.embed, [[-size], [size]])
    x = torch.tensor([[6.5], [-3.2], [0.5]])
    codes = quantizer.encode(x)
    # 6.5 = 4 + 2 + (0.5 -> 1);  -3.2 = -4 + (0.8 -> 2) + (-1.2 -> -1);  0.5 = 4 - 2 - (1.5 -> 1)
    assert codes.tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert quantizer.decode(codes).tolist() == [[7.0], [-3.0], [1.0]]
    assert quantizer.decode(codes[:, :2]).tolist() == [[6.0], [-2.0], [2.0]]  # fewer stages
    # With steps that halve, greedy choice is exact: every sum is coded back.
    everything = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    assert torch.equal(quantizer.index(quantizer.decode(everything)), everything)
    with pytest.raises(TensorError, match="1 to 3"):
        quantizer.decode(torch.zeros(1, 4, dtype=torch.int64))


def test_rvq_losses_are_those_of_the_stages() -> None:
    quantizer = ResidualStages(1, 2, 2)
    _set(quantizer.stages[0].embed, [[0.0], [4.0]])
    _set(quantizer.stages[1].embed, [[-1.0], [1.0]])
    # 5 -> 4, left 1 -> 1; 3.5 -> 4, left -0.5 -> -1: squares (1, 0.25) and (0, 0.25).
    losses = quantizer(torch.tensor([[5.0], [3.5]])).losses
    expected = (1.25 / 2 + 0.25 / 2) / 2
    assert float(losses["commitment"].detach()) == pytest.approx(expected, abs=1e-6)
    assert float(losses["codebook"].detach()) == pytest.approx(expected, abs=1e-6)


def test_fsq_rounds_as_the_paper_writes_it() -> None:
    levels = (4, 3)
    quantizer = ScalarQuantizer(levels)
    grid = np.linspace(-3, 3, 41)
    x = np.array(list(itertools.product(grid, grid)))
    expected_codes, expected_vectors = [], []
    for frame in x:
        digits, vector = [], []
        for z, size in zip(frame, levels, strict=True):
            half = (size - 1) * (1 - 1e-3) / 2
            offset = 0.0 if size % 2 else 0.5
            bounded = math.tanh(z + math.tan(offset / half)) * half - offset
            digits.append(round(bounded) + size // 2)
            vector.append(round(bounded) / (size // 2))
        expected_codes.append(digits[0] + 4 * digits[1])
        expected_vectors.append(vector)
    codes = quantizer.encode(torch.tensor(x, dtype=torch.float32))
    assert codes.flatten().tolist() == expected_codes
    assert set(expected_codes) == set(range(12))  # every code is reached
    np.testing.assert_allclose(quantizer.decode(codes).numpy(), expected_vectors, atol=1e-7)


def test_fsq_values_by_hand() -> None:
    quantizer = ScalarQuantizer((4, 3))
    codes = torch.arange(12)[:, None]
    # 4 levels: -1, -0.5, 0, 0.5 (the first number varies fastest); 3 levels: -1, 0, 1.
    expected = [[a, b] for b in (-1.0, 0.0, 1.0) for a in (-1.0, -0.5, 0.0, 0.5)]
    assert quantizer.decode(codes).tolist() == expected
    assert torch.equal(quantizer.index(quantizer.decode(codes)), codes)
    assert quantizer(torch.zeros(1, 2)).losses == {}


def test_fsq_thresholds_are_the_papers() -> None:
    """Where rounding flips tells eps and shift apart: 1 - 1e-3 and tan, not 1 + 1e-3 or atanh."""
    quantizer = ScalarQuantizer((4, 3))
    even = -math.tan(0.5 / (1.5 * 0.999))  # bound crosses -0.5: from digit 1 to 2
    odd = math.atanh(0.5 / 0.999)  # bound crosses 0.5: from digit 1 to 2
    x = torch.tensor([[even - 1e-4, odd - 1e-4], [even + 1e-4, odd + 1e-4]])
    assert quantizer.encode(x).flatten().tolist() == [1 + 4 * 1, 2 + 4 * 2]


def test_lfq_reads_signs_as_bits() -> None:
    quantizer = SignQuantizer(3)
    x = torch.tensor([[0.2, -3.0, 0.1], [-1.0, 2.0, 0.0], [-0.1, -0.1, -0.1]])
    assert quantizer.encode(x).tolist() == [[1 + 4], [2], [0]]  # zero is not positive
    assert quantizer.decode(torch.tensor([[5], [2], [0]])).tolist() == [
        [1, -1, 1], [-1, 1, -1], [-1, -1, -1],
    ]  # fmt: skip


def test_wetok_gives_each_group_a_code() -> None:
    quantizer = SignQuantizer(2, 3)
    x = torch.tensor([[1.0, -1.0, -1.0, 1.0, 1.0, 1.0]])
    assert quantizer.encode(x).tolist() == [[1, 2, 3]]
    assert quantizer.sizes == (4, 4, 4) and quantizer.dim == 6


@pytest.mark.parametrize(("bits", "groups", "temperature"), [(3, 1, 1.0), (2, 3, 0.5)])
def test_sign_entropies_equal_the_sums_over_the_codebook(bits, groups, temperature) -> None:
    quantizer = SignQuantizer(bits, groups, temperature=temperature)
    x = torch.randn(7, bits * groups, dtype=torch.float64)
    losses = quantizer(x).losses
    frame = codebook = 0.0
    signs = list(itertools.product((-1.0, 1.0), repeat=bits))
    for group in range(groups):
        part = x[:, group * bits : (group + 1) * bits].numpy()
        table = []
        for row in part:
            raw = [
                math.exp(-sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) / temperature)
                for c in signs
            ]
            table.append([value / sum(raw) for value in raw])
            frame += -sum(p * math.log(p) for p in table[-1]) / len(part)
        mean = [sum(column) / len(part) for column in zip(*table, strict=True)]
        codebook += -sum(p * math.log(p) for p in mean)
    assert float(losses["frame_entropy"]) == pytest.approx(frame, abs=1e-9)
    assert float(losses["codebook_entropy"]) == pytest.approx(codebook, abs=1e-9)
    nearest = (x - torch.where(x > 0, 1.0, -1.0)).square().mean()
    assert float(losses["commitment"]) == pytest.approx(float(nearest), abs=1e-9)


def test_entropies_of_known_frames() -> None:
    far = 50.0 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2)))
    losses = SignQuantizer(2)(far).losses  # sure of their codes, and all four in use
    assert float(losses["frame_entropy"]) == pytest.approx(0.0, abs=1e-6)
    assert float(losses["codebook_entropy"]) == pytest.approx(math.log(4), abs=1e-6)
    undecided = SignQuantizer(2)(torch.zeros(5, 2)).losses
    assert float(undecided["frame_entropy"]) == pytest.approx(math.log(4), abs=1e-6)
    collapsed = SignQuantizer(2)(far[:1].expand(5, 2)).losses
    assert float(collapsed["codebook_entropy"]) == pytest.approx(0.0, abs=1e-6)


def test_entropy_losses_spread_the_codes() -> None:
    torch.manual_seed(1)
    quantizer = SignQuantizer(4)
    x = (0.1 + 0.3 * torch.rand(256, 4)).requires_grad_()
    before = len(quantizer.encode(x.detach()).unique())
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(60):
        losses = quantizer(x).losses
        loss = losses["frame_entropy"] - 2.0 * losses["codebook_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    codes = quantizer.encode(x.detach())
    assert before == 1 and len(codes.unique()) >= 12


@pytest.mark.parametrize("shared", [False, True])
def test_groups_take_the_closest_direction(shared) -> None:
    quantizer = MultiCodebook(4, 3, 2, shared=shared)
    first = [[3.0, 0.0], [0.0, 0.1], [-1.0, -1.0]]
    second = [[0.0, -2.0], [5.0, 0.0], [1.0, 1.0]]
    _set(quantizer.embed, [first] if shared else [first, second])
    x = torch.tensor([[0.1, 0.02, 0.0, -7.0], [-5.0, -4.0, 2.0, 2.1]])
    # Directions: east, south; south-west, north-east. Lengths do not count.
    assert quantizer.encode(x).tolist() == ([[0, 2], [2, 1]] if shared else [[0, 0], [2, 2]])
    r = math.sqrt(0.5)
    expected = [[1, 0, -r, -r], [-r, -r, 0, 1]] if shared else [[1, 0, 0, -1], [-r, -r, r, r]]
    torch.testing.assert_close(
        quantizer.decode(quantizer.encode(x)).detach(), torch.tensor(expected)
    )


def test_group_entropies_equal_the_sums_over_the_codebooks() -> None:
    torch.manual_seed(2)
    quantizer = MultiCodebook(6, 4, 2, temperature=0.3).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    losses = quantizer(x).losses
    frame = codebook = 0.0
    for group in range(2):
        table = []
        for row in x[:, 3 * group : 3 * group + 3]:
            part = row / row.norm()
            units = [c / c.norm() for c in quantizer.embed[group].detach()]
            raw = [math.exp(-float((part - c).square().sum()) / 0.3) for c in units]
            table.append([value / sum(raw) for value in raw])
            frame += -sum(p * math.log(p) for p in table[-1]) / 5
        mean = [sum(column) / 5 for column in zip(*table, strict=True)]
        codebook += -sum(p * math.log(p) for p in mean)
    assert float(losses["frame_entropy"].detach()) == pytest.approx(frame, abs=1e-9)
    assert float(losses["codebook_entropy"].detach()) == pytest.approx(codebook, abs=1e-9)


def test_gsq_starts_on_the_sphere_evenly_and_shares_its_codebook() -> None:
    torch.manual_seed(3)
    quantizer = SphericalGroups(8, 4096, 2)
    table = quantizer.embed.detach()
    assert table.shape == (1, 4096, 4)
    torch.testing.assert_close(table.norm(dim=2), torch.ones(1, 4096))
    assert float(table.mean(dim=1).abs().max()) < 0.05  # no direction is preferred
    spread = table[0].T @ table[0] / 4096
    torch.testing.assert_close(spread, torch.eye(4) / 4, rtol=0, atol=0.03)
    assert SphericalGroups(8, 16, 2, shared=False).embed.shape == (2, 16, 4)


def test_tokenflow_weighs_both_distances() -> None:
    quantizer = SharedIndex(1, 1, 2, weight=1.0)
    _set(quantizer.semantic, [[0.0], [1.0]])
    _set(quantizer.detail, [[0.0], [1.0]])
    x = torch.tensor([[0.1, 0.8]])  # squared distances: 0.01 + w 0.64 and 0.81 + w 0.04
    assert quantizer.encode(x).tolist() == [[0]]  # 0.65 < 0.85
    quantizer.weight = 2.0
    assert quantizer.encode(x).tolist() == [[1]]  # 1.29 > 0.89
    assert [v.tolist() for v in quantizer.decode_parts(torch.tensor([[1]]))] == [[[1.0]], [[1.0]]]
    losses = quantizer(x).losses
    assert float(losses["commitment"].detach()) == pytest.approx(0.81 + 2 * 0.04, abs=1e-6)


def test_tokenflow_equals_the_loop() -> None:
    torch.manual_seed(4)
    quantizer = SharedIndex(3, 2, 20, weight=0.4)
    _set(quantizer.semantic, torch.randn(20, 3).tolist())
    _set(quantizer.detail, torch.randn(20, 2).tolist())
    x = torch.randn(50, 5)
    for frame, code in zip(x, quantizer.encode(x).flatten().tolist(), strict=True):
        costs = [
            float((frame[:3] - s).square().sum() + 0.4 * (frame[3:] - d).square().sum())
            for s, d in zip(quantizer.semantic.detach(), quantizer.detail.detach(), strict=True)
        ]
        assert code == costs.index(min(costs))


def test_unicode2_codes_stay_while_vectors_learn() -> None:
    torch.manual_seed(5)
    centres = 5 * torch.randn(8, 3)
    frames = (centres[:, None] + 0.1 * torch.randn(8, 30, 3)).reshape(-1, 3)
    quantizer = CascadedCodebooks.from_frames(frames, 8, seed=1)
    before = quantizer.encode(frames)
    assert torch.equal(quantizer.anchors, quantizer.refined.detach())
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=0.5)
    for _ in range(20):  # another task: vectors should be twice the frames
        loss = (quantizer.decode(before) - 2 * frames).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.equal(quantizer.encode(frames), before)
    assert float((quantizer.refined.detach() - quantizer.anchors).abs().max()) > 1.0
    assert torch.equal(quantizer.index(quantizer.decode(before)), before)
    assert "anchors" in quantizer.state_dict() and "anchors" not in dict(
        quantizer.named_parameters()
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: PlainQuantizer(0, 4),
        lambda: PlainQuantizer(4, 1),
        lambda: ResidualStages(4, 16, 0),
        lambda: ScalarQuantizer((5, 1)),
        lambda: ScalarQuantizer(()),
        lambda: SignQuantizer(19),
        lambda: SignQuantizer(4, 0),
        lambda: MultiCodebook(10, 16, 3),
        lambda: SharedIndex(0, 4, 16),
        lambda: SharedIndex(4, 4, 16, weight=0.0),
    ],
)
def test_sizes_that_make_no_quantiser_are_refused(build) -> None:
    with pytest.raises(UsageError, match="expected"):
        build()
