"""UniTransPose written the usual way, with the same weights: what the fast form is held against.

Differs from `unitranspose.py`:
* every block partitions the tokens into windows and puts them back;
* every attention has layers of its own (query/key/value, output) instead of merged ones, splits
  them with a reshape and `unbind`, and writes its softmax out.

Tests prove both equal; `benchmarks/pose/unitranspose.py` times both. Nothing else uses this file.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.index import AttentionIndex
from prunus.models.pose.unitranspose.block import JaglBlock
from prunus.models.pose.unitranspose.unitranspose import STRIDES, Stage, UniTransPose


def _rows(layer: nn.Linear, start: int, stop: int) -> nn.Linear:
    """Return a linear layer made of some outputs of another one."""
    part = nn.Linear(layer.in_features, stop - start)
    part.weight.data = layer.weight.data[start:stop].clone()
    part.bias.data = layer.bias.data[start:stop].clone()
    return part


def _columns(layer: nn.Linear, start: int, stop: int, *, bias: bool) -> nn.Linear:
    """Return a linear layer that reads some inputs of another one."""
    part = nn.Linear(stop - start, layer.out_features)
    part.weight.data = layer.weight.data[:, start:stop].clone()
    part.bias.data = layer.bias.data.clone() if bias else torch.zeros_like(layer.bias.data)
    return part


def _softmax_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Return (B, L, C) of query (B, h, L, d) and key, value (B, h, M, d)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    mixed: Tensor = (weights @ value).transpose(1, 2).flatten(2)
    return mixed


class NaiveWindowAttention(nn.Module):
    """Self-attention inside windows of a grid (B, H, W, C)."""

    def __init__(
        self, qkv: nn.Linear, out: nn.Linear, bias: nn.Parameter, window: tuple[int, int]
    ) -> None:
        super().__init__()
        self.qkv, self.out, self.bias, self.window = qkv, out, bias, window

    def forward(self, grid: Tensor) -> Tensor:
        """Return (B, H, W, C)."""
        batch, rows, columns, dim = grid.shape
        high, wide = self.window
        cells = grid.view(batch, rows // high, high, columns // wide, wide, dim)
        windows = cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, high * wide, dim)
        heads = self.bias.shape[1]
        packed = self.qkv(windows).reshape(-1, high * wide, 3, heads, dim // heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _softmax_attention(query, key, value, self.bias)
        cells = self.out(mixed).view(batch, rows // high, columns // wide, high, wide, dim)
        out: Tensor = cells.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, dim)
        return out


class NaiveAttention(nn.Module):
    """Multi-head attention from one list of tokens to another."""

    def __init__(self, query: nn.Linear, kv: nn.Linear, out: nn.Linear, heads: int) -> None:
        super().__init__()
        self.query, self.kv, self.out, self.heads = query, kv, out, heads

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Return (B, L, C) of tokens (B, L, C) that look at context (B, M, C)."""
        batch, length, dim = tokens.shape
        split = (self.heads, dim // self.heads)
        query = self.query(tokens).reshape(batch, length, *split).transpose(1, 2)
        packed = self.kv(context).reshape(batch, context.shape[1], 2, *split)
        key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.out(_softmax_attention(query, key, value, None))
        return out


class NaiveBlock(nn.Module):
    """A JAGL block with the weights of `block`."""

    def __init__(self, block: JaglBlock, grid: tuple[int, int], window: tuple[int, int]) -> None:
        super().__init__()
        dim, heads, joints = block.norm_in.normalized_shape[0], block.heads, block.joints
        self.grid = grid
        self.norm_in = block.norm_in
        self.window_attention = NaiveWindowAttention(
            _rows(block.patch_in, 0, 3 * dim),
            _columns(block.patch_out, 0, dim, bias=True),
            block.window_bias,
            window,
        )
        self.norm_patch = joints.norm_patch
        self.patch_to_joint = NaiveAttention(joints.query, joints.patch_kv, joints.out_patch, heads)
        self.norm_self = joints.norm_self
        self.joint_to_joint = NaiveAttention(
            _rows(joints.qkv, 0, dim), _rows(joints.qkv, dim, 3 * dim), joints.out_self, heads
        )
        self.norm_joints = block.norm_joints
        self.joint_to_patch = NaiveAttention(
            _rows(block.patch_in, 3 * dim, 4 * dim),
            block.joint_kv,
            _columns(block.patch_out, dim, 2 * dim, bias=False),
            heads,
        )
        self.norm_mlp, self.mlp = block.norm_mlp, block.mlp

    def forward(
        self, patches: Tensor, joints: Tensor, windows: AttentionIndex, whole: AttentionIndex
    ) -> tuple[Tensor, Tensor]:
        """Return what `JaglBlock` returns; the tables are not read."""
        normed = self.norm_in(patches)
        joints = joints + self.patch_to_joint(self.norm_patch(joints), normed)
        own = self.norm_self(joints)
        joints = joints + self.joint_to_joint(own, own)
        near = self.window_attention(normed.unflatten(1, self.grid)).flatten(1, 2)
        patches = patches + near + self.joint_to_patch(normed, self.norm_joints(joints))
        out: Tensor = patches + self.mlp(self.norm_mlp(patches))
        return out, joints


class NaiveUniTransPose(UniTransPose):
    """A UniTransPose in the usual form that computes what `network` computes.

    Args:
        network: Where the weights come from; it is copied.
    """

    def __init__(self, network: UniTransPose) -> None:
        nn.Module.__init__(self)
        twin = copy.deepcopy(network)
        self.config = twin.config
        self.joint_tokens = twin.joint_tokens
        for name, module in twin.named_children():
            setattr(self, name, module)
        window = self.config.window
        for stride, stage in zip(STRIDES, cast("list[Stage]", list(self.stages)), strict=True):
            grid = self.config.grid(stride)
            blocks = cast("list[JaglBlock]", list(stage.blocks))
            stage.blocks = nn.ModuleList(NaiveBlock(block, grid, window) for block in blocks)
        self.train(network.training)
