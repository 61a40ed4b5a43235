"""What CED's seeds stand for: the numbers that PyTorch's generator on the CPU gives after ``torch.manual_seed(seed)``.

CED stores one seed a view and draws again from it in training: first what torch-audiomentations' ``Shift`` asks for
(one Bernoulli sample, and a uniform integer only where that is 1), then two uniform numbers for both masks. The
generator is MT19937 (Matsumoto & Nishimura 1998). It is written out here, for many seeds at once, so that the draws
depend on no version of any library, and only the few words that are used are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, U32
from logitstore.errors import RecipeError
from logitstore.views.ops import MEL_STEPS
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe

#: CED's rate in Hz and the hop of its front end in samples: one frame is one tick of 10 ms.
SAMPLE_RATE = 16_000
HOP = 160
#: CED's front end hears from 0 Hz to this.
_MAX_HZ = 8000.0

_SHIFT_SIZE = 397
_AT_ONCE = 1 << 15  # seeds whose state fits a cache
_WORDS = 4  # a Bernoulli sample takes one word, a shift one, the masks two


@dataclass(frozen=True)
class CedDraws:
    """The draws of n views as CED's code makes them, int64 (n,) each.

    ``roll`` in samples, in [0, length), ``out[i] = in[(i - roll) mod length]``; masks half-open and as start and
    length, in frames of the padded batch and in mel bands. A mask of no length keeps the start drawn for it.
    """

    roll: I64
    time_start: I64
    time_length: I64
    freq_low: I64
    freq_steps: I64

    def columns(self, recipe: Recipe) -> dict[str, I64]:
        """The draw columns of a recipe."""
        return {name: getattr(self, name) for name in recipe.columns}


def mt19937(seeds: npt.NDArray[np.integer], words: int) -> U32:
    """The first words of MT19937 for each of n seeds, uint32 (words, n).

    :param seeds: integers in [0, 2**32); ``words`` is at most 227.
    """
    out = np.empty((words, len(seeds)), np.uint32)
    for low in range(0, len(seeds), _AT_ONCE):
        _mt19937(seeds[low : low + _AT_ONCE].astype(np.uint32), out[:, low : low + _AT_ONCE])
    return out


def _mt19937(seeds: U32, out: U32) -> None:
    """The same for seeds whose state fits a cache. Word i needs the initial state at i, i + 1 and i + 397 only."""
    words = len(out)
    kept: dict[int, U32] = {0: seeds}
    state, shifted = seeds.copy(), np.empty_like(seeds)
    for index in range(1, _SHIFT_SIZE + words):
        np.right_shift(state, np.uint32(30), out=shifted)
        np.bitwise_xor(state, shifted, out=state)
        np.multiply(state, np.uint32(1812433253), out=state)
        np.add(state, np.uint32(index), out=state)
        if index <= words or index >= _SHIFT_SIZE:
            kept[index] = state.copy()
    for index in range(words):
        mixed = (kept[index] & np.uint32(0x80000000)) | (kept[index + 1] & np.uint32(0x7FFFFFFF))
        odd = (mixed & np.uint32(1)) * np.uint32(0x9908B0DF)
        y = kept[index + _SHIFT_SIZE] ^ (mixed >> np.uint32(1)) ^ odd
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
        y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
        out[index] = y ^ (y >> np.uint32(18))


def _uniform(words: U32) -> npt.NDArray[np.float32]:
    """Uniform numbers in [0, 1) of 24 bits."""
    return (words & np.uint32((1 << 24) - 1)).astype(np.float32) * np.float32(2.0**-24)


def ced_draws(recipe: Recipe, seeds: I64, lengths: I64, frames: int) -> CedDraws:
    """What CED's code draws from each seed.

    :param recipe: one that :func:`require_ced` accepts.
    :param seeds: int64 (n,), in [0, 2**32).
    :param lengths: int64 (n,), the clips' own lengths in samples at 16 kHz.
    :param frames: of the batch, padded to its longest clip, that the time masks were placed in.
    """
    words = mt19937(seeds, _WORDS)
    roll = np.zeros(len(seeds), np.int64)
    position = np.zeros(len(seeds), np.int64)
    shift = recipe.find(Roll)
    if shift is not None:
        acts = _uniform(words[0]) < np.float32(shift.probability)
        most = np.rint(lengths * shift.max_fraction).astype(np.int64)  # halves to even, as Python's round
        acts &= most > 0  # Shift asks for no number in a range of one
        shift_by = np.where(acts, words[1] % (2 * most + 1) - most, 0)
        roll = np.mod(shift_by, np.maximum(lengths, 1))
        position = 1 + acts.astype(np.int64)
    row = np.arange(len(seeds))
    uniform = [_uniform(words[position + i, row]) for i in (0, 1)]

    def mask(bound: int, size: int) -> tuple[I64, I64]:
        length = uniform[0] * np.float32(bound)  # in float32 throughout, for its rounding decides
        start = uniform[1] * (np.float32(size) - length)
        return start.astype(np.int64), length.astype(np.int64)

    time, frequency = recipe.find(TimeMask), recipe.find(FrequencyMask)
    time_mask = mask(0 if time is None else time.max_ticks, frames)
    frequency_mask = mask(0 if frequency is None else frequency.max_steps, MEL_STEPS)
    return CedDraws(roll, *time_mask, *frequency_mask)


def require_ced(recipe: Recipe) -> None:
    """Refuse a recipe whose draws do not follow from CED's seeds.

    :raises RecipeError: naming the op or parameter that CED's code does not have.
    """
    checks: dict[str, tuple[Callable[..., bool], str]] = {
        "roll": (lambda op: True, ""),
        "time_mask": (lambda op: op.probability == 1.0, "probability 1"),
        "frequency_mask": (
            lambda op: op.probability == 1.0 and (op.min_hz, op.max_hz) == (0.0, _MAX_HZ),
            f"probability 1, min_hz 0 and max_hz {_MAX_HZ:g}",
        ),
    }
    for op in recipe.ops:
        if op.name not in checks:
            raise RecipeError(
                f"recipe {recipe.name!r}: CED's seeds say nothing of the op {op.name!r}; "
                f"allowed are {', '.join(checks)}"
            )
        holds, allowed = checks[op.name]
        if not holds(op):
            raise RecipeError(
                f"recipe {recipe.name!r}: CED's {op.name} always has {allowed}; give it so, or leave it out"
            )
