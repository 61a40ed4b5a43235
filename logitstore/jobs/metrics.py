"""How good scores are, against labels: mAP and the areas under precision-recall curves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import ModelOutputError, SourceError

#: What the areas are: the sum over thresholds of (recall step) x precision, without interpolation.
ESTIMATOR = "average precision (scikit-learn average_precision_score: no interpolation, not trapezoidal)"


@dataclass(frozen=True)
class Metrics:
    """Areas under precision-recall curves, all estimated by average precision, in [0, 1].

    ``mAP`` is the mean over the ``classes`` classes that have positives; ``left_out`` have none and count nowhere but
    in ``micro_auprc``, whose one curve is over all (row, class) pairs of all classes. With this estimator
    ``macro_auprc``, the mean area of a class, is the mAP by definition; both names are given, for readers of either.
    """

    mAP: float  # noqa: N815 - what everyone calls it
    micro_auprc: float
    macro_auprc: float
    classes: int
    left_out: int
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Every field, and the name of the estimator."""
        return asdict(self) | {"estimator": ESTIMATOR}


def class_average_precision(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating[Any]]) -> dict[int, float]:
    """Average precision of every class that has positives, by its index.

    :param labels: bool (n, C). :param scores: (n, C), higher for likelier; finite.
    """
    from sklearn.metrics import average_precision_score

    positive = np.flatnonzero(labels.any(axis=0))
    return {int(c): float(average_precision_score(labels[:, c], scores[:, c])) for c in positive}


def measure(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating[Any]]) -> Metrics:
    """The metrics of scores (n, C) against labels bool (n, C).

    :raises SourceError: no row has a label, so there is nothing to measure.
    :raises ModelOutputError: a score is not finite.
    """
    from sklearn.metrics import average_precision_score

    if not labels.any():
        raise SourceError(f"none of {len(labels)} rows has a label of these classes, so nothing can be measured")
    if not np.isfinite(scores).all():
        raise ModelOutputError("a score is not finite, so nothing can be measured; look for NaN in the model's weights")
    by_class = class_average_precision(labels, scores)
    mean = float(np.mean(list(by_class.values())))
    micro = float(average_precision_score(labels.ravel(), scores.ravel()))
    return Metrics(mean, micro, mean, len(by_class), labels.shape[1] - len(by_class), len(labels))
