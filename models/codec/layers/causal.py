"""Causal layers along frames that carry their past: offline is one long step from zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-6


class CausalConv(nn.Module):
    """A convolution over the present frame and `taps - 1` before it.

    Args:
        inputs: Channels that enter.
        outputs: Channels that leave.
        taps: Frames it sees.
        groups: As in `torch.nn.Conv1d`.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, groups: int = 1) -> None:
        super().__init__()
        self.inputs, self.reach = inputs, taps - 1
        self.conv = nn.Conv1d(inputs, outputs, taps, groups=groups)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Shape of the state of one stream."""
        return 1, self.inputs, self.reach

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Go on from the past.

        Args:
            x: (B, inputs, L).
            past: (B, inputs, taps - 1) frames before, zeros at the start.

        Returns:
            (B, outputs, L) and the past of the next step.
        """
        joined = torch.cat((past, x), dim=2)
        return self.conv(joined), joined[..., joined.shape[-1] - self.reach :]


class CausalConvNext(nn.Module):
    """The ConvNeXt block of Vocos (arXiv 2306.00814) with a causal depthwise convolution.

    Args:
        dim: Channels.
        hidden: Width between the linear layers.
        scale: Initial factor of the branch.
    """

    def __init__(self, dim: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.mix = CausalConv(dim, dim, 7, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPSILON)
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Shape of the state of one stream."""
        return self.mix.state_shape

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, dim, L) to the same shape; returns the past of the next step as well."""
        h, past = self.mix(x, past)
        h = self.norm(h.transpose(1, 2))
        h = self.down(functional.gelu(self.up(h)))
        out: Tensor = x + (self.gamma * h).transpose(1, 2)
        return out, past


class CausalStack(nn.Module):
    """A causal convolution, ConvNeXt blocks and a final norm; one state per layer.

    Args:
        inputs: Channels that enter.
        dim: Channels inside and out.
        hidden: Width between the linear layers of a block.
        blocks: ConvNeXt blocks.
        taps: Frames that the first convolution sees.
    """

    def __init__(self, inputs: int, dim: int, hidden: int, blocks: int, taps: int) -> None:
        super().__init__()
        self.first = CausalConv(inputs, dim, taps)
        self.entry = nn.LayerNorm(dim, eps=_EPSILON)
        scale = 1.0 / max(blocks, 1)
        self.blocks = nn.ModuleList(CausalConvNext(dim, hidden, scale) for _ in range(blocks))
        self.exit = nn.LayerNorm(dim, eps=_EPSILON)

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """Shapes of the states of one stream, in order."""
        shapes = [self.first.state_shape]
        for block in self.blocks:
            assert isinstance(block, CausalConvNext)
            shapes.append(block.state_shape)
        return shapes

    def forward(self, x: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map (B, inputs, L) and the states to (B, L, dim) and the next states."""
        x, first = self.first(x, past[0])
        following = [first]
        x = self.entry(x.transpose(1, 2)).transpose(1, 2)
        for block, state in zip(self.blocks, past[1:], strict=True):
            x, state_next = block(x, state)
            following.append(state_next)
        return self.exit(x.transpose(1, 2)), following
