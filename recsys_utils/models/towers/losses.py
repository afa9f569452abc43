"""What the two towers are trained by, for receipts and for ratings alike."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

Loss = Literal["bce", "bpr", "softmax"]


def pair_losses(logits: Tensor, loss: Loss, label: Tensor | None = None) -> Tensor:
    """(n,) losses of (n, 1 + negatives) logits, the positive first; with labels their mean.

    bpr: the positive above each negative (Rendle et al. 2009). bce: against the labels, or 1 for
    the positive and 0 for the others.
    """
    if loss == "bpr":
        losses = softplus(logits[:, 1:] - logits[:, :1])
        return losses.mean(1) if label is None else losses.mean()
    if label is not None:
        return binary_cross_entropy_with_logits(logits, label)
    label = torch.zeros_like(logits)
    label[:, 0] = 1
    return binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)


def without_twins(scores: Tensor, item: Tensor) -> Tensor:
    """(n, n) scores of a batch's users and items, where the same item is no negative of itself.

    scores: corrected by log q for the softmax in the batch (Yi et al. 2019). item: (n,) codes.
    """
    same = item[:, None] == item[None, :]
    twins = same & ~torch.eye(len(item), dtype=torch.bool)
    return scores.masked_fill(twins, -torch.inf)
