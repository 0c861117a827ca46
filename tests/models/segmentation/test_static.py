"""Every rewrite computes what the published form computes; each has an off switch."""

import numpy as np
import pytest
import torch

from prunus.models.segmentation.deployed import DeployedSegmentation
from prunus.models.segmentation.edaformer import EDAFormer, EDAFormerConfig, resize_logits
from prunus.models.segmentation.isr import IsrSetting, parse_isr
from prunus.models.segmentation.static import LITERAL, Rewrites, StaticEDAFormer
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

ONE_BY_ONE = {
    "early join": Rewrites(True, False, False, False),
    "padded hidden": Rewrites(False, True, False, False),
    "attention node": Rewrites(False, False, True, False),
    "channels last": Rewrites(False, False, False, True),
    "literal": LITERAL,
    "all": Rewrites(),
}


def small(classes: int = 7, isr: IsrSetting | None = None) -> EDAFormer:
    """A small EDAFormer with odd hidden widths (30, 60, ...) and activations that are alive."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = EDAFormerConfig(
            "t", (8, 16, 32, 64), (1, 1, 2, 1), 3.8, 2, 24, classes=classes,
            isr=isr or parse_isr("off"),
        )  # fmt: skip
        network = EDAFormer(config)
        for name, value in network.state_dict().items():
            if value.dim() > 1:
                torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.add_(0.1 * torch.randn_like(value))
    return network.eval()


@pytest.mark.parametrize("name", list(ONE_BY_ONE))
@pytest.mark.parametrize(
    ("isr", "height", "width"), [("off", 64, 96), ("published", 96, 80), ("1234-321", 160, 224)]
)
def test_rewrites_are_exact(name, isr, height, width) -> None:
    network = small(isr=parse_isr(isr))
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(image)
        got = StaticEDAFormer(network, ONE_BY_ONE[name])(image)
    assert expected.std() > 0.3  # the comparison sees something
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t_isr_128", "t_isr_160x224", "b_isr_128"])
def test_rewrites_keep_the_reference_numbers(cases, case) -> None:
    image = torch.from_numpy(cases[f"{case}/input"])
    with torch.no_grad():
        got = StaticEDAFormer(cases.network(case))(image)
    np.testing.assert_allclose(got.numpy(), cases[f"{case}/logits"], rtol=0, atol=1e-5)


def test_hidden_widths_are_multiples_of_eight() -> None:
    widths = {
        m.out_channels for n, m in StaticEDAFormer(small()).named_modules() if n.endswith("mlp.fc1")
    }
    assert widths == {32, 64, 128, 248, 16 * 2, 32 * 2, 64 * 2}  # 30, 60, 121, 243 before
    literal = StaticEDAFormer(small(), LITERAL)
    assert literal.block1[0].mlp.fc1.out_channels == 30


def test_the_layer_that_is_never_called_stays_behind() -> None:
    assert not any("conv_seg" in name for name in StaticEDAFormer(small()).state_dict())


@pytest.mark.parametrize(("classes", "dtype"), [(7, torch.uint8), (300, torch.int32)])
def test_pixels_in_class_numbers_out(classes, dtype) -> None:
    network = small(classes)
    deployed = DeployedSegmentation(network, ScenePreprocess(64, 96), logits=True).eval()
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        numbers, logits = deployed(pixels)
        mean, std = (torch.tensor(v) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        expected = network(((pixels - mean) / std).permute(0, 3, 1, 2))
    assert numbers.dtype == dtype and numbers.shape == (2, 64, 96)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    best = resize_logits(logits, 64, 96)
    assert torch.equal(numbers.long(), best.argmax(1))


def test_the_logits_graph_gives_logits_only() -> None:
    deployed = DeployedSegmentation(small(), ScenePreprocess(64, 64), classes=False)
    with torch.no_grad():
        assert deployed(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).shape == (1, 7, 8, 8)
