"""Labelled audio: the rows of a manifest with their labels, and the clips that they are cut into."""

from __future__ import annotations

import difflib
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.found import require_found
from logitstore.audio.scan import listed, scan
from logitstore.audio.source import ROW, ColumnNames, Source
from logitstore.audio.sources import open_source
from logitstore.digests import hasher
from logitstore.errors import SourceError, TeacherError
from logitstore.evaluation.cells import read_cells
from logitstore.notes import note

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.audiofile import Audio


#: Length of a clip where neither the user nor the data says otherwise.
DEFAULT_CLIP_SECONDS = 10.0

_ROW = ROW
_MOST_NAMED = 3


@dataclass(frozen=True)
class Labelled:
    """The rows of a manifest and their clips.

    ``table`` is a clip table of n clips, ``row_of`` int64 (n,) which row each belongs to, ``labels`` the labels of
    every row, each a tuple, empty where the column is. ``clip_seconds`` is the length that clips are padded to.
    ``manifest`` is what the user calls the manifest, ``numbers`` int64 (rows,) where its listing has each row.
    """

    source: Source
    table: pa.Table
    row_of: I64
    labels: tuple[tuple[str, ...], ...]
    clip_seconds: float
    manifest: str
    numbers: I64

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, rows: Bool) -> Labelled:
        """Only some of the rows, bool (rows,), and their clips."""
        clips = rows[self.row_of]
        return replace(
            self,
            table=self.table.filter(clips),
            row_of=(np.cumsum(rows) - 1)[self.row_of[clips]],
            labels=tuple(label for label, kept in zip(self.labels, rows.tolist(), strict=True) if kept),
            numbers=self.numbers[rows],
        )

    def name(self, clip: int) -> str:
        """The path of a clip."""
        return str(self.table["path"][clip].as_py())

    def files(self, rows: Bool) -> list[str]:
        """The file names of some rows, bool (rows,), without folders."""
        paths = dict(zip(self.row_of.tolist(), self.table["path"].to_pylist(), strict=True))
        return [posixpath.basename(paths[row]) for row in np.flatnonzero(rows).tolist()]

    def digest(self) -> str:
        """BLAKE2b-128, hex, of the clips' keys and labels."""
        content = hasher()
        keys = zip(*(self.table[name].to_pylist() for name in ("path", "start", "length")), strict=True)
        for row, key in zip(self.row_of.tolist(), keys, strict=True):
            content.update(repr((*key, self.labels[row])).encode("utf-8", "surrogateescape"))
        return content.hexdigest()

    def by_row(self, scores: F32, heard: Bool) -> tuple[F32, Bool]:
        """Means over the clips of a row.

        :param scores: float32 (..., n, C), of every clip. :param heard: bool (n,), clips that have scores.
        :returns: float32 (..., rows, C), zero where no clip of a row was heard, and bool (rows,), where one was.
        """
        counts = np.bincount(self.row_of[heard], minlength=len(self))
        sums = np.zeros((*scores.shape[:-2], len(self), scores.shape[-1]), dtype=np.float64)
        for clip in np.flatnonzero(heard).tolist():
            sums[..., self.row_of[clip], :] += scores[..., clip, :]
        return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32), counts > 0


