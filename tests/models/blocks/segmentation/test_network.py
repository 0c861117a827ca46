"""EDAFormer-T-sized networks of other blocks: shapes, sizes, form of deployment, ONNX Runtime."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.segmentation.deployed import deploy
from prunus.models.blocks.segmentation.network import SIBLINGS, build_sibling
from prunus.models.macs import count_parameters
from prunus.models.segmentation.edaformer import EDAFormerConfig
from prunus.runtime.errors import UsageError

OTHERS = [name for name in SIBLINGS if name not in ("edaformer", "clsclip")]
SMALL = EDAFormerConfig("t", (32, 32, 64, 64), (1, 1, 1, 1), 3.8, 2, 24, (1, 1, 2, 2), classes=5)


@pytest.mark.parametrize(
    "name", [OTHERS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS[1:])]
)
def test_deployed_form_computes_the_same(name) -> None:
    network = build_sibling(name, size=(64, 128), classes=7)
    image = torch.randn(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = network(image), deploy(network)(image)
    assert expected.shape == (2, 7, 8, 16) and expected.std() > 0.2
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [n for n in SIBLINGS if n != "edaformer"])
def test_networks_are_of_edaformers_size(name) -> None:
    ratio = count_parameters(build_sibling(name)) / 4_949_264
    assert 0.85 < ratio < 1.8


@pytest.mark.parametrize("name", OTHERS)
def test_onnx_runtime_gives_the_same(name, run_onnx) -> None:
    network = build_sibling(name, size=(128, 128), config=SMALL)
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(image).numpy()
    got = run_onnx(deploy(network), image)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-5)
    assert np.array_equal(got.argmax(1), expected.argmax(1))


def test_same_seed_same_weights() -> None:
    first, again, other = (
        build_sibling("stvit-r", size=(64, 64), seed=s).state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_weights_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build_sibling("relayformer", size=(64, 64))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("gcnett", (64, 64), "did you mean 'gcnet'"),
        ("svit", (64, 100), "64x96"),
        ("stvit-r", (32, 32), "multiples of 64"),
        ("dualtoken", (96, 96), "power of two"),
    ],
)
def test_wrong_names_and_sizes_are_explained(name, size, words) -> None:
    with pytest.raises(UsageError) as caught:
        build_sibling(name, size=size)
    assert words in f"{caught.value.message} {caught.value.hint}"
