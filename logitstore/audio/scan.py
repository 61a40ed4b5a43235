"""The clip table: which pieces of which files are clips, from headers alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F64, I64
from logitstore.audio.audiofile import frame_count
from logitstore.audio.source import OWN, RESERVED, Reading, Source, kept_name, kept_names
from logitstore.errors import AudioError, QueryError, QueryLimitError, SourceError
from logitstore.notes import doing, say

if TYPE_CHECKING:
    import pyarrow as pa


_CHUNK = 1024
_TASK = 8  # files that a thread opens before it takes others
_KEYS = 4  # columns of a clip table before the user's: path, start, length, rate
_CUT_SLACK = 0.5  # seconds by which a file that holds a segment alone may be longer
_END_SLACK = 0.1  # seconds by which a row may leave its file without a word: ends are rounded
_MOST_SHOWN, _MOST_COLUMNS = 5, 20
_LABELS = {"label", "labels", "class", "classes", "category", "categories", "tag", "tags", "target", "positive_labels",
           "event_label", "event_labels", "species"}  # fmt: skip


def scan(
    source: Source,
    *,
    clip_seconds: float,
    where: str | None = None,
    where_option: str = "--where",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    join: Callable[[pa.Table, list[str]], pa.Table] | None = None,
    taken: Collection[str] = (),
    label_column: str | None = None,
) -> pa.Table:
    """List the clips of a source, and say what was understood of it.

    A file, or what a manifest row asks of it, longer than ``clip_seconds`` becomes several clips; a last piece shorter
    than half of that is dropped unless it is the only one. Cuts are made in the file's own frames, with seconds rounded
    to the nearest frame, halves up. What begins after the file's end keeps a row of length 0, and an unreadable
    file one row with start, length and rate 0; decoding says why. Of a file that breaks off, the clip in which it
    does is the last.

    :param clip_seconds: length of a clip in seconds, more than 0.
    :param where: SQL over the listing's columns; rows for which it is not true are left out.
    :param where_option: what messages call it.
    :param workers: threads that open headers, where that takes waiting; the result does not depend on it.
    :param progress: called with (files opened, files) from time to time.
    :param join: see :func:`listed`.
    :param taken: names, in lower case, that a user's column may not have in the store; it is kept under another, as is
        one that is called like the clip table's own.
    :param label_column: what the user calls the column of labels, for the summary.
    :returns: ``path`` string, ``start`` and ``length`` int64 frames, ``rate`` int32 Hz, then the user's columns; sorted
        by (path as UTF-8 bytes, start, length), which is unique.
    :raises SourceError: nothing to list, nothing left, or duplicates, which it names.
    :raises QueryError: ``where`` is not one SQL expression over these columns.
    """
    if not clip_seconds > 0:
        raise SourceError(f"clip_seconds is {clip_seconds:g}; it must be more than 0")
    listing, own = listed(source, where, where_option, join)
    paths, codes = _paths(listing)
    found = lengths(source, paths, workers, progress)[:, codes]
    notes: list[str] = []
    listing = _settled(source, listing, own, found[2], found[1], notes)
    rows, start, length, rate = _cut(listing, own, codes, found, clip_seconds)
    table = _table(listing, own, rows, start, length, rate)
    renamed = kept_names(table.column_names[_KEYS:], {*RESERVED, *taken})
    table = table.rename_columns(
        [*table.column_names[:_KEYS], *(renamed.get(n, n) for n in table.column_names[_KEYS:])]
    )
    for kind, message in understood(source, table, len(paths), renamed, notes, label_column):
        say(kind, message)
    return table


def understood(
    source: Source,
    table: pa.Table,
    files: int,
    renamed: dict[str, str],
    notes: list[str],
    label_column: str | None = None,
) -> list[tuple[str, str]]:
    """What a scan understood of a source: three lines of files, columns and classes, and one for every surprise.

    :param files: how many the source names. :param renamed: columns of the listing that the clip table calls otherwise.
    :param notes: of the scan. :param label_column: what the user calls the column of labels, if any.
    :returns: pairs of a word and what there is to say.
    """
    reading: Reading = getattr(source, "reading", None) or Reading()
    rates = table["rate"].to_numpy()
    hours = float((table["length"].to_numpy() / np.maximum(rates, 1)).sum()) / 3600
    unread = len(set(table["path"].filter(rates == 0).to_pylist()))
    names = [name for name in table.column_names[_KEYS:] if not name.startswith("\n")]
    new = {renamed.get(name, name): old for old, name in reading.renamed.items()}
    new |= {name: old for old, name in renamed.items() if name not in new}
    columns = [
        _listed("used", [old if name == old else f"{old} ({name})" for name, old in reading.used.items()]),
        _listed("kept", [name if name not in new else f"{new[name]} as {name}" for name in names]),
        _listed("ignored", [f"{name} ({why})" for name, why in reading.ignored.items()]),
    ]
    count = table.num_rows
    time = f"{hours:,.2f}" if hours >= 1 else f"{hours:.2g}"
    clips = f"{time} hours in {count:,} clip{'s' * (count != 1)}"
    return [
        ("source", f"{files:,} file{'s' * (files != 1)}, {clips}{f'; {unread:,} cannot be read' if unread else ''}"),
        ("columns", "; ".join(each for each in columns if each) or "none beside the path"),
        ("classes", _classes(table, label_column)),
        *(("note", each) for each in dict.fromkeys([*getattr(source, "notes", ()), *reading.notes, *notes])),
    ]


def _listed(what: str, names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _MOST_COLUMNS else ""
    return f"{what} {', '.join(names[:_MOST_COLUMNS])}{more}" if names else ""


def _classes(table: pa.Table, label_column: str | None) -> str:
    """What a column of labels holds: that of the user, or what is called like one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table.column_names[_KEYS:]
    if label_column is not None:
        likely = [name for name in [kept_name(label_column, names)] if name in names]
    else:
        likely = [name for name in names if name.lower().removeprefix("source_") in _LABELS]
    if not likely:
        return "no column of labels is known; a store needs none"
    column = table[likely[0]].combine_chunks()
    kind = column.type
    cells = pc.list_flatten(column) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else column
    if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
        return f"the column {likely[0]!r} holds {cells.type}"
    values = [str(value) for value in pc.unique(cells).to_pylist() if value is not None and value != ""]
    shown = ", ".join(sorted(values)[:_MOST_SHOWN]) + (", …" if len(values) > _MOST_SHOWN else "")
    what = "label" if cells is not column else "value"
    return (
        f"the column {likely[0]!r} has {len(values):,} {what}{'s' * (len(values) != 1)}{f': {shown}' if values else ''}"
    )


