"""FuseCodec (arXiv 2509.11425): SpeechTokenizer's generator, trained with semantic and context.

In training, frozen teachers give an utterance-wide semantic vector S (mean over time of a speech
encoder's layers) and a contextual vector C (a text encoder's sentence token). Three variants use
them: fusion adds both to the features before the quantiser, distillation pulls the first stage
towards them, context alignment pulls single frames towards single text tokens. What is deployed is
the plain codec: fusion drops its additions at random in training, so that they may be left out.

No published code could be followed; widths follow SpeechTokenizer's configuration, and the exact
form of each loss is our reading of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.runtime.errors import UsageError


class FuseCodec(SpeechTokenizer):
    """The deployed codec: SpeechTokenizer's generator under its own names."""

    def __init__(self, config: SpeechTokenizerConfig | None = None) -> None:
        super().__init__(config)


class FusionLayer(nn.Module):
    """Cross-attention between the two teachers, added to the codec's features (section 3.1).

    S' = Attention(S, C, C) W_s and C' = Attention(C, S, S) W_c; Z' = Z + drop(S') + drop(C').

    Args:
        dim: Channels of the codec's features.
        teacher: Width of the teachers' vectors.
        heads: Attention heads.
        drop: Probability, per sample, of leaving out a teacher in training.
    """

    def __init__(
        self, dim: int = 1024, teacher: int = 768, heads: int = 8, drop: float = 0.1
    ) -> None:
        super().__init__()
        if not 0.0 <= drop < 1.0:
            raise UsageError(f"Got the drop probability {drop}; expected 0 to below 1.")
        self.drop = drop
        self.semantic = nn.MultiheadAttention(teacher, heads, batch_first=True)
        self.context = nn.MultiheadAttention(teacher, heads, batch_first=True)
        self.to_semantic = nn.Linear(teacher, dim, bias=False)
        self.to_context = nn.Linear(teacher, dim, bias=False)

    def forward(self, features: Tensor, semantic: Tensor, context: Tensor) -> Tensor:
        """Fuse.

        Args:
            features: (B, dim, L) before the quantiser.
            semantic: (B, teacher) mean of the speech encoder.
            context: (B, teacher) sentence vector of the text encoder.

        Returns:
            (B, dim, L).
        """
        length = features.shape[-1]
        s = semantic.unsqueeze(1).expand(-1, length, -1)
        c = context.unsqueeze(1).expand(-1, length, -1)
        fused_s = self.to_semantic(self.semantic(s, c, c, need_weights=False)[0])
        fused_c = self.to_context(self.context(c, s, s, need_weights=False)[0])
        added = self._dropped(fused_s) + self._dropped(fused_c)
        return features + added.transpose(1, 2)

    def _dropped(self, x: Tensor) -> Tensor:
        """Leave out whole samples at random, without scaling up the others: presence, not noise."""
        if not self.training or self.drop == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop
        return x * kept.to(x.dtype)


def distillation_loss(projected: Tensor, semantic: Tensor, context: Tensor) -> Tensor:
    """Pull every frame of the first stage towards both utterance vectors (section 3.2).

    Args:
        projected: (B, L, teacher), `SpeechTokenizer.semantic` of the codes.
        semantic: (B, teacher).
        context: (B, teacher).

    Returns:
        Mean over frames of 1 - cosine, averaged over the two; 0 when all directions agree.
    """
    losses = [
        1.0 - functional.cosine_similarity(projected, target.unsqueeze(1), dim=-1).mean()
        for target in (semantic, context)
    ]
    return (losses[0] + losses[1]) / 2.0


def align_context(frames: Tensor, tokens: Tensor, window: int) -> Tensor:
    """Assign each frame one text token: the most similar of those that may be spoken there.

    Token i of n may be spoken around frame (i + 1/2) L / n; frames further than `window` from that
    are not compared. Where no token is within reach, the nearest in time is taken.

    Args:
        frames: (L, D) of one utterance.
        tokens: (n, D) of its text.
        window: Frames on either side.

    Returns:
        (L,) int64 indices of tokens.
    """
    if not len(tokens) or window < 0:
        raise UsageError(
            f"Got {len(tokens)} tokens and a window of {window}; expected 1 or more and 0 or more."
        )
    length, count = len(frames), len(tokens)
    centres = (torch.arange(count, device=frames.device) + 0.5) * length / count
    distance = (torch.arange(length, device=frames.device)[:, None] + 0.5 - centres).abs()
    likeness = functional.normalize(frames, dim=-1) @ functional.normalize(tokens, dim=-1).t()
    within = distance <= window
    # Cosines are at least -1, so that any token within reach wins over "nearest in time".
    ranked = torch.where(within, likeness, -2.0 - distance / max(length, 1))
    return ranked.argmax(dim=-1)


def alignment_loss(frames: Tensor, tokens: Tensor, window: int) -> Tensor:
    """Return the mean of 1 - cosine between frames (L, D) and their assigned tokens (n, D)."""
    assigned = tokens[align_context(frames.detach(), tokens, window)]
    return 1.0 - functional.cosine_similarity(frames, assigned, dim=-1).mean()
