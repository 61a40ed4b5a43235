"""What the listening page knows of every clip before anyone asks: the likeliest classes, measures, the label.

It is made once, when the server starts, by going through the stored views block by block; from then on a search is a
matter of NumPy and Arrow in memory, whatever the number of views.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, F64, I64, U16, Bool
from logitstore.errors import UsageError
from logitstore.options import nearest
from logitstore.store.format.quality import addable
from logitstore.store.measures import entropy, surprise
from logitstore.store.sql.lazy import LazyTable, TablePart
from logitstore.store.sql.tables import answers, disagreement, tables

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.format.commits import Commit
    from logitstore.store.reader import Store

#: Told how many blocks of how many are done.
Told = Callable[[int, int], None]

NOTHING = -1  # in the place of a class
_KEYS = ("clip", "path", "start", "length", "rate")
_LABELS = (
    "label", "labels", "category", "categories", "class", "classes", "class_name", "tag", "tags", "event_label",
    "event_labels", "target", "mid", "mids", "positive_labels",
)  # fmt: skip
#: Measures by their names in the question ``measures``: their titles, and whether the highest is looked for first.
_MEASURES = {
    "entropy": ("Uncertainty (mean entropy of the views, nats)", True),
    "spread": ("Spread of the entropy over the views (nats)", True),
    "confidence": ("Confidence (mean probability of the answer)", False),
    "kept": ("Share of views that keep the answer", False),
    "answers": ("Number of answers over the views", True),
    "view_disagreement": ("Disagreement of the views (nats)", True),
    "member_disagreement": ("Disagreement of the members (nats)", True),
}
_KEPT_VIEWS = 4_000_000  # some 25 bytes each
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
    ``length_s`` and the measures as columns, as SQL's ``WHERE`` sees it. ``views`` is the table of that name, which has
    what it says of answers in memory unless there are very many views.
    """

    clips: pa.Table
    columns: tuple[str, ...]
    classes: npt.NDArray[np.int32]
    probabilities: F32
    measures: dict[str, Measure]
    label_column: str | None
    views: LazyTable

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
    classes, probabilities, measured, views = _gathered(store, told)
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
    return Index(table, columns, classes, probabilities, measures, label_column, _with_kept(store, views))


def _label_column(store: Store, columns: Sequence[str], asked: str | None) -> str | None:
    if asked is not None:
        if asked not in columns:
            there = nearest(asked, columns) if columns else "it has no columns of its own"
            raise UsageError(f"{store.location} has no column {asked!r}, which --label-column names; {there}")
        return asked
    by_name = {name.lower(): name for name in columns}
    return next((by_name[name] for name in _LABELS if name in by_name), None)


