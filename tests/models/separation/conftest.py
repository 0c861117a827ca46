"""The filled network and the published numbers that it has to give."""

import zlib

import numpy as np
import pytest
import torch

from prunus.models.separation.config import dolphin_config
from prunus.models.separation.dolphin import build_dolphin


def fill_value(key, shape):
    """Return the value that the fixtures' weight recipe gives a parameter."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last in ("initted", "cluster_size"):
        value = np.ones(shape)
    elif last == "layer_scale":
        value = 0.3 + 0.1 * noise
    elif last in ("mem_kv", "embed", "embed_avg"):
        value = noise
    elif key.endswith(".act.weight"):
        value = 0.25 + 0.05 * noise
    elif last in ("gamma", "k"):
        value = 1 + 0.1 * noise
    elif len(shape) >= 2:
        value = noise / np.sqrt(np.prod(shape[1:]))
    elif last == "running_var":
        value = 1 + 0.1 * np.abs(noise)
    elif last == "weight":
        value = 1 + 0.1 * noise
    else:
        value = {"running_mean": 0.1, "bias": 0.02}[last] * noise
    return np.asarray(value, np.float32)


class Cases:
    """Inputs and outputs of the reference implementation."""

    def __init__(self, published):
        self.arrays = published
        self.meta = published.meta

    def inputs(self, case):
        """Return the mixture (B, L) and the normalised mouth (B, 1, F, 88, 88)."""
        frames = self.arrays[f"{case}/frames_u8"][:, :, 4:92, 4:92].astype(np.float64)
        mouth = ((frames / 255 - 0.421) / 0.165).astype(np.float32)[:, None]
        assert zlib.crc32(mouth.tobytes()) == self.meta[case]["mouth_crc32"]
        return torch.from_numpy(self.arrays[f"{case}/mix"]), torch.from_numpy(mouth)

    def tensors(self, case):
        """Yield (name, published values, what is known about the full tensor)."""
        for name, about in self.meta[case]["tensors"].items():
            if f"{case}/{name}" in self.arrays.files:
                yield name, self.arrays[f"{case}/{name}"], about


@pytest.fixture(scope="session")
def cases(parity):
    return Cases(parity("dolphin"))


@pytest.fixture(scope="session")
def filled_state(parity):
    """Return the state dict of the weight recipe."""
    state = {}
    for key, about in parity("dolphin").entries().items():
        if about["dtype"] == "float32":
            value = fill_value(key, tuple(about["shape"]))
            assert zlib.crc32(value.tobytes()) == about.get("crc32", zlib.crc32(value.tobytes()))
            state[key] = torch.from_numpy(value)
        else:
            state[key] = torch.zeros(about["shape"], dtype=torch.int64)
    return state


@pytest.fixture(scope="session")
def network(filled_state):
    net = build_dolphin(dolphin_config("base"))
    net.load_state_dict(filled_state, strict=True)
    return net


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
