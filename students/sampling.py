"""Which views make the batches of an epoch: an order, weights, and a batch's share for each of several processes.

``--balance`` evens the classes without labels. The weight of a clip is

    w_i = sum over its k stored classes c of p_ic² / max(1, Q_c),    Q_c = sum over clips i of p_ic²

With labels, 0 or 1, in the place of the probabilities this is what PANNs' balanced sampler comes to: every class has
one share of the draws, and its clips divide it among them. The square keeps the teachers' tail out of it: 50 clips at
p = 0.02, mostly noise, weigh as much as a clip that has the class without the square, and a fiftieth of that with it.
The floor of 1 is for classes that not even one clip has for certain: such a class has Q_c shares, not a whole one for
its noise. On the skewed store of ``tests/test_sampling.py`` the coefficient of variation of the classes' expected mass
falls from 0.97 to 0.54; to 0.62 with p in the place of p², and to 0.51 with the labels p > 1/2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from logitstore.errors import QueryError, RunError, UsageError
from logitstore.store.reader import Store

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_READ_CLIPS = 1 << 16


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
) -> list[I64]:
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
    return np.array_split(order, epoch_steps(views, batch_size) if steps is None else steps)


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


def balanced(store: Store, view: int, rows: Any) -> F64:
    """Sampling weights that even the classes, from the stored probabilities alone; the module says how.

    :param rows: integers (n,), clips with targets for the view; the balance is among them.
    :returns: float64 (n,), above 0.
    """
    clips = np.asarray(rows, dtype=np.int64)
    mass = np.zeros(len(store.manifest.classes))
    for start in range(0, len(clips), _READ_CLIPS):
        classes, probabilities = store.targets(view, clips[start : start + _READ_CLIPS])
        squares = probabilities.astype(np.float64) ** 2
        mass += np.bincount(classes.reshape(-1), squares.reshape(-1), minlength=len(mass))
    rarity = 1 / np.maximum(mass, 1)
    weights = np.zeros(len(clips))
    for start in range(0, len(clips), _READ_CLIPS):
        classes, probabilities = store.targets(view, clips[start : start + _READ_CLIPS])
        weights[start : start + _READ_CLIPS] = (probabilities.astype(np.float64) ** 2 * rarity[classes]).sum(axis=1)
    return weights


def weighted_by(store: Store, view: int, rows: Any, sql: str) -> F64:
    """Sampling weights from SQL: an expression over the columns of ``views`` and ``clips``, for one view of some clips.

    :param rows: integers (n,), clips with targets for the view, in any order.
    :param sql: such as ``entropy`` or ``1 - top1_probability``; true and false count as 1 and 0. A window function
        sees all clips of the view, not the rows alone. A column that both tables have needs its table's name.
    :returns: float64 (n,), in the order of ``rows``.
    :raises QueryError: the SQL cannot be answered.
    :raises RunError: a weight is NULL, negative or not finite; all are 0; or they are random.
    :raises UsageError: a clip has no targets for the view.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    value = f"CAST(({sql}\n) AS DOUBLE)"  # asked for twice: the same unless it is left to chance
    try:
        answer = store.sql(
            f"SELECT clip, {value} AS weight, {value} AS again FROM views JOIN clips USING (clip) "
            f"WHERE views.view = {int(view)} ORDER BY clip"
        )
    except QueryError as error:
        raise type(error)(f"--weight-by {sql!r}: {error}") from error
    clips: I64 = answer["clip"].to_numpy()
    there = np.isin(wanted, clips)
    if not there.all():
        raise UsageError(f"clip {wanted[~there][0]} has no targets for view {view} of {store.location}, so no weight")
    places = np.searchsorted(clips, wanted)
    weights, again = (np.asarray(answer[name].to_numpy(), np.float64)[places] for name in ("weight", "again"))
    _check_weights(store, wanted, weights, sql)
    if not np.array_equal(weights, again):
        raise RunError(
            f"--weight-by {sql!r} gives other weights every time, and a run must be repeatable; leave chance out of it"
        )
    return weights


def _check_weights(store: Store, clips: I64, weights: F64, sql: str) -> None:
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        found = "NULL or NaN" if np.isnan(weights[first]) else f"{weights[first]:g}"
        path = store.clips["path"][int(clips[first])].as_py()
        raise RunError(
            f"--weight-by {sql!r} is {found} for clip {clips[first]} ({path}), and no weight for {bad.sum()} of "
            f"{len(clips)} clips; weights must be finite and at least 0: use coalesce() and greatest(), or leave the "
            "clips out with --where"
        )
    if len(clips) and not weights.any():
        path = store.clips["path"][int(clips[0])].as_py()
        raise RunError(
            f"--weight-by {sql!r} is 0 for all {len(clips)} clips, from clip {clips[0]} ({path}) on; some weights must "
            "be more than 0"
        )


def _permutation(views: int, generator: torch.Generator) -> I64:
    order: I64 = torch.randperm(views, generator=generator).numpy()
    return order


def _drawn(weights: F64, count: int, generator: torch.Generator) -> I64:
    """``count`` positions in proportion to the weights: where uniform float64 numbers fall on their running sum."""
    reached = np.cumsum(weights / weights.max())  # the sum of large ones would overflow
    uniforms = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return np.asarray(np.searchsorted(reached / reached[-1], uniforms, side="right"), np.int64)
