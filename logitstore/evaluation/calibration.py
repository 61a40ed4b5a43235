"""Calibration: whether of all pairs with a score of 0.7, seven in ten are true. The numbers, and their figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import Bool
from logitstore.errors import MissingExtraError
from logitstore.files import check_out, open_out

Scores = npt.NDArray[np.floating[Any]]

#: Bins of equal width over [0, 1].
BINS = 10
#: Curves that one figure can hold and a reader tell apart.
MOST_CURVES = 8
_FEW = 10  # pairs in a bin whose share of positives says little


@dataclass(frozen=True)
class Bin:
    """Scores in (low, high], the first bin with its low end: how many pairs, their mean score, the share that is true.

    ``mean_score`` and ``positive_share`` are None in an empty bin.
    """

    low: float
    high: float
    count: int
    mean_score: float | None
    positive_share: float | None


@dataclass(frozen=True)
class Calibration:
    """Reliability over all (row, class) pairs.

    ``ece``: expected calibration error, the mean over pairs of their bin's |mean score - share of positives|, in [0, 1]
    (Naeini et al. 2015; Guo et al., arXiv 1706.04599, equation 3). ``brier``: mean of (score - label)^2, in [0, 1].
    """

    bins: tuple[Bin, ...]
    ece: float
    brier: float


def calibrate(labels: Bool, scores: Scores, bins: int = BINS) -> Calibration:
    """The calibration of scores (n, C) in [0, 1] against labels bool (n, C).

    :param bins: number of bins of equal width.
    """
    score, true = scores.ravel().astype(np.float64), labels.ravel()
    edges = np.arange(bins + 1) / bins
    place = np.searchsorted(edges[1:-1], score)
    counts = np.bincount(place, minlength=bins)
    totals = np.bincount(place, weights=score, minlength=bins)
    positives = np.bincount(place, weights=true, minlength=bins)
    filled = np.maximum(counts, 1)
    means, shares = totals / filled, positives / filled
    return Calibration(
        tuple(
            Bin(
                float(edges[number]),
                float(edges[number + 1]),
                int(counts[number]),
                float(means[number]) if counts[number] else None,
                float(shares[number]) if counts[number] else None,
            )
            for number in range(bins)
        ),
        float(np.sum(np.abs(totals - positives)) / max(1, len(score))),
        float(np.mean((score - true) ** 2)),
    )


def require_figures() -> None:
    """Refuse to begin where no figure can be drawn.

    :raises MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 - asked before the work, not after it
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "a figure (--png)") from None


def choose(named: Sequence[tuple[str, Calibration]]) -> list[tuple[str, Calibration]]:
    """The curves to draw, at most :data:`MOST_CURVES`: the last two (the ensemble and the store) and the first ones."""
    if len(named) <= MOST_CURVES:
        return list(named)
    last = 2
    return [*named[: MOST_CURVES - last], *named[-last:]]


def draw(named: Sequence[tuple[str, Calibration]], file: str, title: str) -> None:
    """Write a PNG: reliability above, with the diagonal of perfect calibration; below it how many pairs a bin holds.

    :param named: what to call each curve, and its numbers; see :func:`choose` where there are many.
    :param title: what was scored, one line.
    :raises MissingExtraError: matplotlib is not installed.
    :raises UsageError: the file cannot be written.
    """
    require_figures()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = choose(named)
    figure = Figure(figsize=(6.4, 7.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect calibration")
    width = 1 / len(shown[0][1].bins)
    for number, (name, found) in enumerate(shown):
        filled = [each for each in found.bins if each.count]
        points = np.array([(each.mean_score, each.positive_share) for each in filled]).T
        few = [each.count < _FEW for each in filled]
        label = f"{_short(name)}  (ECE {found.ece:.3f}, Brier {found.brier:.3f})"
        above.plot(*points, color=f"C{number}", marker="o", markersize=5, linewidth=1.5, label=label)
        above.plot(*points[:, few], "o", color=f"C{number}", markersize=5, markerfacecolor="white")
        offset = (number - (len(shown) - 1) / 2) * 0.8 * width / len(shown)
        below.bar(
            [(each.low + each.high) / 2 + offset for each in filled],
            [each.count for each in filled],
            width=0.8 * width / len(shown),
            color=f"C{number}",
        )
    above.plot([], [], "o", color="0.4", markerfacecolor="white", label=f"hollow: fewer than {_FEW} pairs")
    above.set(ylabel="share of positives", ylim=(-0.02, 1.02))
    above.set_title(title, fontsize=10)
    left_out = f"\n{len(named) - len(shown)} more are not drawn" if len(named) > len(shown) else ""
    above.legend(loc="best", fontsize=8, framealpha=0.9, title=left_out.strip() or None, title_fontsize=8)
    below.set(xlabel="score", ylabel="pairs", xlim=(-0.02, 1.02), yscale="log", xticks=np.linspace(0, 1, 11))
    below.set_ylim(bottom=0.7)
    for axes in (above, below):
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    with open_out(file, "--png") as out:
        figure.savefig(out, format="png", metadata={"Software": None})


def check_png(file: str) -> None:
    """Refuse a figure that could not be drawn or written, before the work that it shows.

    :raises MissingExtraError: matplotlib is not installed.
    :raises UsageError: no such folder, or the file is one, or is called as if it were no PNG.
    """
    check_out(file, "--png", (".png",))
    require_figures()


def _short(name: str, most: int = 36) -> str:
    cut = name if len(name) <= most else "…" + name[1 - most :]
    return cut.replace("$", r"\$")  # between two of them matplotlib would read a formula