def _settled(source: Source, listing: pa.Table, own: list[str], frames: I64, rates: I64, notes: list[str]) -> pa.Table:
    """The listing, where files may be the very spans that were asked for, with those starting at 0.

    :param frames, rates: of the file of every row. :param notes: told of that, and of rows that leave their files.
    """
    import pyarrow as pa

    if "start" not in own and "duration" not in own:
        return listing
    start, asked = _seconds(listing, "start", own, 0.0), _seconds(listing, "duration", own, np.nan)
    seconds = frames / np.maximum(rates, 1)
    if getattr(source, "cut_already", False):
        whole = (rates > 0) & (start > 0) & (seconds <= asked + _CUT_SLACK)
        if whole.any():
            notes.append(
                f"{int(whole.sum()):,} files are no longer than their segment, and are taken for the segment itself"
            )
            start = np.where(whole, 0.0, start)
            listing = listing.set_column(listing.schema.get_field_index("start"), "start", pa.array(start))
    beyond = (rates > 0) & (start >= seconds) & (start > 0)
    if beyond.any():
        row = int(np.argmax(beyond))
        notes.append(
            f"{int(beyond.sum()):,} rows begin after the end of their file and will be failures, such as "
            f"{listing['path'][row].as_py()!r} at {start[row]:g} s of {seconds[row]:g} s"
        )
    past = (rates > 0) & ~beyond & (start + asked > seconds + _END_SLACK)
    if past.any():
        row = int(np.argmax(past))
        notes.append(
            f"{int(past.sum()):,} rows end after their file does and are cut there, such as "
            f"{listing['path'][row].as_py()!r}, to {start[row] + asked[row]:g} s of {seconds[row]:g} s"
        )
    return listing


