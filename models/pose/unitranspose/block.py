"""The joint-aware global-local (JAGL) block of UniTransPose.

With X the patch tokens, J the joint tokens, and every attention having projections of its own:

    J <- J + Attention(q = J, kv = X)                           patch -> joint
    J <- J + Attention(q = J, kv = J)                           joint -> joint
    X <- X + WindowAttention(X) + Attention(q = X, kv = J)      window, joint -> patch
    X <- X + MLP(X)

The steps and their order are those of the method's description (arXiv 2503.00232); norms, and that
the two terms of the third line are added, are our reading. Both of its terms run through the
local-global attention operator; the first two steps are plain attention with few queries.

Query, key and value of the windows and the query of the joints are one linear layer (4 C), and both
terms share one output layer (2 C to C, the sum of two projections).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.local_global.attention import global_attention, window_attention
from prunus.models.layers.local_global.index import AttentionIndex

NORM_EPS = 1e-6


def few_query_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return plain multi-head attention (B, L, C) of query (B, L, C) to key, value (B, M, C)."""
    batch, length, channels = query.shape
    q, k, v = (
        part.reshape(batch, part.shape[1], heads, channels // heads).transpose(1, 2)
        for part in (query, key, value)
    )
    mixed = functional.scaled_dot_product_attention(q, k, v)
    return mixed.transpose(1, 2).reshape(batch, length, channels)


class JointUpdate(nn.Module):
    """The joint tokens' half of a block: they look at the patches, then at each other.

    With `absorb`, evaluation computes the first step without projecting every patch: as
    (q Wk) x = q (Wk x), each joint's query goes through the key's projection instead, and the
    value's projection follows the weighted sum. A key's bias adds the same to all scores of a query
    and drops out. That is the same function at about half of the step's work.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.absorb = True
        self.norm_patch = nn.LayerNorm(dim, eps=NORM_EPS)
        self.query = nn.Linear(dim, dim)
        self.patch_kv = nn.Linear(dim, 2 * dim)
        self.out_patch = nn.Linear(dim, dim)
        self.norm_self = nn.LayerNorm(dim, eps=NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out_self = nn.Linear(dim, dim)

    def forward(self, joints: Tensor, patches: Tensor) -> Tensor:
        """Return updated joint tokens (B, J, C), given normed patches (B, N, C)."""
        query = self.query(self.norm_patch(joints))
        if self._cheaper(joints.shape[1]):
            seen = self._absorbed(query, patches)
        else:
            key, value = self.patch_kv(patches).chunk(2, dim=-1)
            seen = few_query_attention(query, key, value, self.heads)
        joints = joints + self.out_patch(seen)
        query, key, value = self.qkv(self.norm_self(joints)).chunk(3, dim=-1)
        out: Tensor = joints + self.out_self(few_query_attention(query, key, value, self.heads))
        return out

    def _cheaper(self, joints: int) -> bool:
        # Per patch, J h C products against C C + J C: many narrow heads would gain nothing.
        fewer = joints * (self.heads - 1) < self.query.in_features
        return self.absorb and not self.training and fewer

    def _absorbed(self, query: Tensor, patches: Tensor) -> Tensor:
        batch, count, dim = query.shape
        width = dim // self.heads
        to_key, to_value = self.patch_kv.weight.unflatten(0, (2, self.heads, width))
        split = query.reshape(batch, count, self.heads, width).transpose(1, 2)
        asked = (split @ (to_key * width**-0.5)).reshape(batch, self.heads * count, dim)
        weights = (asked @ patches.transpose(1, 2)).softmax(dim=-1)
        found = (weights @ patches).reshape(batch, self.heads, count, dim)
        mixed = (found @ to_value.transpose(1, 2)).transpose(1, 2)
        out: Tensor = mixed.reshape(batch, count, dim) + self.patch_kv.bias[dim:]
        return out


class JaglBlock(nn.Module):
    """One block: joints gather from patches, patches attend to their window and to the joints.

    Args:
        dim: C, channels of a token.
        heads: Attention heads; divides C.
        window: Tokens per window.
        mlp_ratio: Width of the hidden layer in units of C.
    """

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(dim, eps=NORM_EPS)
        self.patch_in = nn.Linear(dim, 4 * dim)
        self.window_bias = nn.Parameter(torch.zeros(1, heads, window, window))
        self.joints = JointUpdate(dim, heads)
        self.norm_joints = nn.LayerNorm(dim, eps=NORM_EPS)
        self.joint_kv = nn.Linear(dim, 2 * dim)
        self.patch_out = nn.Linear(2 * dim, dim)
        self.norm_mlp = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim)
        )

    def forward(
        self, patches: Tensor, joints: Tensor, windows: AttentionIndex, whole: AttentionIndex
    ) -> tuple[Tensor, Tensor]:
        """Return updated patches (B, N, C) and joint tokens (B, J, C).

        Args:
            patches: Patch tokens, row by row.
            joints: Joint tokens.
            windows: Which patches attend to each other.
            whole: Which patches share the joint tokens: all of them.
        """
        normed = self.norm_in(patches)
        query, key, value, joint_query = self.patch_in(normed).chunk(4, dim=-1)
        joints = self.joints(joints, normed)
        seen = self.joint_kv(self.norm_joints(joints)).chunk(2, dim=-1)
        near = window_attention(
            query, key, value, windows, num_heads=self.heads, bias=self.window_bias
        )
        far = global_attention(joint_query, *seen, num_heads=self.heads, index=whole)
        patches = patches + self.patch_out(torch.cat((near, far), dim=-1))
        return patches + self.mlp(self.norm_mlp(patches)), joints
