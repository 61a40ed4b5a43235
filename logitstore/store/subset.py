"""Some clips of a store, as a table names them: what an answer of ``logitstore inspect`` is to training and evaluation.

The table is Parquet or CSV. Its rows name clips by their number, in the column ``clip``, or by where they lie, in
``path``, ``start`` and ``length`` (frames, as in the table ``clips``); ``path`` alone does where a file is one clip.
Where it has both, both must be of the same clip: numbers of another store are found out so. Parquet that ``inspect``
wrote says in its metadata which clips its numbers count (:func:`numbering`), so that numbers alone are found out too.

A file of verdicts, as the listening page writes it, names all clips of the store but those that are judged wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import I64
from logitstore.audio.delimited import read_rows, typed
from logitstore.audio.parquet import whole_table
from logitstore.audio.source import first_line
from logitstore.digests import digest, hasher
from logitstore.errors import MismatchError, SourceError
from logitstore.notes import note
from logitstore.store.verdicts import agreed, disputed, is_verdicts, judged_some

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.pieces import Pieces

_NUMBERING = b"logitstore.clips"
_FRAMES = ("start", "length")
_SEPARATORS = {".tsv": "\t"}  # others are found
_MOST_NAMED = 3


@dataclass(frozen=True)
class Subset:
    """The clips that a table names, int64 (n,), rising, each once; ``file`` is the table."""

    file: str
    clips: I64

    @functools.cached_property
    def digest(self) -> str:
        """BLAKE2b-128, hex, of the clips' numbers: the same for the same clips, in whatever file and order."""
        return digest(self.clips.astype("<i8").tobytes())


def numbering(store: Pieces) -> dict[bytes, bytes]:
    """What the metadata of a Parquet file says of its column ``clip``: how many clips are counted, and their digest."""
    return {_NUMBERING: f"{store.clips.num_rows} {_digest_of_first(store, store.clips.num_rows)}".encode()}


def _digest_of_first(store: Pieces, count: int) -> str:
    """BLAKE2b-128, hex, of the places of the first clips."""
    content = hasher()
    for name in ("path", *_FRAMES):
        column = store.clips[name].slice(0, count)
        values = "\0".join(column.to_pylist()) if name == "path" else column.to_numpy().astype("<i8").tobytes()
        content.update(values.encode("utf-8", "surrogateescape") if isinstance(values, str) else values)
    return content.hexdigest()


def read_subset(store: Pieces, file: str, option: str = "--clips") -> Subset:
    """The clips of a store that a table names; a clip that comes again is said.

    :param option: what a user calls it.
    :raises SourceError: the table cannot be read, names no clips, or has no columns that could.
    :raises MismatchError: it names clips that the store does not have, or is of another store.
    """
    if is_verdicts(file):
        return Subset(file, _not_wrong(store, file, option))
    table, place = _read(file, option)
    _require_numbering(store, table, file, option)
    if not table.num_rows:
        raise SourceError(f"{option} {file!r} has no rows, so no clip; give a table of at least one")
    clips = _numbered(store, table, place, option) if "clip" in table.column_names else _found(store, table, option)
    chosen: I64 = np.unique(clips)
    if len(chosen) < len(clips):
        note(f"{option} {file}: {len(clips):,} rows name {len(chosen):,} clips; one that comes again counts once")
    return Subset(file, chosen)


def _not_wrong(store: Pieces, file: str, option: str) -> I64:
    """The clips of a store but those that everyone who judged them says are wrong.

    :raises MismatchError: there are verdicts, and none is about a clip of the store.
    """
    said = judged_some(store, file, option)
    wrong = [clip for clip, of in said.items() if (found := agreed(of.values())) and found.verdict == "wrong"]
    note(f"{option} {file}: {len(wrong):,} of {len(said):,} judged clips are wrong and left out{disputed(said)}")
    return np.setdiff1d(np.arange(store.clips.num_rows), wrong)


