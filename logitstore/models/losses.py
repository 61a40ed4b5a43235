"""Losses of logits against targets, clip by clip, and how far apart two answers are."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_LEAST = 1e-7  # that a probability is taken for


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of sigmoid(logits), both (B, C), in float32: of each clip (B,), the mean over classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=1)


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


def divergence(exact: torch.Tensor, said: torch.Tensor, scores: str) -> torch.Tensor:
    """KL(exact || said) of probabilities (…, C), in nats: float64 (…).

    Of "sigmoid" scores the sum over classes of the divergences of Bernoulli variables. Of "softmax" scores that of the
    distributions; what classes that were left out have of them counts as one more class.
    """
    p, q = (values.double().clamp(_LEAST, 1 - _LEAST) for values in (exact, said))
    if scores == "sigmoid":
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=-1).clamp(min=0.0)
    p, q = (torch.cat([values, (1 - values.sum(dim=-1, keepdim=True)).clamp(min=_LEAST)], dim=-1) for values in (p, q))
    return (p * (p / q).log()).sum(dim=-1).clamp(min=0.0)
