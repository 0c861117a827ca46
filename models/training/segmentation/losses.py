"""Score class logits against masks: cross-entropy, and the overlap of each picture."""

from __future__ import annotations

import torch
from torch.nn import functional

from prunus.models.segmentation.edaformer import resize_logits
from prunus.models.training.segmentation.shards import IGNORE, PERSON


def mask_loss(logits: torch.Tensor, labels: torch.Tensor, overlap: float = 0.5) -> torch.Tensor:
    """Return the mean loss of a batch.

    Cross-entropy alone is content with background where people are small; the soft Dice term
    (Milletari et al., V-Net, 2016) weighs each picture's person as a whole.

    Args:
        logits: float (B,2,h,w), enlarged bilinearly to the labels' size as at inference.
        labels: uint8 (B,H,W): 0 background, 1 person, 255 not known.
        overlap: Weight of the Dice term.
    """
    full = resize_logits(logits.float(), labels.shape[1], labels.shape[2])
    target = labels.long()
    known = labels != IGNORE
    entropy = functional.cross_entropy(full, target, ignore_index=IGNORE)
    sure = (full[:, 1] - full[:, 0]).sigmoid() * known
    person = ((labels == PERSON) & known).float()
    both = (sure * person).sum((1, 2))
    either = sure.sum((1, 2)) + person.sum((1, 2))
    some = person.sum((1, 2)) > 0
    dice = 1 - (2 * both + 1) / (either + 1)
    return entropy + overlap * (dice * some).sum() / some.sum().clamp(min=1)
