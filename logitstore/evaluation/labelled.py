"""Labelled audio: the rows of a manifest with their labels, and the clips that they are cut into."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.found import require_found
from logitstore.audio.scan import listed, scan
from logitstore.audio.source import Source
from logitstore.audio.sources import open_source
from logitstore.digests import hasher
from logitstore.errors import SourceError, TeacherError

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.audiofile import Audio


SEPARATOR = ";"
#: Length of a clip where neither the user nor the data says otherwise.
DEFAULT_CLIP_SECONDS = 10.0

_ROW = "manifest row"
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
    clip_seconds: float | None = None,
    workers: int = 1,
) -> Labelled:
    """Scan a manifest and read its labels: text or numbers, several of them separated by ``;`` or as a Parquet list.

    A row whose cell is empty has no label: none of the classes is there.

    :param where, where_option: see :func:`logitstore.audio.scan.scan`.
    :param clip_seconds: longer rows become several clips; by default 10 s, or the longest row where that is shorter.
    :raises SourceError: no such manifest or column, no rows, or none of its files is there; see also
        :func:`logitstore.audio.scan.scan`.
    :raises AudioError: not one of the files can be read.
    """
    source = _Numbered(open_source(manifest, audio_root), label_column, manifest)
    seconds = DEFAULT_CLIP_SECONDS if clip_seconds is None else clip_seconds
    table = scan(source, clip_seconds=seconds, where=where, where_option=where_option, workers=workers)
    require_found(source, table, manifest, audio_root)
    if clip_seconds is None:
        lengths, rates = (table[name].to_numpy().astype(np.float64) for name in ("length", "rate"))
        longest = float((lengths / np.maximum(rates, 1)).max())
        seconds = min(seconds, longest) if longest > 0 else seconds
    numbers, row_of = np.unique(table[_ROW].to_numpy(), return_inverse=True)
    first = np.zeros(len(numbers), dtype=np.int64)
    first[row_of[::-1]] = np.arange(len(row_of))[::-1]
    labels = tuple(split_labels(value) for value in table[label_column].take(first).to_pylist())
    return Labelled(source, table.drop_columns([_ROW]), row_of.astype(np.int64), labels, seconds, manifest, numbers)


def read_listing(
    manifest: str, label_column: str, *, where: str | None = None
) -> tuple[pa.Table, tuple[tuple[str, ...], ...], I64]:
    """The rows of a manifest and their labels as :func:`read_labelled` reads them, but no audio is looked at.

    :returns: ``path`` and, where the manifest has them, ``start`` and ``duration`` (s) of every row; labels; numbers.
    :raises SourceError: no such manifest or column, no rows, or the same row twice.
    """
    listing, own = listed(_Numbered(open_source(manifest), label_column, manifest), where)
    labels = tuple(split_labels(value) for value in listing[label_column].to_pylist())
    return listing.select(own), labels, listing[_ROW].to_numpy().astype(np.int64)


def label_names(labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The distinct labels, sorted."""
    return tuple(sorted({label for row in labels for label in row}))


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
        unknown = ", ".join(_with_nearest(label, classes) for label in missing[:_MOST_NAMED])
        raise TeacherError(
            f"{'' if source is None else f'{source}: '}{len(missing)} of {total} labels "
            f"{'are' if len(missing) > 1 else 'is'} no class of {whose}: "
            f"{unknown}{', …' if len(missing) > _MOST_NAMED else ''}; its {len(classes)} classes are "
            f"{_some(classes)}; rename the labels, or leave their rows out with SQL"
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

    def listing(self) -> pa.Table:
        import pyarrow as pa

        listing = self.source.listing()
        own = [name for name in listing.column_names if name not in ("path", "start", "duration")]
        if self.label_column not in own:
            raise SourceError(
                f"{self.what}: no column {self.label_column!r} to take labels from; found "
                f"{', '.join(map(repr, own)) or 'no columns beside the path'}; name one with --label-column"
            )
        return listing.append_column(_ROW, pa.array(np.arange(listing.num_rows)))

    def read(self, path: str) -> Audio:
        return self.source.read(path)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")


def _with_nearest(label: str, classes: Sequence[str]) -> str:
    """A label, and the class that was perhaps meant: alike but for case, spaces, underscores or a slip of the pen."""

    def plain(name: str) -> str:
        return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())

    by_plain = {plain(name): name for name in reversed(classes)}
    near = difflib.get_close_matches(plain(label), by_plain, n=1, cutoff=0.75)
    return f"{label!r} (perhaps {by_plain[near[0]]!r})" if near else repr(label)


def split_labels(value: Any) -> tuple[str, ...]:
    """The labels of one cell, without spaces around them, each once."""
    if value is None:
        return ()
    parts = [str(item) for item in value] if isinstance(value, list) else str(value).split(SEPARATOR)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
