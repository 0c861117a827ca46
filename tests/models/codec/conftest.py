"""Weights that anybody can regenerate, and the numbers that published code gives with them."""

import zlib

import numpy as np
import pytest
import torch


def _draw(key, shape):
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)


def _matrix(key, shape):
    return _draw(key, shape) / np.sqrt(np.prod(shape[1:]))


def fill_value(key, shape, codebook_scale):
    """Return the value of one state dict entry, or None where the network's own is kept."""
    last = key.rpartition(".")[2]
    if last == "window" or last == "num_batches_tracked":
        return None
    if last in ("inited", "initted", "cluster_size"):
        return np.ones(shape)
    if last in ("embed", "embed_avg"):
        return codebook_scale * _draw(key.removesuffix("_avg"), shape)
    if last.startswith(("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")):
        bound = 1.0 / np.sqrt(shape[0] // 4)
        return np.random.default_rng(zlib.crc32(key.encode())).uniform(-bound, bound, shape)
    if last == "weight_g":
        raise AssertionError("needs its sibling: use fill()")
    if key.endswith("norm.scale.weight"):
        return 1 + 0.1 * _draw(key, shape)
    if key.endswith("norm.shift.weight"):
        return 0.02 * _draw(key, shape)
    if len(shape) >= 2:
        return _matrix(key, shape)
    if last == "running_mean":
        return 0.1 * _draw(key, shape)
    if last == "running_var":
        return 1 + 0.1 * np.abs(_draw(key, shape))
    if last == "bias":
        return 0.02 * _draw(key, shape)
    return 1 + 0.1 * _draw(key, shape)


def fill(shapes, codebook_scale, kept):
    """Return a state dict; `shapes` maps names to shapes, `kept` holds what the recipe keeps."""
    state = {}
    for key, shape in shapes.items():
        if key.endswith("weight_g"):
            sibling = key.removesuffix("_g") + "_v"
            v = _matrix(sibling, tuple(shapes[sibling]))
            norm = np.sqrt((v**2).sum(axis=tuple(range(1, v.ndim)), keepdims=True))
            value = norm * (1 + 0.1 * _draw(key, shape))
        else:
            value = fill_value(key, shape, codebook_scale)
        state[key] = kept[key] if value is None else torch.from_numpy(value.astype(np.float32))
    return state


@pytest.fixture(scope="session")
def published_shapes(parity):
    """Return a reader: folder, file -> the published state dict's names and shapes."""

    def read(name, file):
        return {key: tuple(about["shape"]) for key, about in parity(name).entries(file).items()}

    return read


@pytest.fixture(scope="session")
def filled():
    """Return a builder: network -> the same network with the recipe's weights, in eval mode."""

    def build(network, codebook_scale):
        own = network.state_dict()
        shapes = {key: tuple(value.shape) for key, value in own.items()}
        network.load_state_dict(fill(shapes, codebook_scale, own), assign=True)
        return network.eval()

    return build


@pytest.fixture(scope="session")
def gap():
    """Return the largest absolute difference of a tensor and an array."""

    def measure(got, expected):
        got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
        assert got.shape == expected.shape, (got.shape, expected.shape)
        return float(np.abs(got.astype(np.float64) - expected).max())

    return measure


@pytest.fixture(scope="session")
def digest():
    """Return the summary of a tensor that the fixtures store for inner tensors."""

    def summary(tensor):
        flat = tensor.detach().double().numpy().reshape(-1)
        stride = max(1, flat.size // 64)
        head = [flat.size, flat.mean(), flat.std(), np.abs(flat).mean(), np.abs(flat).max(), stride]
        return np.concatenate((head, flat[::stride][:64]))

    return summary
