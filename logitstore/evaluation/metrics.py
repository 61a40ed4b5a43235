"""How good scores are, against labels: average precision, AUC and d-prime of classes, their means, and calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, Bool
from logitstore.errors import ModelOutputError, SourceError
from logitstore.evaluation.calibration import Calibration, calibrate

Scores = npt.NDArray[np.floating[Any]]

#: What the areas are: the sum over thresholds of (recall step) x precision, without interpolation.
ESTIMATOR = "average precision (scikit-learn average_precision_score: no interpolation, not trapezoidal)"


@dataclass(frozen=True)
class ClassMetrics:
    """One class that has positives.

    ``average_precision`` in [0, 1]; ``auc`` is the area under the ROC curve in [0, 1] and ``d_prime`` is sqrt(2) times
    its probit, both None where every row is positive; ``mean_score`` over all rows; ``best_f1`` the largest F1 over
    all thresholds, reached where a score is at least ``threshold``.
    """

    index: int
    positives: int
    average_precision: float
    auc: float | None
    d_prime: float | None
    mean_score: float
    best_f1: float
    threshold: float


@dataclass(frozen=True)
class Metrics:
    """Scores against labels, over classes and over (row, class) pairs.

    Areas under precision-recall curves are estimated by average precision, in [0, 1]. ``mAP`` is the mean over the
    ``classes`` classes that have positives; ``left_out`` have none and count nowhere but in ``micro_auprc``, whose one
    curve is over all (row, class) pairs of all classes, and in the calibration. With this estimator ``macro_auprc``,
    the mean area of a class, is the mAP by definition; both names are given, for readers of either.

    ``mean_auc`` is the mean area under the ROC curve, ``d_prime`` the mean over classes of sqrt(2) * probit(AUC), as
    the AudioSet papers have it. An AUC of 0 or 1 has no finite probit, so an AUC is taken within half a count of the
    ends, [h, 1 - h] with h = 1 / (2 * positives * negatives); ``d_prime_clipped`` classes were moved by that.
    ``d_prime_of_mean_auc`` is sqrt(2) * probit(mean_auc), which other scripts print under the same name. All three are
    over the classes that have negatives too, and None where there are none.
    """

    mAP: float  # noqa: N815 - what everyone calls it
    micro_auprc: float
    macro_auprc: float
    mean_auc: float | None
    d_prime: float | None
    d_prime_of_mean_auc: float | None
    d_prime_clipped: int
    classes: int
    left_out: int
    rows: int
    by_class: tuple[ClassMetrics, ...]
    calibration: Calibration

    def to_dict(self) -> dict[str, Any]:
        """Every number but those of single classes, and the name of the estimator."""
        fields = asdict(self) | {"estimator": ESTIMATOR}
        del fields["by_class"]
        return fields


def d_prime(auc: float) -> float:
    """sqrt(2) * probit(AUC), AUC in (0, 1)."""
    return float(np.sqrt(2)) * NormalDist().inv_cdf(auc)


def areas(labels: Bool, scores: Scores) -> tuple[float, float]:
    """mAP and micro AUPRC alone; see :class:`Metrics`. ``labels`` bool (n, C) has a true one."""
    from sklearn.metrics import average_precision_score

    positive = np.flatnonzero(labels.any(axis=0))
    mean = np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in positive])
    return float(mean), float(average_precision_score(labels.ravel(), scores.ravel()))


def best_f1(labels: Bool, scores: Scores) -> tuple[float, float]:
    """The largest F1 of scores (n,) against labels bool (n,), one at least true, and its highest threshold."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = (part[::-1] for part in precision_recall_curve(labels, scores))
    precision, recall = precision[1:], recall[1:]  # without the point that no threshold reaches; falling thresholds
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best])


def measure(labels: Bool, scores: Scores, of: I64 | None = None) -> Metrics:
    """The metrics of scores (n, C) in [0, 1] against labels bool (n, C).

    :param of: the classes to measure, rising; all by default. Those of ``by_class`` are numbered among all.
    :raises SourceError: no row has a label, so there is nothing to measure.
    :raises ModelOutputError: a score is not finite.
    """
    if of is not None and len(of) < labels.shape[1]:
        found = measure(labels[:, of], scores[:, of])
        numbered = (replace(each, index=int(of[each.index])) for each in found.by_class)
        return replace(found, by_class=tuple(numbered))
    if not labels.any():
        raise SourceError(f"none of {len(labels)} rows has a label of these classes, so nothing can be measured")
    if not np.isfinite(scores).all():
        raise ModelOutputError("a score is not finite, so nothing can be measured; look for NaN in the model's weights")
    from sklearn.metrics import average_precision_score, roc_auc_score

    by_class, clipped = [], 0
    for index in np.flatnonzero(labels.any(axis=0)).tolist():
        true, score = labels[:, index], scores[:, index]
        positives = int(true.sum())
        negatives = len(true) - positives
        area = float(roc_auc_score(true, score)) if negatives else None
        within = None
        if area is not None:
            half = 0.5 / (positives * negatives)
            within = min(max(area, half), 1 - half)
            clipped += within != area
        by_class.append(
            ClassMetrics(
                index,
                positives,
                float(average_precision_score(true, score)),
                area,
                None if within is None else d_prime(within),
                float(score.mean(dtype=np.float64)),
                *best_f1(true, score),
            )
        )
    mean = float(np.mean([each.average_precision for each in by_class]))
    aucs = [each.auc for each in by_class if each.auc is not None]
    d_primes = [each.d_prime for each in by_class if each.d_prime is not None]
    mean_auc = float(np.mean(aucs)) if aucs else None
    return Metrics(
        mAP=mean,
        micro_auprc=float(average_precision_score(labels.ravel(), scores.ravel())),
        macro_auprc=mean,
        mean_auc=mean_auc,
        d_prime=float(np.mean(d_primes)) if d_primes else None,
        d_prime_of_mean_auc=d_prime(mean_auc) if mean_auc is not None and 0 < mean_auc < 1 else None,
        d_prime_clipped=clipped,
        classes=len(by_class),
        left_out=labels.shape[1] - len(by_class),
        rows=len(labels),
        by_class=tuple(by_class),
        calibration=calibrate(labels, scores),
    )
