"""What a student learns from a target: the k stored probabilities, a fill for the other classes, and a loss.

Fills of the C - k classes that a target does not hold, m being the smallest stored probability of the view:

=========  =====================================================================================================
stored     what a store with a quality says of them: their mean, a number a view
zero       0
mean       m / (C - k); nothing where k = C. This is the original's "mean": m shared out over the tail
half       m / 2
random     u * m, u in [0, 1) from the counter-based generator keyed by (seed, clip, view, class)
uniform    1 / C
=========  =====================================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, I64
from logitstore.errors import RunError, UsageError
from logitstore.views.philox import philox4x32, split64

if TYPE_CHECKING:
    from logitstore.store.reader import Store

TAILS = ("stored", "zero", "mean", "half", "random", "uniform")
LOSSES = {"bce": "sigmoid", "kl": "softmax"}  # loss -> the score kind that it fits

_TAIL_STREAM = 0x7461696C  # "tail"
_CACHED_BLOCKS = 1 << 15  # Philox blocks at a time, so that their words stay in the processor's cache


def dense_targets(
    classes: npt.NDArray[np.integer[Any]],
    probabilities: F32,
    class_count: int,
    tail: str = "zero",
    rests: F32 | None = None,
    *,
    clips: I64 | None = None,
    view: int = 0,
    seed: int = 0,
) -> F32:
    """Stored targets as one probability a class.

    :param classes: integers (B, k), distinct in each row, in [0, C); C in places that a view does not use.
    :param probabilities: float32 (B, k) in (0, 1); 0 in places that a view does not use.
    :param class_count: C.
    :param tail: one of :data:`TAILS`; see the module's table.
    :param rests: the probability of each class that a target does not hold, float32 (B,); ``stored`` needs it.
    :param clips: int64 (B,), row numbers of the clips; ``random`` needs them, with ``view`` and ``seed``.
    :returns: float32 (B, C).
    :raises RunError: an unknown tail, or ``stored`` without ``rests``.
    """
    count, k = probabilities.shape
    smallest, left = np.zeros((count, 1), np.float32), np.full((count, 1), class_count - k)
    if k:
        smallest = probabilities.min(axis=1, keepdims=True)
    gaps = bool((smallest == 0).any())
    if k and gaps:
        used = probabilities > 0
        smallest = np.where(used, probabilities, np.inf).min(axis=1, keepdims=True).astype(np.float32)
        left = class_count - np.count_nonzero(used, axis=1, keepdims=True)
    whole = np.zeros((count, class_count + gaps), dtype=np.float32)  # places not used fall beside the classes
    dense = whole[:, :class_count]
    if tail == "random":
        dense[:] = tail_uniforms(np.arange(count) if clips is None else clips, view, class_count, seed)
        dense *= smallest
    elif tail in TAILS:
        if tail == "stored":
            if rests is None:
                raise RunError("the tail 'stored' needs a store that knows it: one that was built with --quality")
            dense += rests[:, None]
        elif tail == "mean":
            dense += np.where(left > 0, smallest / np.maximum(left, 1).astype(np.float32), np.float32(0))
        elif tail == "half":
            dense += smallest / np.float32(2)
        elif tail == "uniform":
            dense += np.float32(1 / class_count)
    else:
        raise RunError(f"no tail fill {tail!r}; allowed are {', '.join(TAILS)}")
    np.put_along_axis(whole, classes.astype(np.int64), probabilities, axis=1)
    return np.ascontiguousarray(dense)


def tail_of(store: Store, tail: str | None) -> str:
    """The fill to use with a store: the one asked for, or what it says itself, or zero where it does not know.

    :raises UsageError: an unknown one, or ``stored`` of a store that does not know it.
    """
    if tail is None:
        return "zero" if store.manifest.quality is None else "stored"
    if tail not in TAILS:
        raise UsageError(f"no tail fill {tail!r}; allowed are {', '.join(TAILS)}")
    if tail == "stored" and store.manifest.quality is None:
        raise UsageError(
            f"--tail stored: {store.location} keeps {store.manifest.topk} classes of every view and nothing of the "
            "others; give another fill, or build a store with --quality"
        )
    return tail


def tail_uniforms(clips: I64, view: int, class_count: int, seed: int) -> F32:
    """u of the fill ``random``: float32 (B, C) in [0, 1), a multiple of 2**-16.

    Half c mod 8 (two halves a word, the lower first) of the Philox block with counter (clip, c div 8, view, "tail") and
    the key ``seed``, so that it depends on nothing but (seed, clip, view, class).
    """
    blocks = np.arange(-(-class_count // 8), dtype=np.uint64)[None, :]
    rows = np.asarray(clips, np.uint64)[:, None]
    uniforms = np.empty((len(rows), class_count), dtype=np.float32)
    some = max(1, _CACHED_BLOCKS // max(1, blocks.size))
    for start in range(0, len(rows), some):
        words = philox4x32((rows[start : start + some], blocks, view, _TAIL_STREAM), split64(seed))
        for position, word in enumerate(words):
            for half, bits in enumerate((word & np.uint32(0xFFFF), word >> np.uint32(16))):
                of_half = uniforms[start : start + some, 2 * position + half :: 8]
                of_half[...] = bits[:, : of_half.shape[1]]
        uniforms[start : start + some] *= np.float32(2.0**-16)
    return uniforms


def loss_for(scores: str, loss: str | None, temperature: float) -> str:
    """The loss to use with targets of a score kind: the one asked for, or the one that fits.

    :raises RunError: a loss that does not fit the score kind, or a temperature that no loss can use.
    """
    fitting = next(name for name, kind in LOSSES.items() if kind == scores)
    chosen = fitting if loss is None else loss
    if chosen not in LOSSES:
        raise RunError(f"no loss {chosen!r}; allowed are {', '.join(LOSSES)}")
    if chosen != fitting:
        raise RunError(
            f"the loss {chosen!r} fits {LOSSES[chosen]} targets and the teachers of this store give {scores} scores; "
            f"use --loss {fitting}"
        )
    if not 0 < temperature < float("inf"):
        raise RunError(f"--temperature is {temperature:g}; it must be more than 0")
    if chosen == "bce" and temperature != 1:
        raise RunError(f"--temperature {temperature:g} has no meaning for the loss 'bce'; leave it out")
    return chosen
