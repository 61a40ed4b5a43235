"""How unsure answers are, and how far those of several teachers are apart: one definition for SQL, pages, reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from logitstore.arrays import F32, F64


def surprise(p: F64, scores: str) -> F64:
    """What each of some probabilities in [0, 1) adds to an entropy in nats, in their shape; see :func:`entropy`."""
    terms = -p * np.log(np.maximum(p, np.finfo(np.float64).tiny))
    if scores == "sigmoid":
        terms -= (1.0 - p) * np.log1p(-p)
    return terms


def entropy(probabilities: F32, scores: str, rests: F32 | None = None, class_count: int = 0) -> F64:
    """Entropy in nats over the last axis, float64, of probabilities in (0, 1); 0 in places that a view does not use.

    For "sigmoid" the sum of Bernoulli entropies, for "softmax" -sum(p ln p) of the classes there are.

    :param rests: the probability of every other one of ``class_count`` classes, float32 (…), of views that know it:
        these count too.
    """
    found = np.asarray(surprise(probabilities.astype(np.float64), scores).sum(axis=-1))
    if rests is not None:
        left = class_count - np.count_nonzero(probabilities, axis=-1)
        found += left * surprise(rests.astype(np.float64), scores)
    return found


def jensen_shannon(members: F32, weights: Sequence[float], scores: str) -> F64:
    """How far M members' probabilities (M, …) are apart about each class, in nats: float64, in the shape of one's.

    The Jensen-Shannon divergence: the entropy of their weighted mean less the weighted mean of their entropies, over
    the members that know the class; the others are NaN.

    :param weights: of the members. :param scores: "sigmoid" or "softmax".
    """
    mean, own, total = (np.zeros(members.shape[1:]) for _ in range(3))
    for said, weight in zip(members, weights, strict=True):
        known = ~np.isnan(said)
        p = np.where(known, said, 0.5).astype(np.float64)
        mean += weight * np.where(known, p, 0)
        own += weight * np.where(known, surprise(p, scores), 0)
        total += weight * known
    total[total == 0] = 1.0
    return np.maximum(surprise(np.maximum(mean / total, np.finfo(np.float32).tiny), scores) - own / total, 0)
