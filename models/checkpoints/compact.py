"""Store weights in eight bits a number, a scale for each output channel beside them.

A shipped checkpoint of half the size of float16. Matrices and kernels become ``name`` (int8) and
``name#scale`` (float16, one for each row); small tensors, vectors and tables with a first axis of
one (position codes) stay float16. Whoever reads the file gets float32: ``weight = int8 * scale``,
rounded to what float16 holds, so that an export in half precision has the very same weights.
Weights that `on_grid` rounded before have a float32 scale and come back without any change.
Nothing computes in integers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = "#scale"
STORAGE = "stored in 8 bits with a scale for each output channel, used as float32"
_SMALLEST = 1024  # numbers; below it eight bits save nothing
_TOP = 127


def on_grid(weight: Tensor) -> Tensor:
    """Return (out, ...) float32 weights rounded to 8 bits with a scale per output channel.

    Scales have 16 significant bits: every multiple up to 127 is then exact in float32.
    """
    largest = weight.flatten(1).abs().amax(dim=1).double()
    mantissa, exponent = torch.frexp(largest / _TOP)
    scale = torch.ldexp(torch.round(mantissa * 2.0**16) / 2.0**16, exponent)
    scale = torch.where(largest > 0, scale, torch.ones_like(scale)).float()
    scale = scale.view(-1, *(1 for _ in range(weight.dim() - 1)))
    steps = torch.round(weight / scale).clamp(-_TOP, _TOP)
    return steps * scale


def compress(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict whose large tensors are int8; integers stay as they are."""
    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value.contiguous()
        elif value.dim() < 2 or value.shape[0] == 1 or value.numel() < _SMALLEST:
            packed[name] = value.half().contiguous()
        elif (exact := _exact(value.float())) is not None:
            packed[name], packed[name + SCALE] = exact
        else:
            rows = value.float().flatten(1)
            # The scale is rounded to float16 first, so that the integers are the best for it; the
            # smallest normal number of float16 keeps rows of zeros from dividing by zero.
            scale = (rows.abs().amax(1) / _TOP).clamp(min=2.0**-14).half()
            steps = (rows / scale.float()[:, None]).round().clamp(-_TOP, _TOP)
            packed[name] = steps.to(torch.int8).reshape(value.shape).contiguous()
            packed[name + SCALE] = scale
    return packed


def restore(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `compress`: int8 tensors with a scale become float32, all others pass through."""
    state: dict[str, Tensor] = {}
    for name, value in packed.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in packed:
            continue
        scale = packed.get(name + SCALE)
        if scale is None:
            state[name] = value
        else:
            shape = (-1, *[1] * (value.dim() - 1))
            wide = value.float() * scale.float().reshape(shape)
            state[name] = wide if scale.dtype == torch.float32 else wide.half().float()
    return state


def _exact(value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the integers and float32 scales of weights on the grid, None for others."""
    rows = value.flatten(1)
    largest = rows.abs().amax(1)
    scale = torch.where(largest > 0, largest / _TOP, torch.ones_like(largest))
    steps = (rows / scale[:, None]).round().clamp(-_TOP, _TOP)
    if not torch.equal(steps * scale[:, None], rows):
        return None
    return steps.to(torch.int8).reshape(value.shape).contiguous(), scale
