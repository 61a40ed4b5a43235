"""Metrics and calibration against scikit-learn, SciPy and by hand; the figure that shows them."""

import sys

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, precision_recall_curve, roc_auc_score

from logitstore.errors import MissingExtraError, ModelOutputError, SourceError, UsageError
from logitstore.evaluation.calibration import MOST_CURVES, calibrate, check_png, choose, draw
from logitstore.evaluation.metrics import areas, measure


def scored(rows=80, classes=7, *, seed=0, ties=False):
    """Labels bool (rows, classes) and scores in [0, 1] that know something of them; class 3 has no positives."""
    random = np.random.default_rng(seed)
    labels = random.random((rows, classes)) < 0.2
    labels[0] = True
    labels[:, 3] = False
    scores = np.clip(labels * 0.3 + 0.7 * random.random((rows, classes)), 0, 1).astype(np.float32)
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_that_of_scikit_learn(seed, ties):
    labels, scores = scored(seed=seed, ties=ties)
    found = measure(labels, scores)
    kept = [c for c in range(7) if c != 3]
    assert [each.index for each in found.by_class] == kept
    for each in found.by_class:
        true, score = labels[:, each.index], scores[:, each.index]
        assert each.positives == true.sum()
        assert each.average_precision == pytest.approx(average_precision_score(true, score))
        assert each.auc == pytest.approx(roc_auc_score(true, score))
        assert each.d_prime == pytest.approx(np.sqrt(2) * norm.ppf(roc_auc_score(true, score)))
        assert each.mean_score == pytest.approx(score.mean(), rel=1e-6)
        precision, recall, _ = precision_recall_curve(true, score)
        assert each.best_f1 == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9)))
        assert each.best_f1 == pytest.approx(f1_score(true, score >= np.float32(each.threshold)))
    assert found.mAP == pytest.approx(average_precision_score(labels[:, kept], scores[:, kept], average="macro"))
    assert found.macro_auprc == found.mAP
    assert found.micro_auprc == pytest.approx(average_precision_score(labels, scores, average="micro"))
    assert areas(labels, scores) == (found.mAP, found.micro_auprc)
    assert found.mean_auc == pytest.approx(roc_auc_score(labels[:, kept], scores[:, kept], average="macro"))
    assert found.d_prime == pytest.approx(np.mean([each.d_prime for each in found.by_class]))
    assert found.d_prime_of_mean_auc == pytest.approx(np.sqrt(2) * norm.ppf(found.mean_auc))
    assert (found.classes, found.left_out, found.rows, found.d_prime_clipped) == (6, 1, 80, 0)
    assert found.calibration.brier == pytest.approx(brier_score_loss(labels.ravel(), scores.ravel()))
    assert "average precision" in found.to_dict()["estimator"]


def test_the_reliability_curve_is_that_of_scikit_learn():
    labels, scores = scored(400)
    for bins in (5, 10):
        found = calibrate(labels, scores, bins)
        filled = [each for each in found.bins if each.count]
        shares, means = calibration_curve(labels.ravel(), scores.ravel(), n_bins=bins)
        assert [each.positive_share for each in filled] == pytest.approx(shares)
        assert [each.mean_score for each in filled] == pytest.approx(means)
        assert sum(each.count for each in found.bins) == labels.size
        weights = np.array([each.count for each in filled]) / labels.size
        assert found.ece == pytest.approx(np.sum(weights * np.abs(shares - means)))


def test_calibration_by_hand():
    labels = np.array([[True, False], [False, True]])
    found = calibrate(labels, np.array([[0.95, 0.0], [0.25, 0.75]]), bins=2)
    assert [(each.low, each.high, each.count) for each in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert [each.positive_share for each in found.bins] == [0.0, 1.0]
    assert [each.mean_score for each in found.bins] == pytest.approx([0.125, 0.85])
    assert found.ece == pytest.approx((0.125 + 0.15) / 2)
    assert found.brier == pytest.approx((0.05**2 + 0.25**2 + 0.25**2) / 4)
    empty = calibrate(labels, np.full((2, 2), 0.95), bins=2).bins[0]
    assert (empty.count, empty.mean_score, empty.positive_share) == (0, None, None)


def test_average_precision_by_hand():
    labels = np.array([[1], [0], [1], [0]], dtype=bool)
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    assert measure(labels, scores).mAP == pytest.approx((1 + 2 / 3) / 2)


def test_the_d_prime_of_a_perfect_and_of_an_inverted_class_is_half_a_count_from_the_end():
    labels = np.array([[1, 1], [1, 1], [0, 0], [0, 0], [0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9]])
    found = measure(labels, scores)
    assert [each.auc for each in found.by_class] == [1.0, 0.0]
    end = np.sqrt(2) * norm.ppf(1 - 1 / (2 * 2 * 3))
    assert [each.d_prime for each in found.by_class] == pytest.approx([end, -end])
    assert found.d_prime == pytest.approx(0, abs=1e-12)
    assert found.d_prime_clipped == 2
    assert found.d_prime_of_mean_auc == pytest.approx(0)
    assert measure(labels[:, :1], scores[:, :1]).d_prime_of_mean_auc is None


def test_a_class_that_every_row_has_counts_in_the_map_alone():
    labels = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], dtype=bool)
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.1]])
    found = measure(labels, scores)
    always, sometimes = found.by_class
    assert (always.average_precision, always.auc, always.d_prime) == (1.0, None, None)
    assert found.mean_auc == sometimes.auc == 0.75
    assert found.d_prime == sometimes.d_prime
    assert found.classes == 2
    only = measure(labels[:, :1], scores[:, :1])
    assert (only.mAP, only.mean_auc, only.d_prime, only.d_prime_of_mean_auc) == (1.0, None, None, None)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(SourceError, match="none of 3 rows has a label"):
        measure(np.zeros((3, 2), bool), np.zeros((3, 2)))
    with pytest.raises(ModelOutputError, match="a score is not finite"):
        measure(np.ones((3, 2), bool), np.full((3, 2), np.nan))


def test_the_figure_shows_every_curve(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="the extra report is not installed")
    colors = pytest.importorskip("matplotlib.colors")
    named = [(f"runs/${seed}_{{$", calibrate(*scored(400, seed=seed))) for seed in range(3)]  # "$", no formula
    draw(named, str(tmp_path / "figure.png"), "three teachers")
    pixels = image.imread(tmp_path / "figure.png")[..., :3]
    assert pixels.shape[0] > 900
    for name, drawn in (("C0", True), ("C1", True), ("C2", True), ("C3", False)):
        near = np.abs(pixels - colors.to_rgb(name)).max(axis=2) < 0.02
        assert bool(near.sum() > 500) is drawn, name
    with pytest.raises(UsageError, match="is a folder; give the name of a file"):
        draw(named, str(tmp_path), "three teachers")


def test_of_many_curves_the_ensemble_and_the_store_are_always_drawn():
    calibration = calibrate(*scored())
    named = [(f"teacher {number}", calibration) for number in range(20)] + [("ensemble", calibration)]
    shown = [name for name, _ in choose(named)]
    assert len(shown) == MOST_CURVES
    assert shown[0] == "teacher 0"
    assert shown[-1] == "ensemble"
    assert choose(named[:3]) == named[:3]


def test_a_figure_that_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match=r"--png .*none/figure.png' cannot be written: there is no folder '.*none'; make it"
    ):
        check_png(str(tmp_path / "none" / "figure.png"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"the package 'matplotlib'; .*: pip install 'logitstore\[report\]'"):
        check_png(str(tmp_path / "figure.png"))
