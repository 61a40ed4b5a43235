from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.store.format import layout
from logitstore.store.format.gaps import decode_gaps, encode_gaps
from logitstore.store.format.layout import Column, Targets
from logitstore.store.format.objects import encode_group


def random_targets(seed: int, rows: int, views: int, k: int, classes: int, cells: int) -> Targets:
    """Any targets at all: worse than real ones, whose views agree."""
    random = np.random.default_rng(seed)
    chosen = random.permuted(np.tile(np.arange(classes), (rows, views, 1)), axis=2)[..., :k]
    codes = random.integers(0, cells, (rows, views, k))
    order = np.lexsort((chosen, -codes), axis=-1)
    readable = random.random(rows) > 0.2
    keep = readable[:, None, None]
    return Targets(
        np.where(keep, np.take_along_axis(chosen, order, -1), 0).astype(np.uint16),
        np.where(keep, np.take_along_axis(codes, order, -1), 0).astype(np.uint16),
        readable,
    )


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 9),
    views=st.integers(1, 19),
    classes=st.integers(1, 700),
    k=st.integers(1, 25),
    bits=st.sampled_from([4, 8, 16]),
    version=st.sampled_from([1, 3]),
)
def test_targets_survive(seed, rows, views, classes, k, bits, version):
    k = min(k, classes)
    targets = random_targets(seed, rows, views, k, classes, 1 << bits)
    code_bytes = 2 if bits == 16 else 1
    members = np.random.default_rng(seed).integers(0, 1 << bits, (2, rows, views, k)).astype(np.uint16)
    members[:, ~targets.readable] = 0
    arrays = layout.encode_targets(targets, classes, code_bytes, members, version=version)
    back, heard = layout.decode_block(arrays, rows, views, k, classes, version)
    np.testing.assert_array_equal(back.classes, targets.classes)
    np.testing.assert_array_equal(back.codes, targets.codes)
    np.testing.assert_array_equal(back.readable, targets.readable)
    np.testing.assert_array_equal(heard, members)


def test_gaps_of_255_and_more_are_escaped():
    numbers = np.array([0, 254, 255 + 254, 255 + 254 + 255, 5000, 5001])
    encoded = encode_gaps(np.diff(numbers, prepend=-1))
    assert encoded.tolist() == [1, 254, 255, 0, 255, 0] + [255] * 16 + [(5000 - 764) - 255 * 16, 1]
    np.testing.assert_array_equal(np.cumsum(decode_gaps(encoded)) - 1, numbers)


def test_views_that_say_the_same_cost_no_residual():
    same = Targets(np.tile(np.array([3, 1], np.uint16), (1, 5, 1)), np.tile(np.array([200, 90], np.uint16), (1, 5, 1)),
                   np.array([True]))  # fmt: skip
    arrays = layout.encode_targets(same, 10, 1)
    assert arrays["classes"].tolist() == [[2, 2]]
    assert arrays["views"].tolist() == [[31, 31]]
    assert arrays["firsts"].tolist() == [[0, 110]]
    assert arrays["lowest"].tolist() == [[90, 0, 0, 0, 0]]
    assert not arrays["residuals"].any()
    assert layout.encode_targets(same, 10, 1, version=1)["firsts"].tolist() == [[90, 200]]


def test_arrays_that_do_not_fit_are_refused():
    arrays = layout.encode_targets(random_targets(0, 4, 3, 5, 20, 256), 20, 1)
    arrays["views"] = arrays["views"] & 3
    with pytest.raises((ValueError, IndexError), match=r"."):
        layout.decode_block(arrays, 4, 3, 5, 20)


@given(
    low=st.integers(-(2**31), 2**31),
    span=st.integers(1, 2**33),
    seed=st.integers(0, 1000),
)
def test_draws_survive(low, span, seed):
    (column,) = layout.columns_for({"roll": (low, low + span)})
    values = np.random.default_rng(seed).integers(low, low + span, (4, 3))
    planes = layout.encode_draws([column], {"roll": values})
    assert planes.shape == (column.planes, 12)
    np.testing.assert_array_equal(layout.decode_draws([column], planes, 3)["roll"], values)


def test_columns_take_as_many_planes_as_their_range_needs():
    ranges = {"a": (0, 256), "b": (0, 257), "c": (-80_000, 80_001), "d": (5, 6)}
    assert layout.columns_for(ranges) == (
        Column("a", 0, 1),
        Column("b", 0, 2),
        Column("c", -80_000, 3),
        Column("d", 5, 1),
    )


def test_threads_encode_what_one_alone_does_and_leave_zarr_as_it_was():
    """A plane of zeros is a chunk too, whatever zarr's settings are once another thread has done with them."""
    arrays = {"packed": {"zeros": np.zeros((3, 40), np.uint8), "ones": np.ones((2, 30), np.uint8)}}
    alone = encode_group({}, {}, arrays)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            assert list(pool.map(lambda _: encode_group({}, {}, arrays), range(4))) == [alone] * 4
            assert not zarr.config.get("array.write_empty_chunks")
