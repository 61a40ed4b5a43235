"""Losses of logits against targets, clip by clip."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of sigmoid(logits), both (B, C), in float32: of each clip (B,), the mean over classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=1)


def known_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As :func:`bce`, where targets below 0 are not known: their terms are left out, and count 0 in the mean."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.clamp(min=0), reduction="none")
    return (losses * (targets >= 0)).mean(dim=1)


def kl(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T² KL(q || softmax(logits / T)) of each clip, float32 (B,).

    q is the target with every probability raised to 1/T, renormalised over the classes: the teacher's softmax at
    temperature T, as far as the target holds it. T² keeps the size of the gradients (Hinton et al., arXiv 1503.02531).

    :param logits: (B, C). :param targets: probabilities (B, C), at least one above 0 in each row.
    :param temperature: T > 0.
    """
    sharpened = targets.float().pow(1 / temperature)
    sharpened = sharpened / sharpened.sum(dim=1, keepdim=True)
    log_student = F.log_softmax(logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, sharpened, reduction="none").sum(dim=1)