def listed(
    source: Source,
    where: str | None = None,
    where_option: str = "--where",
    join: Callable[[pa.Table, list[str]], pa.Table] | None = None,
) -> tuple[pa.Table, list[str]]:
    """The rows of a source that are asked for, and which of ``path``, ``start`` and ``duration`` tell them apart.

    :param join: makes one row of those that are alike in these; without it they are refused.

    :raises SourceError: nothing to list, nothing left, or duplicates, which it names.
    :raises QueryError: ``where`` is not one SQL expression over the columns.
    """
    listing = source.listing()
    if where is not None:
        listing = keep_where(listing, where, where_option)
    own = [name for name in OWN if name == "path" or source.segmented]
    own = [name for name in own if name in listing.column_names]
    if join is not None:
        listing = join(listing, own)
    _refuse_duplicates(listing.select(own))
    return listing, own


def keep_where(listing: pa.Table, where: str, option: str = "--where") -> pa.Table:
    """The rows for which an SQL expression is true; it can read nothing but them, as the table ``clips``.

    :raises QueryError: it is not one expression over the columns.
    :raises QueryLimitError: it takes more time, memory or temporary space than a query may.
    :raises SourceError: it is true of no row.
    """
    import pyarrow as pa

    from logitstore.sql.check import check_expression
    from logitstore.sql.limits import Limits
    from logitstore.sql.sandbox import Sandbox

    row = "\nkept"
    with Sandbox(Limits.of_filter()) as sandbox:
        sandbox.register("clips", listing.append_column(row, pa.array(np.arange(listing.num_rows))))
        sql = f'SELECT "{row}" FROM clips WHERE (\n{where}\n)'
        try:
            check_expression(sandbox.connection, where, ("clips",))
            with sandbox.stream(sql) as reader:
                kept = reader.read_all()[row].to_numpy()
        except QueryLimitError as error:
            raise QueryLimitError(f"{option} {where!r}: {error}") from error
        except QueryError as error:
            found = re.sub(r"^SQL, line \d+, (column \d+, )?", "", str(error))  # of the SQL around it
            raise QueryError(f"{option} {where!r}: {found} (columns: {', '.join(listing.column_names)})") from error
    if not len(kept):
        raise SourceError(f"{option} {where!r} leaves none of {listing.num_rows} rows; check its values")
    return listing.take(pa.array(np.sort(np.asarray(kept, dtype=np.int64))))


def _paths(listing: pa.Table) -> tuple[pa.Array, I64]:
    """The distinct paths, and each row's index among them."""
    encoded = listing.column("path").combine_chunks().dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def headers(
    source: Source, paths: pa.Array, workers: int, progress: Callable[[int, int], None] | None = None
) -> tuple[I64, I64]:
    """Frames and rate in Hz of every path, int64 (n,) each; both 0 where a file cannot be read.

    Of a file that breaks off, the frames are those that it should have.
    """
    _, rates, promised, _ = lengths(source, paths, workers, progress)
    return promised, rates


def lengths(source: Source, paths: pa.Array, workers: int, progress: Callable[[int, int], None] | None = None) -> I64:
    """A :class:`~logitstore.audio.audiofile.Length` of every path, int64 (4, n); all 0 of one that cannot be read."""
    found = np.zeros((len(paths), 4), dtype=np.int64)

    def measure(first: int) -> None:
        for row, path in enumerate(paths[first : first + _TASK].to_pylist(), first):
            with suppress(AudioError):
                found[row] = frame_count(source.read(path))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for low in range(0, len(paths), _CHUNK):  # in pieces: whether a disk is waited for may change
            high = min(low + _CHUNK, len(paths))
            began, busy = time.perf_counter(), time.thread_time()
            measure(low)
            # threads help where a disk is waited for; elsewhere they hand the interpreter around, four times as long
            waits = time.perf_counter() - began > 2 * (time.thread_time() - busy)
            for _ in (pool.map if waits else map)(measure, range(low + _TASK, high, _TASK)):
                pass
            (progress or partial(doing, "opening files"))(high, len(paths))
    return found.T