def _read(file: str, option: str) -> tuple[pa.Table, Callable[[int], str]]:
    """The columns of a table that name clips, and what to call a row of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(file)
    if path.suffix.lower() != ".parquet":
        try:
            rows = read_rows(path, lambda names: not {"clip", "path"}.isdisjoint(names), _SEPARATORS.get(path.suffix))
        except SourceError as error:
            raise SourceError(f"{option} {error}") from None
        names = _columns(rows.table.column_names, file, option)
        columns = [rows.table[name] if name == "path" else typed(rows, name, []) for name in names]
        return pa.table(columns, names=names), rows.where
    try:
        table = whole_table(path, _columns(pq.read_schema(path).names, file, option))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{option} {file!r} is not readable as Parquet: {first_line(error)}") from None
    return table, lambda row: f"{file}, row {row + 1}"


def _columns(names: list[str], file: str, option: str) -> list[str]:
    """Those of a table's columns that name clips.

    :raises SourceError: there are none that could.
    """
    kept = [name for name in ("clip", "path", *_FRAMES) if names.count(name) == 1]
    if not set(_FRAMES) <= set(kept):
        kept = [name for name in kept if name not in _FRAMES]
    if not kept:
        raise SourceError(
            f"{option} {file!r} has no column clip, and no path, start and length, to name clips by; found "
            f"{', '.join(map(repr, names[:8]))}{', …' if len(names) > 8 else ''}"
        )
    return kept


def _numbered(store: Pieces, table: pa.Table, place: Callable[[int], str], option: str) -> I64:
    """The clips of a column of numbers, checked against the other columns that the table has."""
    clips = _whole(table["clip"], place, option)
    known = store.clips.num_rows
    _require((clips >= 0) & (clips < known), store, lambda row: f"{clips[row]} ({place(row)})",
             f"its clips are 0 to {known - 1:,}", option)  # fmt: skip
    for name in table.column_names[1:]:
        there = store.clips[name].take(clips).to_pylist()
        for row, (own, told) in enumerate(zip(there, table[name].to_pylist(), strict=True)):
            if own != told:
                raise MismatchError(
                    f"{place(row)}: {option} says that the {name} of clip {clips[row]} is {told!r}, and in "
                    f"{store.location} it is {own!r}: the table is of another store; ask this one anew"
                )
    return clips


def _require_numbering(store: Pieces, table: pa.Table, file: str, option: str) -> None:
    """Refuse numbers that count the clips of another store, where the file says what they count."""
    said = (table.schema.metadata or {}).get(_NUMBERING, b"").decode("ascii", "replace").split()
    if "clip" not in table.column_names or len(said) != 2 or not said[0].isdecimal():
        return
    count = int(said[0][:18])
    if count > store.clips.num_rows or _digest_of_first(store, count) != said[1]:
        raise MismatchError(
            f"{option} {file!r} numbers the {count:,} clips of a store, and they are not the first of the "
            f"{store.clips.num_rows:,} clips of {store.location}: the table is of another store; ask this one anew"
        )


def _whole(column: Any, place: Callable[[int], str], option: str) -> I64:
    """A column of whole numbers, as integers or as floats, which a data frame makes of them.

    :raises SourceError: it has a NULL, or is not of numbers.
    """
    import pyarrow as pa

    try:
        numbers: I64 = column.cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        raise SourceError(
            f"{option}: the column clip is of the type {column.type}; give whole numbers, as the tables of "
            "`logitstore inspect` have them"
        ) from None
    if column.null_count:
        row = next(row for row, value in enumerate(column.to_pylist()) if value is None)
        raise SourceError(f"{place(row)}: {option} has no number in the column clip; leave such rows out")
    return np.asarray(numbers, np.int64)


def _found(store: Pieces, table: pa.Table, option: str) -> I64:
    """The clips that lie where a table says."""
    names = table.column_names
    clips: dict[tuple[Any, ...], list[int]] = {}
    for clip, key in enumerate(zip(*(store.clips[name].to_pylist() for name in names), strict=True)):
        clips.setdefault(key, []).append(clip)
    keys = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    _require(np.array([key in clips for key in keys]), store, lambda row: " at ".join(map(str, keys[row][:2])),
             f"its first clip is {store.clips['path'][0].as_py()!r}", option)  # fmt: skip
    for key in keys:
        if len(clips[key]) > 1:
            raise SourceError(
                f"{option}: {key[0]!r} is {len(clips[key])} clips of {store.location}; say which, in the column clip "
                "or in start and length (frames)"
            )
    return np.array([clips[key][0] for key in keys], np.int64)


def _require(there: Any, store: Pieces, called: Callable[[int], str], has: str, option: str) -> None:
    missing = np.flatnonzero(~there).tolist()
    if missing:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        raise MismatchError(
            f"{len(missing):,} of the {len(there):,} clips that {option} names are not in {store.location}: "
            f"{', '.join(map(called, missing[:_MOST_NAMED]))}{more}; {has}"
        )
