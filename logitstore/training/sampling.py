"""Which views make the batches of an epoch: an order, and a batch's share for each of several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from logitstore.arrays import F64, I64
from logitstore.digests import derived_seed

_INT32 = 1 << 31


class Batches(Sequence[I64]):
    """An order of positions, int32 or int64 (n,), cut into batches whose sizes differ by one at most, the larger ones
    first, each int64 (B,)."""

    def __init__(self, order: npt.NDArray[np.signedinteger], count: int) -> None:
        self.order, self._count = order, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(self._count)[number]]
        number = range(self._count)[number]
        size, larger = divmod(len(self.order), self._count)
        start = number * size + min(number, larger)
        return self.order[start : start + size + (number < larger)].astype(np.int64)


def order_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator that decides the order of an epoch, whatever came before it."""
    return torch.Generator().manual_seed(derived_seed("order", seed, epoch))


def epoch_steps(views: int, batch_size: int) -> int:
    """Number of batches of an epoch."""
    return -(-views // batch_size)


def plan(
    views: int,
    batch_size: int,
    generator: torch.Generator,
    *,
    weights: F64 | None = None,
    steps: int | None = None,
) -> Sequence[I64]:
    """The batches of an epoch: positions int64 in [0, views).

    Without weights every view once, in an order that the generator decides, in batches of nearly one size. With them as
    many as there are views, drawn with replacement in proportion to their weights.

    :param generator: decides everything; a new one with the same seed gives the same plan.
    :param weights: float64 (views,), finite and not negative, some above 0; a view of weight 0 is never drawn.
    :param steps: exactly so many batches of exactly ``batch_size``. Without weights they are cut from one permutation
        after another, so that the views' counts differ by one at most; a batch that two of them meet in can hold a view
        twice.
    """
    if weights is not None:
        order = _drawn(weights, views if steps is None else steps * batch_size, generator)
    elif steps is None:
        order = _permutation(views, generator)
    else:
        rounds = -(-steps * batch_size // views)
        order = np.concatenate([_permutation(views, generator) for _ in range(rounds)])[: steps * batch_size]
    return Batches(order, epoch_steps(views, batch_size) if steps is None else steps)


def share(count: int, parts: int, part: int) -> I64:
    """The positions in a batch of ``count`` clips that one of ``parts`` gets, rising, int64.

    The parts are disjoint and together everything. Each is taken from both ends alike: its i-th clip and its i-th from
    the end are position p and count - 1 - p of the whole batch. So batch mixup, which pairs clips in this way, has the
    same pairs in the parts as in the whole, and a part's weights are ``mix_weights(…, count)[share(…)]``. Sizes differ
    by 2 at most; none is empty where ``count`` is at least ``2 * parts - 1``.
    """
    pairs = np.array_split(np.arange(count // 2), parts)[part]
    middle = np.arange(count // 2, count // 2 + (count % 2 if part == parts - 1 else 0))
    return np.concatenate([pairs, middle, count - 1 - pairs[::-1]])


def _permutation(views: int, generator: torch.Generator) -> npt.NDArray[np.signedinteger]:
    """Of half the memory where the numbers allow it, and the same one."""
    kind = torch.int32 if views < _INT32 else torch.int64
    order: npt.NDArray[np.signedinteger] = torch.randperm(views, generator=generator, dtype=kind).numpy()
    return order


def _drawn(weights: F64, count: int, generator: torch.Generator) -> I64:
    """``count`` positions in proportion to the weights: where uniform float64 numbers fall on their running sum."""
    reached = np.cumsum(weights / weights.max())  # the sum of large ones would overflow
    uniforms = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return np.asarray(np.searchsorted(reached / reached[-1], uniforms, side="right"), np.int64)


def mix_weights(alpha: float, seed: int, step: int, count: int) -> torch.Tensor:
    """Each clip's own share under batch mixup: float32 (count,) in [0, 1], 1 minus a draw of Beta(alpha, alpha).

    They depend on (seed, step) alone, by a counter-based generator (Philox) with a key of its own a step: a resumed run
    has the same ones, and so has every process of several, which takes those of its :func:`share`.

    :param alpha: A > 0. :param step: of the optimiser. :param count: clips of the step's whole batch.
    """
    generator = np.random.Generator(np.random.Philox(key=derived_seed("batch mixup", seed, step)))
    return torch.from_numpy((1 - generator.beta(alpha, alpha, size=count)).astype(np.float32))
