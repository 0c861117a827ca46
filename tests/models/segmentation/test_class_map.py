"""Candidates for the best class against the plain definition: enlarge everything, take the best."""

import pytest
import torch
from torch.nn import functional

from prunus.models.segmentation.class_map import CandidateArgMax, worthwhile
from prunus.models.segmentation.deployed import DeployedSegmentation
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.runtime.tasks.segmentation.card import ScenePreprocess


def plain(logits, scale=8):
    return functional.interpolate(logits, scale_factor=scale, mode="bilinear").argmax(1)


def fields(batch, classes, height, width, *, coarse, seed=0):
    """Random logits that change over about `coarse` cells, as those of a network do."""
    generator = torch.Generator().manual_seed(seed)
    small = (batch, classes, -(-height // coarse), -(-width // coarse))
    noise = torch.randn(small, generator=generator)
    grown = functional.interpolate(noise, size=(height, width), mode="bicubic")
    return grown + 0.05 * torch.randn(grown.shape, generator=generator)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(12, 20), (1, 1), (1, 9), (7, 3)])
@pytest.mark.parametrize("classes", [4, 150])
def test_every_pixel_has_its_class(height, width, classes, scale) -> None:
    logits = fields(2, classes, height, width, coarse=3)
    found = CandidateArgMax(classes, height, width, scale)(logits)
    assert found.shape == (2, height * scale, width * scale)
    assert torch.equal(found.long(), plain(logits, scale))


def test_all_classes_as_candidates_is_exact_on_noise() -> None:
    """Noise is the worst case: neighbouring cells have nothing in common."""
    logits = torch.randn(1, 30, 9, 11, generator=torch.Generator().manual_seed(1))
    found = CandidateArgMax(30, 9, 11, candidates=30)(logits)
    assert torch.equal(found.long(), plain(logits))
    few = CandidateArgMax(30, 9, 11, candidates=4)(logits)
    assert 0.99 < (few == plain(logits)).float().mean() < 1


def test_what_it_may_miss() -> None:
    """A class that is fifth at all four cells wins in between only if four others part ways."""
    logits = torch.full((1, 17, 2, 2), -10.0)
    for cell in range(4):
        logits.view(1, 17, 4)[0, 4 * cell : 4 * cell + 4, cell] = 1.0
    logits[:, 16] = 0.9
    assert plain(logits)[0, 7, 7] == 16
    assert CandidateArgMax(17, 2, 2)(logits)[0, 7, 7] != 16
    assert CandidateArgMax(17, 2, 2, candidates=5)(logits)[0, 7, 7] == 16


def test_wrong_numbers_are_refused() -> None:
    for words in ((10, 2, 2, 3), (10, 2, 2, 8, 0), (3, 2, 2, 8, 4)):
        with pytest.raises(ValueError, match="candidates"):
            CandidateArgMax(*words)


@pytest.mark.parametrize(
    ("classes", "size", "used"),
    [(150, (64, 96), True), (19, (64, 96), False), (150, (64, 90), False)],
)
def test_the_deployed_network_uses_them_where_they_pay(classes, size, used) -> None:
    assert worthwhile(classes) == (classes > 19)
    torch.manual_seed(0)
    network = EDAFormer(edaformer_config("t", classes=classes)).eval()
    with torch.no_grad():  # alive logits: the usual initialisation leaves them all but equal
        network.decode_head.linear_pred.weight.normal_(std=1.0)
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    spec = ScenePreprocess(*size)
    fast = DeployedSegmentation(network, spec, candidates=True).eval()
    assert (fast.best is not None) == used
    full = DeployedSegmentation(network, spec).eval()
    with torch.no_grad():
        assert torch.equal(fast(image), full(image))
