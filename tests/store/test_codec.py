import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logitstore.errors import UsageError
from logitstore.store.format.codec import VALUE_BITS, quantizer, top_k


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
@pytest.mark.parametrize("bits", VALUE_BITS)
def test_every_code_survives_and_decodes_inside_the_open_interval(scores, bits):
    q = quantizer(scores, bits)
    table = q.table()
    p = np.linspace(0, 1, 20_001)
    codes = q.encode(p)
    decoded = table[codes]
    assert decoded.min() > 0
    assert decoded.max() < 1
    assert (np.diff(codes.astype(int)) >= 0).all()
    np.testing.assert_array_equal(q.encode(decoded), codes)


@pytest.mark.parametrize(("bits", "largest"), [(8, 0.00307), (6, 0.0123), (4, 0.0491)])
def test_the_angle_bounds_the_error_and_the_divergence(bits, largest):
    q = quantizer("sigmoid", bits)
    p = np.random.default_rng(0).uniform(0.001, 0.999, 200_000)
    d = q.table()[q.encode(p)].astype(np.float64)
    assert abs(d - p).max() < largest
    divergence = p * np.log(p / d) + (1 - p) * np.log((1 - p) / (1 - d))
    step = np.pi / 2 / q.cells
    assert divergence.mean() == pytest.approx(2 * step**2 / 12, rel=0.1)


def test_softmax_codes_are_uniform_in_log_p():
    q = quantizer("softmax", 8)
    p = np.exp(-np.random.default_rng(0).uniform(0, 16, 10_000))
    assert abs(np.log(q.table()[q.encode(p)]) - np.log(p)).max() <= 16 / 256 / 2 + 1e-6


def test_other_bits_are_refused():
    with pytest.raises(UsageError, match="3 bits a value cannot be stored; allowed are 4, 5, 6, 7, 8, 16"):
        quantizer("sigmoid", 3)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_top_k_falls_and_ties_go_to_the_lower_class(k, seed):
    p = np.random.default_rng(seed).integers(0, 5, (4, 12)).astype(np.float32) / 5
    classes, values = top_k(p, k)
    for row in range(4):
        expected = sorted(range(12), key=lambda c: (-p[row, c], c))[:k]
        assert classes[row].tolist() == expected
        assert values[row].tolist() == [p[row, c] for c in expected]
