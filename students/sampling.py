"""Which views make the batches of an epoch: an order, weights, and a batch's share for each of several processes.

``--balance`` evens the classes without labels. The weight of a clip is

    w_i = sum over its k stored classes c of p_ic² / max(1, Q_c),    Q_c = sum over clips i of p_ic²

With labels, 0 or 1, in the place of the probabilities this is what PANNs' balanced sampler comes to: every class has
one share of the draws, and its clips divide it among them. The square keeps the teachers' tail out of it: 50 clips at
p = 0.02, mostly noise, weigh as much as a clip that has the class without the square, and a fiftieth of that with it.
The floor of 1 is for classes that not even one clip has for certain: such a class has Q_c shares, not a whole one for
its noise. On the skewed store of its tests the coefficient of variation of the classes' expected mass
falls from 0.97 to 0.54; to 0.62 with p in the place of p², and to 0.51 with the labels p > 1/2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from logitstore.arrays import F64, I64
from logitstore.errors import QueryError, RunError, UsageError
from logitstore.store.format.quality import addable
from logitstore.store.reader import Store

_READ_CLIPS = 1 << 16


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
        mass += np.bincount(addable(classes, len(mass)).reshape(-1), squares.reshape(-1), minlength=len(mass))
    rarity = 1 / np.maximum(mass, 1)
    weights = np.zeros(len(clips))
    for start in range(0, len(clips), _READ_CLIPS):
        classes, probabilities = store.targets(view, clips[start : start + _READ_CLIPS])
        weights[start : start + _READ_CLIPS] = (
            probabilities.astype(np.float64) ** 2 * rarity[addable(classes, len(mass))]
        ).sum(axis=1)  # fmt: skip
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
