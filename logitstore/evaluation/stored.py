"""The targets that a store holds, as scores of labelled rows: what its students are asked to learn, measured."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F64, I64, Bool
from logitstore.audio.scan import keep_where
from logitstore.audio.source import ColumnNames, kept_name
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation.cells import read_cells
from logitstore.evaluation.labelled import label_matrix, read_listing
from logitstore.evaluation.metrics import Metrics, Scores, areas, measure
from logitstore.notes import note
from logitstore.store.format.quality import dense
from logitstore.store.verdicts import corrected_cells, judged

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.reader import Store
    from logitstore.store.subset import Subset


_CHUNK = 1 << 16  # clips whose targets are spread over the classes at a time
_MAPPED_CHUNK = 1 << 12  # as many where every class of a clip gets a number first


@dataclass(frozen=True)
class ViewScore:
    """One view's targets alone: the rows that have it, and its areas; see ``Metrics``."""

    view: int
    rows: int
    mAP: float  # noqa: N815 - what everyone calls it
    micro_auprc: float


@dataclass(frozen=True)
class StoredScores:
    """How good a store's targets are.

    ``metrics``: of the mean over a row's clips and their views. ``views``: of each view alone. ``rows`` and ``clips``
    were scored, and ``rows_of_several_clips`` of the rows are the mean of more than one clip;
    ``clips_without_labels`` have targets and belong to no row, ``rows_without_clips`` have labels and no
    clip with targets, ``clips_failed`` have no targets. ``clip_seconds`` and ``sample_rate`` (Hz) are the store's.
    """

    store: str
    metrics: Metrics
    views: tuple[ViewScore, ...]
    rows: int
    clips: int
    rows_of_several_clips: int
    clips_without_labels: int
    rows_without_clips: int
    clips_failed: int
    clip_seconds: float
    sample_rate: int

    @property
    def spread(self) -> float | None:
        """Standard deviation of the views' mAP; None of a single view."""
        return float(np.std([view.mAP for view in self.views], ddof=1)) if len(self.views) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, but those of single classes."""
        return asdict(self) | {"metrics": self.metrics.to_dict(), "mAP_spread": self.spread}


@dataclass(frozen=True)
class StoredRows:
    """Labelled rows joined to the clips of a store that have targets.

    ``labels`` of every row, and its number in the listing, int64 (R,); ``row`` and ``clip``, int64 (P,): the pairs in
    which a clip belongs to a row. Every row is in at least one pair. ``source`` is the manifest that the labels
    are of, None where they are the store's own.
    """

    store: Store
    source: str | None
    labels: tuple[tuple[str, ...], ...]
    numbers: I64
    row: I64
    clip: I64
    clips_without_labels: int
    rows_without_clips: int
    clips_failed: int

    def keep(self, rows: Bool) -> StoredRows:
        """Only some of the rows, bool (R,); the counts of what was not joined stay."""
        pairs = rows[self.row]
        return replace(
            self,
            labels=tuple(label for label, kept in zip(self.labels, rows.tolist(), strict=True) if kept),
            numbers=self.numbers[rows],
            row=(np.cumsum(rows) - 1)[self.row[pairs]],
            clip=self.clip[pairs],
        )

    def score(
        self, classes: Sequence[str] | None = None, mapped: Callable[[Scores], Scores] | None = None
    ) -> StoredScores:
        """The scores of the targets; classes that a target does not hold count as 0.

        :param classes: to score, in this order; all of the store's by default.
        :param mapped: what makes scores of ``classes``, (n, L), of scores of the store's, (n, C), where a map does.
        :raises TeacherError: a label that is none of the classes, or a class that the store has not.
        """
        from logitstore.classes import positions

        store, own = self.store, self.store.manifest.classes
        wanted = own if classes is None else tuple(classes)
        if mapped is None and classes is not None:
            at = positions(own, classes, whose=self.place, subset=True)
            mapped = lambda scores: scores[:, at]  # noqa: E731
        whose = self.place if classes is None else "the --classes file"
        labels = label_matrix(self.labels, wanted, whose=whose, source=self.source)
        total, count = np.zeros((len(self.labels), len(wanted))), np.zeros(len(self.labels), np.int64)
        views = []
        for view in range(store.views):
            sums, heard = self._sums(view, len(wanted), mapped)
            total, count = total + sums, count + heard
            there = heard > 0
            if labels[there].any():
                alone = sums[there] / heard[there][:, None]
                views.append(ViewScore(view, int(there.sum()), *areas(labels[there], alone)))
        return StoredScores(
            store.location,
            measure(labels, total / count[:, None]),
            tuple(views),
            len(self.labels),
            len(np.unique(self.clip)),
            int((np.bincount(self.row) > 1).sum()),
            self.clips_without_labels,
            self.rows_without_clips,
            self.clips_failed,
            store.manifest.clip_seconds,
            store.manifest.sample_rate,
        )

    @property
    def place(self) -> str:
        """The store, for messages."""
        return f"the store {self.store.location}"

    def means(self) -> F64:
        """What the targets say of every row, float64 (R, C) of the store's classes: the mean over clips and views."""
        width = len(self.store.manifest.classes)
        found = [self._sums(view, width, None) for view in range(self.store.views)]
        total, count = (sum(parts) for parts in zip(*found, strict=True))
        means: F64 = total / count[:, None]
        return means

    def names(self) -> list[str]:
        """The file name of every row, without folders."""
        paths = self.store.clips["path"].take(self.clip[np.unique(self.row, return_index=True)[1]]).to_pylist()
        return [posixpath.basename(path) for path in paths]

    def _sums(self, view: int, width: int, mapped: Callable[[Scores], Scores] | None) -> tuple[F64, I64]:
        """Sums over a row's clips of one view's scores, float64 (R, width), and the number of clips, int64 (R,)."""
        pairs = np.isin(self.clip, self.store.clips_of(view))
        row, clip = self.row[pairs], self.clip[pairs]
        sums = np.zeros((len(self.labels), width))
        quality = self.store.manifest.quality is not None
        chunk = _CHUNK if mapped is None and not quality else _MAPPED_CHUNK
        for start in range(0, len(row), chunk):
            some = slice(start, start + chunk)
            classes, probabilities = self.store.targets(view, clip[some])
            if mapped is None and not quality:
                np.add.at(sums, (row[some][:, None], classes.astype(np.int64)), probabilities.astype(np.float64))
                continue
            rests = self.store.rests(view, clip[some]) if quality else None
            said = dense(classes, probabilities, len(self.store.manifest.classes), rests).astype(np.float64)
            np.add.at(sums, row[some], said if mapped is None else mapped(said))
        return sums, np.bincount(row, minlength=len(self.labels))


