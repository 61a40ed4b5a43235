"""The rate benchmark: its points are what stores hold, and its students learn what stores say."""

import numpy as np
import pytest

from benchmarks.rate import _as_learnt, coded, coded_as_grid


@pytest.fixture(scope="module")
def said():
    random = np.random.default_rng(1)
    logits = random.normal(-3, 2.5, (20, 1, 10)) + random.normal(0, 0.5, (20, 4, 10))
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def test_a_point_of_a_quality_loses_what_was_asked_or_less(said):
    sizes = [coded(said, asked, 20) for asked in (0.01, 0.1, 1.0)]
    for found, asked in zip(sizes, (0.01, 0.1, 1.0), strict=True):
        assert 0 < found.loss <= asked * (1 + 1e-5)
    assert sizes[0].size > sizes[1].size > sizes[2].size
    assert sizes[0].classes > sizes[2].classes


def test_a_point_of_the_grid_loses_less_with_more_bits_and_classes(said):
    few, many, fine = (coded_as_grid(said, bits, k) for bits, k in ((4, 3), (4, 10), (8, 10)))
    assert few.loss > many.loss > fine.loss
    assert few.size < many.size < fine.size
    assert np.abs(fine.read - said).max() < 0.0031


def test_students_learn_the_rest_or_zero(said):
    found = coded(said, 0.5, 20)
    learnt, zero = _as_learnt(found, "stored"), _as_learnt(found, "zero")
    assert learnt.shape == (4, 20, 10)
    assert (learnt > 0).all()
    assert ((zero == 0) | (zero == learnt)).all()
    assert (zero > 0).sum() == round(found.classes * 80)
