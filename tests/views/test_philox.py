import numpy as np
import pytest

from logitstore.views.philox import philox4x32, split64, uniform_integers

# Known-answer vectors of philox4x32-10 published with Random123 (kat_vectors).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    assert tuple(int(word) for word in philox4x32(counter, key)) == words


def test_arrays_give_what_single_counters_give():
    counters = np.arange(50, dtype=np.uint64) * 77_777_777 % (1 << 32)
    together = np.stack(philox4x32((counters, 1, counters[::-1], 3), (5, 6)))
    alone = [philox4x32((int(a), 1, int(b), 3), (5, 6)) for a, b in zip(counters, counters[::-1], strict=True)]
    np.testing.assert_array_equal(together, np.array(alone).T)


def test_split64():
    low, high = split64(np.array([0x123456789ABCDEF0], dtype=np.uint64))
    assert (int(low[0]), int(high[0])) == (0x9ABCDEF0, 0x12345678)


def test_uniform_integers_cover_the_half_open_range_evenly():
    words = philox4x32((np.arange(70_000), 0, 0, 0), (1, 2))[0]
    values = uniform_integers(words, -3, 4)
    counts = np.bincount(values + 3)
    assert len(counts) == 7
    assert abs(counts - 10_000).max() < 500
    edges = np.array([0, 0xFFFFFFFF], dtype=np.uint32)
    assert uniform_integers(edges, 10, 20).tolist() == [10, 19]
