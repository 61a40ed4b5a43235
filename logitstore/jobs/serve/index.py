"""What the listening page knows of every clip before anyone asks: the likeliest classes, measures, the label.

It is made once, when the server starts, by going through the stored views block by block; from then on a search is a
matter of NumPy and Arrow in memory, whatever the number of views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, F64, I64
from logitstore.errors import UsageError
from logitstore.options import nearest
from logitstore.store.sql.tables import entropy

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.reader import Store

#: Told how many blocks of how many are done.
Told = Callable[[int, int], None]

NOTHING = -1  # in the place of a class
_KEYS = ("clip", "path", "start", "length", "rate")
_LABELS = (
    "label", "labels", "category", "categories", "class", "classes", "class_name", "tag", "tags", "event_label",
    "event_labels", "target", "mid", "mids", "positive_labels",
)  # fmt: skip
_CELLS = 1 << 22  # of a dense array of clips by classes that is made at a time


@dataclass(frozen=True)
class Measure:
    """A number of every clip to sort by: ``descending`` where the highest is what one looks for first.

    ``values`` float64 (N,), NaN where a clip has none.
    """

    name: str
    title: str
    descending: bool
    values: F64


@dataclass(frozen=True)
class Index:
    """Of N clips, the k likeliest classes of the mean over their views, and what else they are found by.

    ``classes`` int32 (N, k), falling, :data:`NOTHING` where there are fewer; ``probabilities`` float32 (N, k), the mean
    over the views, 0 for a class in the views that do not hold it. ``clips`` is the clip table with ``start_s``,
    ``length_s`` and the measures as columns, as SQL's ``WHERE`` sees it.
    """

    clips: pa.Table
    columns: tuple[str, ...]
    classes: npt.NDArray[np.int32]
    probabilities: F32
    measures: dict[str, Measure]
    label_column: str | None

    def __len__(self) -> int:
        return int(self.clips.num_rows)


def make_index(store: Store, label_column: str | None = None, told: Told | None = None) -> Index:
    """Go through a store's views, and keep what the page needs of each clip.

    :param label_column: of the clip table; None to find it by its name. :param told: is told of progress.
    :raises UsageError: there is no such column, or no block yet.
    :raises CorruptStoreError: an object of the store is not the one that was committed.
    """
    import pyarrow as pa

    if not store.views:
        raise UsageError(f"{store.location} has no finished block yet; run its build")
    table = store.clips
    columns = tuple(name for name in table.column_names if name not in _KEYS)
    label_column = _label_column(store, columns, label_column)
    classes, probabilities, measured = _gathered(store, told)
    rate = np.maximum(table["rate"].to_numpy().astype(np.float64), 1)
    for name in ("start", "length"):
        if f"{name}_s" not in columns:
            table = table.append_column(f"{name}_s", pa.array(table[name].to_numpy() / rate))
    taken = {name.lower() for name in table.column_names}
    measures = {}
    for each in measured:
        name = f"measured_{each.name}" if each.name.lower() in taken else each.name
        measures[name] = Measure(name, each.title, each.descending, each.values)
        table = table.append_column(name, pa.array(each.values, from_pandas=True))
    return Index(table, columns, classes, probabilities, measures, label_column)


def _label_column(store: Store, columns: Sequence[str], asked: str | None) -> str | None:
    if asked is not None:
        if asked not in columns:
            there = nearest(asked, columns) if columns else "it has no columns of its own"
            raise UsageError(f"{store.location} has no column {asked!r}, which --label-column names; {there}")
        return asked
    by_name = {name.lower(): name for name in columns}
    return next((by_name[name] for name in _LABELS if name in by_name), None)


def _gathered(store: Store, told: Told | None) -> tuple[npt.NDArray[np.int32], F32, list[Measure]]:
    """Mean classes and probabilities of every clip, (N, k) each, and the measures."""
    manifest = store.manifest
    count, k, class_count = store.clips.num_rows, manifest.topk, len(manifest.classes)
    classes = np.full((count, k), NOTHING, np.int32)
    probabilities = np.zeros((count, k), np.float32)
    entropies, first, steady = (np.full(count, np.nan) for _ in range(3))
    groups: dict[int, list[Any]] = {}
    for commit in store.commits:
        groups.setdefault(commit.first_clip, []).append(commit)
    done = 0
    for start, commits in groups.items():
        blocks = [store.block_targets(commit) for commit in commits]
        said = np.concatenate([block[0] for block in blocks], axis=1)
        values = np.concatenate([block[1] for block in blocks], axis=1)
        there = np.zeros(values.shape[:2], np.bool_)
        begin = 0
        for commit in commits:
            there[commit.readable, begin : begin + commit.views] = True
            begin += commit.views
        step = max(1, _CELLS // class_count)
        for low in range(0, len(said), step):
            some = slice(low, low + step)
            here = slice(start + low, start + low + len(said[some]))
            views = there[some].sum(axis=1)
            heard = views > 0
            divisor = np.maximum(views, 1)
            mean = _dense_mean(said[some], values[some] * there[some, :, None], class_count) / divisor[:, None]
            best = _largest(mean, k)
            chosen = np.take_along_axis(mean, best, axis=1)
            held = (chosen > 0) & heard[:, None]
            classes[here] = np.where(held, best, NOTHING)
            probabilities[here] = np.where(held, chosen, 0)
            each = np.where(there[some], entropy(np.clip(values[some], 1e-9, 1 - 1e-9), manifest.scores), 0)
            top = said[some, :, 0] == best[:, None, 0]
            for target, amount in (
                (entropies, each.sum(axis=1)),
                (first, (values[some, :, 0] * there[some]).sum(axis=1)),
                (steady, (top & there[some]).sum(axis=1)),
            ):
                target[here] = np.where(heard, amount / divisor, np.nan)
        done += len(commits)
        if told is not None:
            told(done, len(store.commits))
    measures = [
        Measure("uncertainty", "How uncertain the teachers are (mean entropy, nats)", True, entropies),
        Measure("confidence", "Mean probability of the first class", False, first),
        Measure("steadiness", "Share of views whose first class is the clip's", False, steady),
    ]
    return classes, probabilities, measures


def _dense_mean(classes: npt.NDArray[np.uint16], values: F32, class_count: int) -> F64:
    """Sums over views (n, V, k) by class, float64 (n, class_count)."""
    rows = np.arange(len(classes), dtype=np.int64)[:, None, None] * class_count
    flat = (rows + classes).reshape(-1)
    sums: F64 = np.bincount(flat, values.reshape(-1).astype(np.float64), len(classes) * class_count)
    return sums.reshape(len(classes), class_count)


def _largest(values: F64, k: int) -> I64:
    """Positions of the k largest of every row, falling; ties by the lower position."""
    k = min(k, values.shape[1])
    kept = np.argpartition(-values, k - 1, axis=1)[:, :k] if k < values.shape[1] else None
    if kept is None:
        return np.argsort(-values, axis=1, kind="stable")
    kept.sort(axis=1)
    order = np.argsort(-np.take_along_axis(values, kept, axis=1), axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)
