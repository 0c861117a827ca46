"""Numbers that the reference implementation gives, and weights that anybody can regenerate."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import IsrSetting

FOLDER = (
    Path(os.environ.get("PRUNUS_PARITY_DIR", Path(__file__).parents[4] / "shared" / "parity"))
    / "edaformer"
)


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
    """The stored cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = np.load(folder / "cases.npz")
        self.meta: dict[str, dict[str, Any]] = json.loads(str(self.data["meta"]))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def network(self, case: str) -> EDAFormer:
        """Return the network of a case."""
        m = self.meta[case]
        isr = IsrSetting(tuple(m["encoder_ratios"]), tuple(m["decoder_ratios"]))
        return filled_edaformer(m["variant"], m["num_classes"], isr)


@pytest.fixture(scope="session")
def cases() -> Cases:
    """The stored cases, or a skip."""
    if not (FOLDER / "cases.npz").is_file():
        pytest.skip(f"no parity fixtures in {FOLDER.name}/ (set PRUNUS_PARITY_DIR)")
    return Cases(FOLDER)