def join_manifest(
    store: Store,
    manifest: str,
    label_column: str,
    *,
    where: str | None = None,
    separator: str | None = None,
    columns: ColumnNames | None = None,
    classes: Sequence[str] | None = None,
    subset: Subset | None = None,
    verdicts: str | None = None,
    by_name: bool = False,
) -> StoredRows:
    """The rows of a manifest and the clips of a store that lie in them.

    A row is scored on the clip that is its very segment, from ``start`` for ``duration`` seconds, to one frame. Where
    the store has none, it is scored on the mean of the clips that it was cut into, and else of all that lie in it; a
    row without ``start`` and ``duration`` is its whole file. Paths are compared as they stand: relative to the audio
    root of either.

    :param classes: the names that labels will be matched to; the store's by default.
    :param subset: the clips to take; all by default.
    :param verdicts: a file of verdicts that correct labels, of rows that are one clip each.
    :param by_name: whether files are known by their names, in whatever folder they lie.
    :raises SourceError: no such manifest or column; or nothing of it is in the store, with a path of each.
    """
    import pyarrow as pa

    listing, labels, numbers = read_listing(
        manifest, label_column, where=where, label_separator=separator, classes=classes or store.manifest.classes,
        columns=columns,
    )  # fmt: skip
    targets, failed = _with_targets(store, subset)
    clips = store.clips
    if by_name:
        listing, clips = (_by_name(table) for table in (listing, clips))
    row, clip = _pairs(listing, clips, targets, store.manifest.clip_seconds)
    if not len(row):
        both = sorted(set(listing["path"].to_pylist()) & set(store.clips["path"].take(pa.array(targets)).to_pylist()))
        if both:
            raise SourceError(
                f"none of the {len(labels):,} rows of {manifest} holds a whole clip of the store {store.location} with "
                f"targets, though {len(both)} of their files are there, as {both[0]!r}: clips are up to "
                f"{store.manifest.clip_seconds:g} s long; build a store of just these segments"
            )
        raise SourceError(
            f"none of the {len(labels):,} rows of {manifest} is a clip of the store {store.location} with targets: a "
            f"row's path is {listing['path'][0].as_py()!r}, a clip's {store.clips['path'][0].as_py()!r}; give the "
            "manifest whose paths are relative to the audio that the store was built from"
        )
    rows = np.zeros(len(labels), dtype=np.bool_)
    rows[row] = True
    lonely = len(targets) - len(np.unique(clip))
    joined = StoredRows(store, manifest, labels, numbers, row, clip, lonely, int((~rows).sum()), failed).keep(rows)
    return joined if verdicts is None else _corrected_rows(joined, verdicts, separator, classes)


