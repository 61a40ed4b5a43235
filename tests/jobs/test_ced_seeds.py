"""CED's seeds against what they stand for: NumPy's MT19937, PyTorch's generator, and the log of the original's run."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.errors import RecipeError
from logitstore.jobs.imports.ced_seeds import ced_draws, mt19937, require_ced
from logitstore.views.ops import Op, Place
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.gain import Gain
from logitstore.views.ops.mixup import Mixup
from logitstore.views.ops.noise import Noise
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import CED, NONE, Recipe
from tests import references


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), st.integers(1, 227))
@settings(max_examples=20, deadline=None)
def test_words_are_those_of_numpy(seeds: list[int], words: int) -> None:
    expected = [np.random.RandomState(seed).randint(0, 1 << 32, words, dtype=np.uint32) for seed in seeds]
    assert np.array_equal(mt19937(np.array(seeds), words), np.array(expected).T)


def test_more_seeds_than_fit_a_cache() -> None:
    seeds = np.random.default_rng(0).integers(0, 1 << 31, 70_000)
    words = mt19937(seeds, 4)
    for position in (0, 32_767, 32_768, 69_999):
        assert np.array_equal(words[:, [position]], mt19937(seeds[[position]], 4))


@given(
    seed=st.integers(0, 2**31 - 1),
    length=st.integers(0, 200_003),
    fraction=st.sampled_from([0.5, 0.3, 0.123, 1.0]),
    probability=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    frames=st.integers(192, 1001),
    kept=st.sampled_from([(0, 1, 2), (1, 2), (0,), (0, 2), (2,)]),
)
@settings(max_examples=200, deadline=None)
def test_draws_are_those_of_pytorch(
    seed: int, length: int, fraction: float, probability: float, frames: int, kept: tuple[int, ...]
) -> None:
    ops = (Roll(probability=probability, max_fraction=fraction), TimeMask(max_seconds=1.92), FrequencyMask())
    recipe = Recipe("of CED", tuple(ops[i] for i in kept))
    drawn = ced_draws(recipe, np.array([seed]), np.array([length]), frames).columns(recipe)
    assert [int(values[0]) for values in drawn.values()] == references.ced_draws(seed, length, recipe, frames)
    place = Place(max(length, frames * 160), 16_000)
    for name, (low, high) in recipe.ranges(place, imported=True).items():
        assert low <= drawn[name][0] < high, name


def test_every_row_of_the_log_of_a_run(ced_sample: Path) -> None:
    with (ced_sample / "expected_draws.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) in (200, 760)

    def logged(name: str) -> np.ndarray:
        return np.array([int(row[name]) for row in rows])

    lengths = logged("num_samples")
    drawn = ced_draws(CED, logged("seed"), lengths, 1 + 80_016 // 160)
    assert np.array_equal(drawn.roll, logged("roll_samples"))
    assert np.array_equal(drawn.time_start, logged("time_mask_start_frame"))
    assert np.array_equal(drawn.time_start + drawn.time_length, logged("time_mask_end_frame"))
    assert np.array_equal(drawn.freq_low, logged("freq_mask_start_band"))
    assert np.array_equal(drawn.freq_low + drawn.freq_steps, logged("freq_mask_end_band"))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Gain(), "say nothing of the op 'gain'; allowed are roll, time_mask, frequency_mask"),
        (Mixup(), "say nothing of the op 'mixup'"),
        (Noise(), "say nothing of the op 'noise'"),
        (TimeMask(probability=0.5), "time_mask always has probability 1; give it so"),
        (FrequencyMask(probability=0.5), "frequency_mask always has probability 1"),
        (FrequencyMask(min_hz=50.0), "min_hz 0 and max_hz 8000"),
    ],
)
def test_recipes_that_ced_does_not_have(op: Op, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        require_ced(Recipe("r", (op,)))
    require_ced(NONE)