def holds(source: Source, clips: pa.Table, workers: int) -> bool:
    """Whether a source has every file of a clip table, each of its rate and long enough, by their headers alone.

    Clips whose file could not be read when they were scanned do not count.
    """
    import pyarrow as pa

    stops = np.asarray(clips["start"].to_numpy()) + np.asarray(clips["length"].to_numpy())
    wanted: dict[str, tuple[int, int]] = {}
    for path, rate, stop in zip(clips["path"].to_pylist(), clips["rate"].to_pylist(), stops.tolist(), strict=True):
        if rate:
            wanted[path] = (rate, max(stop, wanted.get(path, (0, 0))[1]))

    paths = list(wanted)
    for low in range(0, len(paths), _CHUNK):
        some = paths[low : low + _CHUNK]
        frames, rates = headers(source, pa.array(some, pa.string()), workers)
        for path, length, rate in zip(some, frames.tolist(), rates.tolist(), strict=True):
            if rate != wanted[path][0] or length < wanted[path][1]:
                return False
    return True


def _cut(listing: pa.Table, own: list[str], codes: I64, lengths: I64, clip_seconds: float) -> tuple[I64, I64, I64, I64]:
    """Row of the listing, start, length and rate of every clip, int64 (n,) each.

    A file that breaks off is cut as it was promised to be, up to the clip in which it does: that one fails, and is
    kept however short it is where nobody knows what is missing.
    """
    frames, rates, promised, breaks_off = lengths
    readable = rates > 0
    first = _round(_seconds(listing, "start", own, 0.0) * rates)
    asked = _seconds(listing, "duration", own, np.inf) * np.maximum(rates, 1)
    left = np.maximum(0, promised - first)
    span = np.minimum(left, _round(np.minimum(asked, left)))
    clip = np.maximum(1, _round(clip_seconds * np.maximum(rates, 1)))
    whole, rest = span // clip, span % clip
    broken = (breaks_off > 0) & (first + span >= frames)
    pieces = np.where(((2 * rest >= clip) | broken) & (rest > 0) | (whole == 0), whole + 1, whole)
    pieces = np.minimum(pieces, np.maximum(0, frames - first) // clip + 1)
    unreadable = np.flatnonzero(~readable)  # one row a file, however many spans of it were asked for
    pieces[unreadable] = 0
    pieces[unreadable[np.unique(codes[unreadable], return_index=True)[1]]] = 1

    rows = np.repeat(np.arange(len(pieces)), pieces)
    piece = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = piece * clip[rows]
    start = np.where(readable[rows], first[rows] + offset, 0)
    return rows, start, np.minimum(clip[rows], span[rows] - offset), rates[rows]


def _seconds(listing: pa.Table, name: str, own: list[str], missing: float) -> F64:
    import pyarrow.compute as pc

    if name not in own:
        return np.full(listing.num_rows, missing)
    values: F64 = pc.fill_null(listing.column(name), missing).to_numpy()
    return values


def _round(values: F64) -> I64:
    """To the nearest integer, halves up; times past any file are cut off at 2**53."""
    return np.floor(np.minimum(values, 2.0**53) + 0.5).astype(np.int64)


def _table(listing: pa.Table, own: list[str], rows: I64, start: I64, length: I64, rate: I64) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pa.table(
        {
            "path": listing.column("path").take(pa.array(rows)),
            "start": pa.array(start),
            "length": pa.array(length),
            "rate": pa.array(rate.astype(np.int32)),
            "row": pa.array(rows),
        }
    )
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ("path", "start", "length", "row")])
    keys = keys.take(order).combine_chunks()
    _refuse_duplicates(keys.select(["path", "start", "length"]))
    carried = listing.drop_columns(own).take(keys.column("row"))
    table = keys.drop_columns(["row"])
    for name in carried.column_names:
        table = table.append_column(name, carried.column(name))
    return table.combine_chunks()


def _refuse_duplicates(keys: pa.Table) -> None:
    import pyarrow.compute as pc

    grouped = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    double = grouped.filter(pc.greater(grouped.column("count_all"), 1))
    if double.num_rows:
        double = double.sort_by([(name, "ascending") for name in keys.column_names])
        names = [
            " ".join([repr(row["path"]), *(f"{name} {row[name]}" for name in keys.column_names[1:])])
            for row in double.slice(0, 3).to_pylist()
        ]
        more = f" and {double.num_rows - 3} more" if double.num_rows > 3 else ""
        raise SourceError(
            f"duplicate clips, {double.num_rows} in all: {', '.join(names)}{more}; keep one row of each (several "
            "labels of a clip go into one cell, as in Dog;Bark)"
        )