def read_labelled(
    manifest: str,
    audio_root: str | None,
    label_column: str,
    *,
    where: str | None = None,
    where_option: str = "--where",
    label_separator: str | None = None,
    classes: Sequence[str] | None = None,
    clip_seconds: float | None = None,
    workers: int = 1,
    columns: ColumnNames | None = None,
) -> Labelled:
    """Scan a manifest and read its labels, as :func:`logitstore.evaluation.cells.read_cells` does.

    A row whose cell is empty has no label: none of the classes is there. Rows that name the same segment become one,
    with the labels of all, as strongly labelled sets have a row for each label. Both are said.

    :param classes: the names that labels will be matched to, where they are known.
    :param where, where_option: see :func:`logitstore.audio.scan.scan`.
    :param clip_seconds: longer rows become several clips; by default 10 s, or the longest row where that is shorter.
    :param columns: which columns of the manifest say what; by their usual names by default.
    :raises SourceError: no such manifest or column, no rows, or none of its files is there; see also
        :func:`logitstore.audio.scan.scan`.
    :raises AudioError: not one of the files can be read.
    """
    source = _Numbered(open_source(manifest, audio_root, columns), label_column, manifest)
    seconds = DEFAULT_CLIP_SECONDS if clip_seconds is None else clip_seconds
    table = scan(
        source, clip_seconds=seconds, where=where, where_option=where_option, workers=workers, join=source.join,
        label_column=label_column,
    )  # fmt: skip
    require_found(source, table, manifest, audio_root)
    if clip_seconds is None:
        lengths, rates = (table[name].to_numpy().astype(np.float64) for name in ("length", "rate"))
        longest = float((lengths / np.maximum(rates, 1)).max())
        seconds = min(seconds, longest) if longest > 0 else seconds
    numbers, row_of = np.unique(table[_ROW].to_numpy(), return_inverse=True)
    labels = source.labels(numbers, label_separator, classes)
    return Labelled(source, table.drop_columns([_ROW]), row_of.astype(np.int64), labels, seconds, manifest, numbers)


def read_listing(
    manifest: str,
    label_column: str,
    *,
    where: str | None = None,
    label_separator: str | None = None,
    classes: Sequence[str] | None = None,
    columns: ColumnNames | None = None,
) -> tuple[pa.Table, tuple[tuple[str, ...], ...], I64]:
    """The rows of a manifest and their labels as :func:`read_labelled` reads them, but no audio is looked at.

    :returns: ``path`` and, where the manifest has them, ``start`` and ``duration`` (s) of every row; labels; numbers.
    :raises SourceError: no such manifest or column, or no rows.
    """
    source = _Numbered(open_source(manifest, None, columns), label_column, manifest)
    listing, own = listed(source, where, join=source.join)
    numbers = listing[_ROW].to_numpy().astype(np.int64)
    return listing.select(own), source.labels(numbers, label_separator, classes), numbers


