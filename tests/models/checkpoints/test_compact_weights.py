import torch

from prunus.models.checkpoints.compact import SCALE, compress, restore


def _state():
    torch.manual_seed(0)
    return {
        "matrix": torch.randn(64, 48) * torch.logspace(-1.5, 1, 64)[:, None],
        "kernel": torch.randn(32, 8, 3, 3),
        "bias": torch.randn(5000),
        "positions": torch.randn(1, 192, 16),
        "small": torch.randn(4, 4),
        "count": torch.tensor(7),
    }


def test_every_number_is_within_half_a_step_of_its_row():
    state = _state()
    back = restore(compress(state))
    assert back.keys() == state.keys()
    for name in ("matrix", "kernel"):
        rows, values = state[name].flatten(1), back[name].flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        # Half a step, the scale's own rounding (2^-11 of 127 steps), and float16's of the product.
        assert ((rows - values).abs() <= step * (0.5 + 127 * 2**-10) + 2**-24).all()


def test_what_comes_back_is_what_float16_holds():
    for name, value in restore(compress(_state())).items():
        if value.is_floating_point():
            assert torch.equal(value.half().float(), value.float()), name


def test_vectors_and_tables_keep_float16_and_integers_stay():
    packed = compress(_state())
    kept = {name for name in packed if name + SCALE not in packed and not name.endswith(SCALE)}
    assert kept == {"bias", "positions", "small", "count"}
    assert packed["count"].dtype == torch.int64
    assert packed["matrix"].dtype == torch.int8


def test_rows_of_zeros_stay_zeros():
    assert not restore(compress({"matrix": torch.zeros(64, 64)}))["matrix"].any()
