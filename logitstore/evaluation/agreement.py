"""How far one model agrees with another on the same views, without any labels: B is measured against what A said.

A's **decisions** stand in for labels: the classes that it gives a probability of at least 0.5, or its first class where
there is none. What A said of a class may not be known, as of a store's targets, which hold the k most probable ones:
such a class is none of its decisions, and counts in no divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from logitstore.arrays import F32, F64, I64, Bool
from logitstore.evaluation.calibration import calibrate

#: A probability from which on a class is decided for.
DECIDED = 0.5
#: Classes that are compared as the first ones of a view; and how many classes and views are named.
FIRST = 5
MOST_NAMED = 10
_EPSILON = 1e-7  # probabilities are clamped to [_EPSILON, 1 - _EPSILON] before their logarithm


@dataclass(frozen=True)
class ClassAgreement:
    """One class that A decides for: in how many ``views``, the average precision of B there, and the mean probability
    that A and B give it in these views."""

    name: str
    views: int
    average_precision: float
    mean_a: float
    mean_b: float


@dataclass(frozen=True)
class ViewAgreement:
    """One view: its file, where it starts in it (s), which view of a store (or None), the divergence of B from A in
    nats, and the first class of each with its probability."""

    path: str
    second: float
    view: int | None
    kl: float
    a: tuple[str, float]
    b: tuple[str, float]


@dataclass(frozen=True)
class Agreement:
    """B against A over ``views`` views of ``clips`` clips and the ``classes`` that both have.

    ``top1``: share of views with the same first class. ``top5``: mean share of A's first five that are among B's.
    ``kl``: mean over views of the divergence of B from A, nats: for sigmoid scores the sum over known classes of the
    Bernoulli divergences, for softmax scores that over known classes and all others together. ``mAP``: B's scores
    against A's decisions, over the ``decided`` classes that A decides for in some views and not in all, None where
    there are none; ``ece``: expected calibration error of B against them, over all pairs. ``by_class`` and ``worst``:
    those of least average precision and of most divergence, at most ten each.
    """

    views: int
    clips: int
    classes: int
    top1: float
    top5: float
    kl: float
    mAP: float | None  # noqa: N815 - what everyone calls it
    decided: int
    ece: float
    by_class: tuple[ClassAgreement, ...]
    worst: tuple[ViewAgreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, said: dict[str, Any]) -> Agreement:
        """What :meth:`to_dict` gave, read from JSON."""
        by_class = tuple(ClassAgreement(**each) for each in said["by_class"])
        worst = tuple(ViewAgreement(**each | {"a": tuple(each["a"]), "b": tuple(each["b"])}) for each in said["worst"])
        return cls(**said | {"by_class": by_class, "worst": worst})


@dataclass(frozen=True)
class Place:
    """Where a view is from: the path of its file, its start in seconds, and the number of the view, of a store."""

    path: str
    second: float
    view: int | None = None


def agree(
    a: F32,
    b: F32,
    classes: Sequence[str],
    places: Sequence[Place],
    *,
    scores: str = "sigmoid",
    known: Bool | None = None,
    known_b: Bool | None = None,
) -> Agreement:
    """How far ``b`` agrees with ``a``.

    :param a, b: probabilities float32 (n, C) of the same views; n at least 1. :param classes: C names.
    :param places: of the n views. :param scores: "sigmoid" or "softmax", of both.
    :param known, known_b: bool (n, C), whether it is known what ``a`` and what ``b`` say; everything by default. What
        is not is 0, and counts in no divergence.
    """
    known = np.ones(a.shape, dtype=np.bool_) if known is None else known
    first_a, first_b = a.argmax(axis=1), b.argmax(axis=1)
    decisions = (a >= DECIDED) & known
    undecided = ~decisions.any(axis=1)
    decisions[undecided, first_a[undecided]] = True
    kl = divergence(a, b, known if known_b is None else known & known_b, scores)
    positive = np.flatnonzero(decisions.any(axis=0) & ~decisions.all(axis=0))
    by_class = _by_class(a, b, decisions, positive, classes)
    worst = np.argsort(-kl, kind="stable")[:MOST_NAMED]
    return Agreement(
        views=len(a),
        clips=len({(place.path, place.second) for place in places}),
        classes=len(classes),
        top1=float((first_a == first_b).mean()),
        top5=_overlap(a, b),
        kl=float(kl.mean()),
        mAP=float(np.mean([each.average_precision for each in by_class])) if by_class else None,
        decided=len(positive),
        ece=calibrate(decisions, b).ece,
        by_class=by_class[:MOST_NAMED],
        worst=tuple(
            ViewAgreement(
                places[row].path,
                places[row].second,
                places[row].view,
                float(kl[row]),
                (classes[first_a[row]], float(a[row, first_a[row]])),
                (classes[first_b[row]], float(b[row, first_b[row]])),
            )
            for row in worst.tolist()
        ),
    )


def divergence(a: F32, b: F32, known: Bool, scores: str) -> F64:
    """The Kullback-Leibler divergence of ``b`` from ``a`` of each view, nats, float64 (n,); see :class:`Agreement`."""
    p, q = (np.clip(each.astype(np.float64), _EPSILON, 1 - _EPSILON) for each in (a, b))
    total: F64 = np.where(known, p * np.log(p / q), 0.0).sum(axis=1)
    if scores == "sigmoid":
        return total + np.where(known, (1 - p) * np.log((1 - p) / (1 - q)), 0.0).sum(axis=1)
    rest_p, rest_q = (np.clip(1 - np.where(known, each, 0).sum(axis=1), _EPSILON, 1) for each in (p, q))
    return np.maximum(total + rest_p * np.log(rest_p / rest_q), 0)


def _overlap(a: F32, b: F32) -> float:
    count = min(FIRST, a.shape[1])
    of_a, of_b = (np.argsort(-each, axis=1, kind="stable")[:, :count] for each in (a, b))
    return float((of_a[:, :, None] == of_b[:, None, :]).any(axis=2).mean())


def _by_class(a: F32, b: F32, decisions: Bool, positive: I64, classes: Sequence[str]) -> tuple[ClassAgreement, ...]:
    """The classes of least average precision first; of two alike that of more views."""
    from sklearn.metrics import average_precision_score

    found = []
    for at in positive.tolist():
        there = decisions[:, at]
        found.append(
            ClassAgreement(
                classes[at],
                int(there.sum()),
                float(average_precision_score(there, b[:, at])),
                float(a[there, at].mean()),
                float(b[there, at].mean()),
            )
        )
    return tuple(sorted(found, key=lambda each: (each.average_precision, -each.views, each.name)))