def label_names(labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The distinct labels, sorted."""
    return tuple(sorted({label for row in labels for label in row}))


def classes_from(labels: Sequence[tuple[str, ...]], source: str) -> tuple[str, ...]:
    """The distinct labels, sorted, as the classes of a model.

    :raises SourceError: two of them differ only by case, spaces or the form of their Unicode, so that one is a slip.
    """
    names = label_names(labels)
    alike: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        other = alike.setdefault(plain, name)
        if other != name:
            counts = [sum(each in row for row in labels) for each in (other, name)]
            raise SourceError(
                f"{source}: the labels {other!r} ({counts[0]} rows) and {name!r} ({counts[1]} rows) differ only by "
                "case, spaces or the form of their Unicode; write them alike, or name both in a --classes FILE"
            )
    return names


def label_matrix(
    labels: Sequence[tuple[str, ...]], classes: Sequence[str], *, whose: str, source: str | None = None
) -> Bool:
    """Which classes each row has, bool (rows, C); labels are matched by name or through the AudioSet table.

    :param whose: what the classes are of, for the message. :param source: where the labels are, likewise.
    :raises TeacherError: a label that is none of the classes.
    """
    from logitstore.classes import ClassIndex

    found, missing = ClassIndex(classes).find_all(label_names(labels))
    if missing:
        total = len(found) + len(missing)
        several = [label for label in missing if any(mark in label for mark in ",;|")]
        remedy = (
            f"rename the labels, or leave their rows out with SQL, or, if {several[0]!r} is several, say "
            "--label-separator"
            if several
            else "rename the labels, or leave their rows out with SQL"
        )
        unknown = ", ".join(with_nearest(label, classes) for label in missing[:_MOST_NAMED])
        raise TeacherError(
            f"{'' if source is None else f'{source}: '}{len(missing)} of {total} labels "
            f"{'are' if len(missing) > 1 else 'is'} no class of {whose}: "
            f"{unknown}{', …' if len(missing) > _MOST_NAMED else ''}; its {len(classes)} classes are "
            f"{_some(classes)}; {remedy}"
        )
    numbers = [label for label in found if label.isdecimal() and classes[found[label]] != label]
    if numbers:
        note(
            f"{'' if source is None else f'{source}: '}the label {numbers[0]!r} is taken for AudioSet's index "
            f"{numbers[0]}, {classes[found[numbers[0]]]!r}, as are {len(numbers)} numbers in all"
        )
    matrix = np.zeros((len(labels), len(classes)), dtype=bool)
    for row, names in enumerate(labels):
        matrix[row, [found[name] for name in names]] = True
    return matrix


class _Numbered:
    """A source whose listing also says which row is which, and has a column of labels."""

    def __init__(self, source: Source, label_column: str, what: str) -> None:
        self.source = source
        self.kind = source.kind
        self.segmented = source.segmented
        self.label_column = label_column
        self.what = what
        self._cells: list[Any] = []
        self._joined: dict[int, list[int]] = {}

    def listing(self) -> pa.Table:
        import pyarrow as pa

        listing = self.source.listing()
        own = [name for name in listing.column_names if name not in ("path", "start", "duration")]
        if self.label_column not in own:
            raise SourceError(
                f"{self.what}: no column {self.label_column!r} to take labels from; found "
                f"{', '.join(map(repr, own)) or 'no columns beside the path'}; name one with --label-column"
            )
        self._cells = listing[self.label_column].to_pylist()
        return listing.append_column(_ROW, pa.array(np.arange(listing.num_rows)))

    def __getattr__(self, name: str) -> Any:
        if name in ("reading", "notes", "cut_already"):  # what a source may also say
            return getattr(self.source, name)
        raise AttributeError(name)

    def join(self, listing: pa.Table, own: list[str]) -> pa.Table:
        """The first of the rows that name the same segment; :meth:`labels` gives it those of all."""
        import pyarrow as pa

        groups = listing.select([*own, _ROW]).group_by(own, use_threads=False).aggregate([(_ROW, "list")])
        if groups.num_rows == listing.num_rows:
            return listing
        together = groups[f"{_ROW}_list"].to_pylist()
        self._joined = {min(rows): sorted(rows) for rows in together}
        several = [rows for rows in together if len(rows) > 1]
        note(
            f"{self.what}: {sum(map(len, several))} rows name {len(several)} segments more than once (such as of "
            f"{listing['path'][int(np.flatnonzero(listing[_ROW].to_numpy() == min(several[0]))[0])].as_py()!r}); each "
            "is one, with the labels of all its rows"
        )
        return listing.filter(pa.array(np.isin(listing[_ROW].to_numpy(), list(self._joined))))

    def labels(self, numbers: I64, separator: str | None, classes: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
        """The labels of rows of the listing, by their numbers int64 (R,)."""
        rows = [self._joined.get(number, [number]) for number in numbers.tolist()]
        cells = [self._cells[number] for several in rows for number in several]
        read = iter(
            read_cells(cells, column=self.label_column, source=self.what, separator=separator, classes=classes).labels
        )
        labels = tuple(tuple(dict.fromkeys(label for _ in several for label in next(read) or ())) for several in rows)
        empty = sum(not each for each in labels)
        if empty:
            note(
                f"{self.what}: {empty} of {len(labels)} rows have no label in the column {self.label_column!r}; they "
                "count as having none of the classes"
            )
        return labels

    def read(self, path: str) -> Audio:
        return self.source.read(path)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")


def with_nearest(label: str, classes: Sequence[str]) -> str:
    """A label, and the class that was perhaps meant: alike but for case, spaces, underscores or a slip of the pen."""

    def plain(name: str) -> str:
        return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())

    by_plain = {plain(name): name for name in reversed(classes)}
    near = difflib.get_close_matches(plain(label), by_plain, n=1, cutoff=0.75)
    return f"{label!r} (perhaps {by_plain[near[0]]!r})" if near else repr(label)
