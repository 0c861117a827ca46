import torch

from prunus.models.checkpoints.compact import SCALE, compress, on_grid, restore


def _state():
    torch.manual_seed(3)
    rows = torch.randn(32, 64) * torch.logspace(-6, 1, 32)[:, None]  # rows of very unlike size
    rows[5] = 0
    return {
        "matrix": rows,
        "kernel": torch.randn(64, 8, 3, 3),
        "vector": torch.randn(2000),
        "small": torch.randn(4, 4),
        "count": torch.tensor(7),
    }


def test_every_number_comes_back_within_half_a_step_of_its_row():
    state = _state()
    back = restore(compress(state))
    assert back.keys() == state.keys()
    for name in ("matrix", "kernel"):
        assert back[name].dtype == torch.float32 and back[name].shape == state[name].shape
        step = state[name].flatten(1).abs().amax(1) / 127
        error = (back[name] - state[name]).flatten(1).abs().amax(1)
        # A row below the smallest scale keeps that scale; rounding the scale costs 2^-11 of it.
        assert (error <= 0.502 * step.clamp(min=2.0**-14) + 127 * step * 2.0**-11).all()
    assert torch.equal(back["matrix"][5], torch.zeros(64))
    assert torch.equal(back["vector"], state["vector"].half())
    assert torch.equal(back["count"], state["count"])


def test_large_tensors_take_one_byte_a_number():
    packed = compress(_state())
    assert packed["matrix"].dtype == packed["kernel"].dtype == torch.int8
    assert packed["matrix" + SCALE].shape == (32,)
    assert packed["small"].dtype == packed["vector"].dtype == torch.float16


def test_a_plain_state_dict_passes_through():
    plain = {"a": torch.randn(40, 40), "b": torch.ones(3, dtype=torch.int8)}
    back = restore(plain)
    assert back.keys() == plain.keys()
    assert all(back[name] is plain[name] for name in plain)


def test_rounded_weights_come_back_without_any_change():
    fine = {name: on_grid(value) for name, value in _state().items() if value.ndim > 1}
    packed = compress(fine)
    assert packed["matrix"].dtype == torch.int8 and packed["matrix" + SCALE].dtype == torch.float32
    back = restore(packed)
    assert torch.equal(back["matrix"], fine["matrix"])
    assert torch.equal(back["kernel"], fine["kernel"])
    nearly = fine["matrix"].clone()
    nearly[7, 3] *= 1.001  # off the grid by less than a step: the usual storage
    assert compress({"matrix": nearly})["matrix" + SCALE].dtype == torch.float16