def _gathered(store: Store, told: Told | None) -> tuple[npt.NDArray[np.int32], F32, list[Measure], dict[str, pa.Table]]:
    """Mean classes and probabilities of every clip, (N, k) each; the measures; what to keep of every block's views."""
    import pyarrow as pa

    manifest, count = store.manifest, store.clips.num_rows
    k, class_count = min(store.k, len(manifest.classes)), len(manifest.classes)
    classes = np.full((count, k), NOTHING, np.int32)
    probabilities = np.zeros((count, k), np.float32)
    names = [name for name in _MEASURES if name != "member_disagreement" or manifest.keep_members]
    measured = {name: np.full(count, np.nan) for name in names}
    done, views = 0, dict[str, pa.Table]()
    few = store.view_count() <= _KEPT_VIEWS
    for commits in _by_shard(store):
        blocks = [store.block_targets(commit) for commit in commits]
        said, values = (np.concatenate([block[part] for block in blocks], axis=1) for part in (0, 1))
        there = np.concatenate([_readable(commit) for commit in commits], axis=1)
        values, rests = np.where(there[:, :, None], values, 0.5).astype(np.float32), None
        said = addable(said, class_count)
        if manifest.quality is not None:
            rests = np.concatenate([store.block_rests(commit) for commit in commits], axis=1)
        step = max(1, _CELLS // class_count)
        for low in range(0, len(said), step):
            some = slice(low, low + step)
            here = slice(commits[0].first_clip + low, commits[0].first_clip + low + len(said[some]))
            known = None if rests is None else rests[some]
            best, chosen, found = _of_clips(said[some], values[some], known, there[some], class_count, manifest.scores)
            classes[here], probabilities[here] = best, chosen
            for name, each in found.items():
                measured[name][here] = np.where(there[some].any(axis=1), each, np.nan)
        if "member_disagreement" in measured:
            first = commits[0].first_clip
            measured["member_disagreement"][first : first + len(said)] = _apart(store, commits, blocks, there)
        if few:
            views |= {
                commit.name: answers(store, commit, *block) for commit, block in zip(commits, blocks, strict=True)
            }
        done += len(commits)
        if told is not None:
            told(done, len(store.commits))
    measures = [Measure(name, *_MEASURES[name], measured[name]) for name in names]
    return classes, probabilities, measures, views


def _with_kept(store: Store, kept: Mapping[str, pa.Table]) -> LazyTable:
    """The table ``views`` with columns in memory, by block, in the place of decoded ones where these will do."""
    table = tables(store)["views"]()

    def part(decoded: TablePart, commit: Commit) -> TablePart:
        if commit.name not in kept:
            return decoded
        here = kept[commit.name]

        def read(columns: Set[str]) -> pa.Table:
            return here.select(sorted(columns)) if columns <= set(here.column_names) else decoded.decode(columns)

        return replace(decoded, decode=read)

    parts = [part(*each) for each in zip(table.parts, store.commits, strict=True)]
    return LazyTable(table.schema, parts)


def _by_shard(store: Store) -> list[list[Commit]]:
    """The blocks of the same clips, by their first clip and then by view."""
    found: dict[int, list[Commit]] = {}
    for commit in store.commits:
        found.setdefault(commit.first_clip, []).append(commit)
    return list(found.values())


def _readable(commit: Commit) -> Bool:
    """Which clips and views of a block have targets, bool (R, V)."""
    there = np.zeros((commit.clips, commit.views), np.bool_)
    there[commit.readable] = True
    return there


def _of_clips(
    said: U16, values: F32, rests: F32 | None, there: Bool, class_count: int, scores: str
) -> tuple[npt.NDArray[np.int32], F64, dict[str, F64]]:
    """Of n clips, the likeliest classes of the mean over their views and what these have there, (n, k) each; measures.

    :param said: classes (n, V, k). :param values: their probabilities. :param there: which views there are, (n, V).
    :param rests: of a store with a quality, what stands for the classes that a view does not keep, (n, V).
    """
    k, views = said.shape[2], np.maximum(there.sum(axis=1), 1)
    weight = there[:, :, None].astype(np.float64)
    mean = _dense_sums(said, values * weight, class_count) / views[:, None]
    best = _largest(mean, k)
    chosen = np.take_along_axis(mean, best, axis=1)
    each = surprise(values.astype(np.float64), scores)  # (n, V, k)
    entropies = np.where(there, entropy(values, scores, rests, class_count), np.nan)
    within = (each * weight).sum(axis=(1, 2)) / views
    spread_over = np.where(mean > 0, surprise(np.maximum(mean, np.finfo(np.float32).tiny), scores), 0).sum(axis=1)
    first = np.where(there, said[:, :, 0].astype(np.int64), NOTHING)
    ordered = np.sort(first, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of clips without views
        measures = {
            "entropy": np.nanmean(entropies, axis=1),
            "spread": np.nanmax(entropies, axis=1) - np.nanmin(entropies, axis=1),
            "confidence": chosen[:, 0],
            "kept": ((first == best[:, :1]) & there).sum(axis=1) / views,
            "answers": ((np.diff(ordered, axis=1, prepend=-2) != 0) & (ordered >= 0)).sum(axis=1).astype(np.float64),
            "view_disagreement": np.maximum(0, spread_over - within),
        }
    return np.where(chosen > 0, best, NOTHING).astype(np.int32), chosen, measures


def _apart(store: Store, commits: Sequence[Commit], blocks: Sequence[tuple[U16, F32]], there: Bool) -> F64:
    """How far the members are apart about each clip, the mean over its views: float64 (R,), NaN where it has none."""
    total = np.zeros(len(there))
    for commit, (said, _) in zip(commits, blocks, strict=True):
        kept = said[commit.readable]
        total[commit.readable] += disagreement(store, commit, kept).reshape(kept.shape).sum(axis=(1, 2))
    views = there.sum(axis=1)
    return np.where(views > 0, total / np.maximum(views, 1), np.nan)


def _dense_sums(classes: U16, values: F64, class_count: int) -> F64:
    """Sums over views (n, V, k) by class, float64 (n, class_count)."""
    rows = np.arange(len(classes), dtype=np.int64)[:, None, None] * class_count
    flat = (rows + classes).reshape(-1)
    sums = np.bincount(flat, values.reshape(-1), len(classes) * class_count)
    return np.asarray(sums.reshape(len(classes), class_count), np.float64)


def _largest(values: F64, k: int) -> I64:
    """Positions of the k largest of every row, falling; ties by the lower position."""
    k = min(k, values.shape[1])
    kept = np.argpartition(-values, k - 1, axis=1)[:, :k] if k < values.shape[1] else None
    if kept is None:
        return np.argsort(-values, axis=1, kind="stable")
    kept.sort(axis=1)
    order = np.argsort(-np.take_along_axis(values, kept, axis=1), axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)
