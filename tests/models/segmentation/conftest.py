"""Numbers that the reference implementation gives, and weights that anybody can regenerate."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import IsrSetting


def fill_value(key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the parity recipe's value of a float entry; None keeps what the model has."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) >= 2:
        value = noise / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("running_mean"):
        value = 0.1 * noise
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif key.endswith("weight"):
        value = 1 + 0.1 * noise
    elif key.endswith("bias"):
        value = 0.02 * noise
    else:
        return None
    return value.astype(np.float32)


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Give every float entry the recipe's value."""
    state = network.state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            value = fill_value(key, tuple(tensor.shape))
            assert value is not None, key
            tensor.copy_(torch.from_numpy(value))
    return network.eval()


def filled_edaformer(variant: str, classes: int, isr: IsrSetting) -> EDAFormer:
    """Return a network with the recipe's weights."""
    network = EDAFormer(edaformer_config(variant, classes=classes, isr=isr))
    filled(network)
    return network


class Cases:
    """The published numbers, and the networks that have to give them."""

    def __init__(self, published) -> None:
        self.data = published
        self.meta = published.meta

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def network(self, case: str) -> EDAFormer:
        """Return the network of a case."""
        m = self.meta[case]
        isr = IsrSetting(tuple(m["encoder_ratios"]), tuple(m["decoder_ratios"]))
        return filled_edaformer(m["variant"], m["num_classes"], isr)


@pytest.fixture(scope="session")
def cases(parity) -> Cases:
    """The stored cases."""
    return Cases(parity("edaformer"))
