"""The deployed network with what its cuts did beside the joints."""

import pytest
import torch

from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import UsageError

CROPS = torch.randint(0, 256, (2, 256, 192, 3), dtype=torch.uint8)


def _network(plan: PruningPlan, head: str = "subpixel") -> EViTPose:
    torch.manual_seed(0)
    return EViTPose(EViTPoseConfig("tiny", 32, 2, plan, head, depth=4)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["subpixel", "regression"])
@torch.no_grad()
def test_maps_are_those_of_the_cuts_and_the_joints_stay(head) -> None:
    network = _network(PruningPlan("custom", (1, 2), (100, 30)), head)
    kept = {}
    for block, cut in network.cuts.items():
        cut.register_forward_hook(lambda _m, _a, out, b=block: kept.__setitem__(b, out.kept))
    plain = DeployedPose(network)(CROPS)
    joints, first, second, *_ = DeployedPose(network, show_tokens=True)(CROPS)
    assert torch.equal(joints, plain)
    assert first.shape == second.shape == (2, 192) and first.dtype == torch.int32
    for crop in range(2):
        alive = (first[crop] >= 0).nonzero()[:, 0]
        assert torch.equal(alive, kept["1"][crop])
        assert torch.equal((second[crop] >= 0).nonzero()[:, 0], alive[kept["2"][crop]])
    maps = DeployedPose(network, heatmaps=head == "subpixel", show_tokens=True)(CROPS)
    assert len(maps) == (4 if head == "subpixel" else 3)


def test_a_dense_network_has_nothing_to_show() -> None:
    with pytest.raises(UsageError, match="without a cut"):
        DeployedPose(_network(PruningPlan("L0", (), ())), show_tokens=True)