def _by_name(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    names = [posixpath.basename(path) for path in table["path"].to_pylist()]
    return table.set_column(table.column_names.index("path"), "path", pa.array(names, pa.string()))


def _corrected_rows(
    joined: StoredRows, verdicts: str, separator: str | None, classes: Sequence[str] | None
) -> StoredRows:
    """Rows whose labels are corrected by the verdicts on their clips; those without a right label are left out."""
    store = joined.store
    single = np.bincount(joined.row)[joined.row] == 1
    cells: list[Any] = [()] * store.clips.num_rows
    rows = dict(zip(joined.clip[single].tolist(), joined.row[single].tolist(), strict=True))
    for clip, row in rows.items():
        cells[clip] = list(joined.labels[row])
    labels = list(joined.labels)
    kept = np.ones(len(labels), np.bool_)
    corrected = corrected_cells(store, cells, verdicts)
    changed = [clip for clip in rows if corrected[clip] is not cells[clip]]
    read = read_cells(
        [corrected[clip] for clip in changed], column="label", source=verdicts, separator=separator,
        classes=classes or store.manifest.classes,
    )  # fmt: skip
    for clip, found in zip(changed, read.labels, strict=True):
        kept[rows[clip]] = found is not None
        labels[rows[clip]] = found or ()
    several = set(joined.clip[~single].tolist()) & set(judged(store.clips, verdicts))
    if several:
        note(f"--verdicts {verdicts}: {len(several):,} judged clips are parts of longer rows, whose labels stay")
    return replace(joined, labels=tuple(labels)).keep(kept)


def join_own(
    store: Store,
    label_column: str,
    *,
    where: str | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    subset: Subset | None = None,
    verdicts: str | None = None,
) -> StoredRows:
    """The clips of a store with the labels that its own clip table has: each clip is a row.

    A clip whose cell is null (or NaN), as it is where a store was extended by a source without that column, has no
    labels. An empty cell says that there is none of the classes.

    :param where: SQL over the clip table's columns. :param classes, subset, verdicts: as for
        :func:`join_manifest`.
    :raises SourceError: no such column, or nothing is left.
    """
    table = store.clips
    columns = [name for name in table.column_names if name not in ("clip", "path", "start", "length", "rate")]
    label_column = kept_name(label_column, columns)
    if label_column not in columns:
        raise SourceError(
            f"the store {store.location} has no column {label_column!r} to take labels from; found "
            f"{', '.join(map(repr, columns)) or 'no columns beside path, start, length, rate'}; name one with "
            "--label-column, or give a MANIFEST of labels"
        )
    targets, failed = _with_targets(store, subset)
    if where is not None:
        targets = np.intersect1d(targets, keep_where(table, where)["clip"].to_numpy())
    told = table[label_column].to_pylist()
    if verdicts is not None:
        told = corrected_cells(store, told, verdicts)
    cells = read_cells(
        [told[clip] for clip in targets.tolist()], column=label_column,
        source=f"the store {store.location}", separator=separator, classes=classes or store.manifest.classes,
    )  # fmt: skip
    clip = targets[[labels is not None for labels in cells.labels]]
    labels = tuple(each for each in cells.labels if each is not None)
    if not len(clip):
        raise SourceError(
            f"none of {len(targets):,} clips with targets of the store {store.location} has a label in the column "
            f"{label_column!r}; give a MANIFEST of labels, or another --label-column or --where"
        )
    empty = sum(not each for each in labels)
    if empty:
        note(
            f"the store {store.location}: {empty} of {len(labels)} clips have an empty cell in the column "
            f"{label_column!r}; they count as having none of the classes"
        )
    rows = np.arange(len(clip))
    return StoredRows(store, None, labels, rows, rows, clip, len(targets) - len(clip), 0, failed)


def _with_targets(store: Store, subset: Subset | None) -> tuple[I64, int]:
    """The clips, of a subset, that have targets of any view, rising, and how many failed.

    :raises SourceError: no clip of the subset has targets.
    """
    if not store.views:
        raise UsageError(f"{store.location} has no finished block yet; run its build")
    targets = np.unique(np.concatenate([store.clips_of(view) for view in range(store.views)]))
    failed = [failure.clip for failure in store.failures()]
    if subset is None:
        return targets, len(failed)
    chosen = np.intersect1d(targets, subset.clips)
    if not len(chosen):
        raise SourceError(
            f"none of the {len(subset.clips):,} clips of --clips {subset.file} has targets in the store "
            f"{store.location}; nothing to score"
        )
    note(f"--clips {subset.file}: {len(chosen):,} of the {len(targets):,} clips with targets are scored")
    return chosen, int(np.isin(subset.clips, failed).sum())


def _pairs(listing: pa.Table, clips: pa.Table, targets: I64, clip_seconds: float) -> tuple[I64, I64]:
    """Which clips belong to which rows of a listing: positions of the rows and clips, int64 (P,) each, by clip.

    :param clip_seconds: the length that the store's clips were cut to.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = listing["path"].combine_chunks().dictionary_encode()
    code = paths.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    by_code = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=len(paths.dictionary))
    firsts = np.cumsum(counts) - counts

    chosen = clips.select(["path", "start", "length", "rate"]).take(pa.array(targets))
    of_path = pc.fill_null(pc.index_in(chosen["path"], value_set=paths.dictionary), -1).to_numpy().astype(np.int64)
    known = np.flatnonzero(of_path >= 0)
    repeats = counts[of_path[known]]
    place = np.repeat(known, repeats)
    offset = np.arange(len(place)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    row = by_code[firsts[of_path[place]] + offset]

    start, length, rate = (chosen[name].to_numpy().astype(np.int64)[place] for name in ("start", "length", "rate"))
    if "start" not in listing.column_names and "duration" not in listing.column_names:
        return row, targets[place]
    low = np.floor(_seconds(listing, "start", 0.0)[row] * rate + 0.5)
    high = low + np.floor(_seconds(listing, "duration", np.inf)[row] * rate + 0.5)
    inside = (start >= low - 1) & (start + length <= high + 1)
    row, clip, start, length, rate, low, high = (
        each[inside] for each in (row, targets[place], start, length, rate, low, high)
    )
    exact = (abs(start - low) <= 1) & (abs(start + length - high) <= 1)
    whole = np.maximum(1, np.floor(clip_seconds * rate + 0.5))
    offset = (start - low + 1) % whole <= 2  # a frame either way
    cut = offset & ((abs(length - whole) <= 1) | (abs(start + length - high) <= 1)) & np.isfinite(high)
    span = np.bincount(row, weights=np.where(cut, length, 0), minlength=listing.num_rows)[row]
    cut &= 2 * (high - low - span) <= whole  # the clips that the row was cut into; a short rest was left out
    best = np.zeros(listing.num_rows, np.int64)
    rank = np.where(exact, 2, cut)
    np.maximum.at(best, row, rank)
    own = rank == best[row]
    return row[own], clip[own]


def _seconds(listing: pa.Table, name: str, missing: float) -> F64:
    import pyarrow.compute as pc

    if name not in listing.column_names:
        return np.full(listing.num_rows, missing)
    values: F64 = pc.fill_null(listing[name], missing).to_numpy()
    return values
