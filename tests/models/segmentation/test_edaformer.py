"""EDAFormer against its reference implementation, its parameter names and its published cost."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.segmentation.sliding import sliding_logits
from prunus.models.macs import count_macs
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config, resize_logits
from prunus.models.segmentation.isr import parse_isr
from prunus.runtime.errors import UsageError

BOUND = 1e-5  # separates every known deviation (an epsilon, tanh GELU, a head count) from rounding
TIE = 2e-5  # class maps may differ where the two best logits are closer than this
FAST = ("t_off_128", "t_isr_160x224", "t_lowamp_96")
SLOW = ("t_isr_128", "t_off_256x192", "t_isr_256x192", "b_isr_128")


def close(got: torch.Tensor, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=BOUND)


def same_classes(logits: torch.Tensor, expected: np.ndarray) -> None:
    best = logits.topk(2, dim=1).values
    clear = ((best[:, 0] - best[:, 1]) > TIE).numpy()
    assert clear.mean() > 0.99
    assert (logits.argmax(1).numpy() == expected)[clear].all()


@pytest.mark.parametrize("case", [*FAST, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)])
def test_equals_the_reference(cases, case) -> None:
    image = torch.from_numpy(cases[f"{case}/input"])
    network = cases.network(case)
    with torch.no_grad():
        maps = network.backbone(image)
        logits = network.decode_head(maps)
    for k, stage in enumerate(maps, 1):
        if f"{case}/stage{k}" in cases.data.files:
            close(stage, cases[f"{case}/stage{k}"])
    close(logits, cases[f"{case}/logits"])
    full = resize_logits(logits, *image.shape[2:])
    close(full[:, ::10, 3::8, 5::8], cases[f"{case}/full_sub"])
    same_classes(full, cases[f"{case}/argmax"])


@pytest.mark.slow
def test_equals_the_reference_inside(cases) -> None:
    case = "t_isr_128"
    image = torch.from_numpy(cases[f"{case}/input"])
    network, seen = cases.network(case), {}
    watched = {
        "patch_embed1": "backbone.patch_embed1",
        "block1.0.attn": "backbone.block1.0.attn",
        **{n: f"decode_head.{n}" for n in ("attn4", "attn444", "attn33", "attn2", "linear_fuse")},
    }
    for name, path in watched.items():
        network.get_submodule(path).register_forward_hook(
            lambda _module, _args, out, name=name: seen.update({name: out})
        )
    with torch.no_grad():
        logits = network(image)
    for name, value in seen.items():
        close(value[0] if isinstance(value, tuple) else value, cases[f"{case}/inter/{name}"])
    again = resize_logits(resize_logits(logits, 128, 128), 101, 145)
    same_classes(again, cases[f"{case}/rescaled_101x145_argmax"])


@pytest.mark.slow
def test_sliding_windows_equal_the_reference(cases) -> None:
    case = "t_slide_128x256"
    meta = cases.meta[case]
    image = torch.from_numpy(cases[f"{case}/input"])
    with torch.no_grad():
        logits = sliding_logits(
            cases.network(case),
            image,
            tuple(meta["crop"]),
            tuple(meta["stride"]),
        )
    close(logits[:, :, 2::4, 1::4], cases[f"{case}/avg_logits_sub"])
    same_classes(logits, cases[f"{case}/argmax"])


def test_windows_that_agree_average_to_themselves() -> None:
    image = torch.rand(1, 3, 40, 70)
    got = sliding_logits(lambda part: part[:, :2], image, (32, 32), (24, 16))
    torch.testing.assert_close(got, image[:, :2])
    small = sliding_logits(lambda part: part[:, :2], image, (64, 128), (24, 16))
    torch.testing.assert_close(small, image[:, :2])


@pytest.mark.parametrize(("variant", "entries"), [("t", 354), ("b", 564)])
def test_has_the_published_parameter_names(cases, variant, entries) -> None:
    listed = cases.data.entries(f"state_dict_{variant}.json")
    with torch.device("meta"):
        state = EDAFormer(edaformer_config(variant)).state_dict()
    assert len(listed) == entries
    assert {k: list(v.shape) for k, v in state.items()} == {
        k: v["shape"] for k, v in listed.items()
    }


@pytest.mark.parametrize(
    ("variant", "classes", "count"),
    [
        ("t", 150, 4_949_264), ("t", 171, 4_954_682), ("t", 19, 4_915_466),
        ("b", 150, 29_457_516), ("b", 171, 29_476_374), ("b", 19, 29_339_878),
    ],
)  # fmt: skip
def test_has_the_published_number_of_parameters(variant, classes, count) -> None:
    with torch.device("meta"):
        network = EDAFormer(edaformer_config(variant, classes=classes))
    assert sum(p.numel() for p in network.parameters()) == count


# GMAC by setting: off, decoder only, published, maximum, 1111-333, 1111-444.
ISR = ("off", "decoder", "published", "maximum", "1111-333", "1111-444")
COST = {
    ("t", 150, 512, 512): (5.593, 5.271, 4.665, 4.055, 5.206, 5.190),
    ("t", 171, 512, 512): (5.604, 5.282, 4.676, 4.066, 5.217, 5.202),
    ("t", 19, 1024, 2048): (151.297, 133.221, 94.551, 58.665, 129.668, 128.703),
    ("t", 19, 1024, 1024): (45.047, 40.438, 30.767, 21.682, 39.502, 39.286),
    ("b", 150, 512, 512): (31.820, 31.087, 29.263, 26.470, 30.938, 30.904),
    ("b", 171, 512, 512): (31.886, 31.153, 29.329, 26.536, 31.004, 30.970),
    ("b", 19, 1024, 2048): (604.524, 567.656, 451.598, 296.777, 560.407, 558.439),
    ("b", 19, 1024, 1024): (201.330, 191.755, 162.716, 123.156, 189.810, 189.361),
}


@pytest.mark.parametrize(
    "key",
    [k if (k[1:] in ((150, 512, 512), (19, 1024, 2048)) and k[0] == "t") or k[3] == 2048
     else pytest.param(k, marks=pytest.mark.slow) for k in COST],
    ids=str,
)  # fmt: skip
def test_costs_what_is_published(key) -> None:
    variant, classes, height, width = key
    for name, expected in zip(ISR, COST[key], strict=True):
        with torch.device("meta"):
            network = EDAFormer(edaformer_config(variant, classes=classes, isr=parse_isr(name)))
            macs = count_macs(network, torch.zeros(1, 3, height, width))
        assert macs / 1e9 == pytest.approx(expected, rel=5e-4), name


def test_another_isr_shares_every_parameter() -> None:
    network = EDAFormer(edaformer_config("t", classes=3)).eval()
    twin = network.with_isr(parse_isr("published"))
    assert twin.config.isr.name == "2211-222" and not twin.training
    assert twin.backbone.block1[0].attn.pooling == 16
    own = dict(network.named_parameters())
    assert all(p is own[n] for n, p in twin.named_parameters())
    buffers = dict(network.named_buffers())
    assert all(b is buffers[n] for n, b in twin.named_buffers())


def test_odd_sizes_keep_the_rounded_up_stride() -> None:
    network = EDAFormer(edaformer_config("t", classes=2)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 70, 101)).shape == (1, 2, 9, 13)
        with pytest.raises(UsageError, match="at least"):
            network(torch.zeros(1, 3, 16, 64))


def test_unknown_variants_and_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="Unknown EDAFormer variant 'x'"):
        edaformer_config("x")
    with pytest.raises(UsageError, match="0 classes"):
        edaformer_config("t", classes=0)
