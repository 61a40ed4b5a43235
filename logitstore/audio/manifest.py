"""Manifests: tables that name audio files, and may cut them and say more about them.

The file of a row is relative to the audio root. Where the row begins and ends in it, both optional, is in seconds.
Every other column is carried into the clip table. :mod:`logitstore.audio.roles` says which column is which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F64, Bool
from logitstore.audio import audioset, sonyc
from logitstore.audio.audiofile import Audio
from logitstore.audio.delimited import Rows, read_rows, typed
from logitstore.audio.jsonl import SUFFIXES as JSON_SUFFIXES
from logitstore.audio.jsonl import read_json
from logitstore.audio.parquet import rows_of
from logitstore.audio.roles import Roles, has_path, roles
from logitstore.audio.source import OWN, ColumnNames, Reading, Source, first_line, normal_path, user_columns
from logitstore.audio.stems import Stems, has_ending
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

#: Endings of the files that are manifests whatever they hold; a compressed one has the packer's ending after it.
SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)
PACKED = (".gz", ".zst", ".bz2")
_SAME = 0.02  # seconds by which a stated duration may miss the stated end: both are rounded


class ManifestSource:
    """Rows of a table that name audio below a root.

    :param audio: where the files are. :param columns: which columns say what; by their usual names by default.
    """

    kind = "manifest"
    segmented = True

    def __init__(self, path: Path, audio: Source, columns: ColumnNames | None = None) -> None:
        self.path = path
        self.audio = audio
        self.columns = columns or ColumnNames()
        self.reading = Reading()
        self.cut_already = False  # whether files no longer than their row's span may be that span, cut out

    def listing(self) -> pa.Table:
        import pyarrow as pa

        self.reading = Reading()
        table = read_manifest(self.path, self.columns, self.reading)
        names = table.column("path").to_pylist()
        self.cut_already = audioset.is_list(self.reading)
        if sonyc.is_listing(self.reading, table.column_names):
            return table.set_column(0, "path", pa.array(self._of_sonyc(table), pa.string()))
        if self.cut_already or not any(map(has_ending, names[:100])):
            names = self._found(names, table)
            table = table.set_column(0, "path", pa.array(names, pa.string()))
        return table

    def read(self, path: str) -> Audio:
        return self.audio.read(path)

    def _of_sonyc(self, table: pa.Table) -> list[str]:
        names: list[str] = table.column("path").to_pylist()
        try:
            stems = Stems(self.audio.listing().column("path").to_pylist())
        except SourceError:
            return names
        return sonyc.find(names, table.column(sonyc.SPLIT).to_pylist(), stems, self.reading.notes)

    def _found(self, names: list[str], table: pa.Table) -> list[str]:
        """The files of names without endings; one that there is not gets the ending of the others, and fails."""
        try:
            stems = Stems(self.audio.listing().column("path").to_pylist())
        except SourceError:
            return names
        if self.cut_already:
            start, length = (
                table.column(name).to_numpy() if name in table.column_names else np.zeros(len(names))
                for name in ("start", "duration")
            )
            return audioset.find(names, start.tolist(), (start + length).tolist(), stems, self.reading)
        found = [name if has_ending(name) else stems.find(name) for name in names]
        known = sum(each is not None for each in found)
        if known:
            self.reading.notes.append(f"{known} names without an ending are files of the audio root")
        return [each or name for each, name in zip(found, names, strict=True)]


def table_suffix(path: Path) -> str:
    """The ending that says what a table is, in lower case and without a packer's."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest: by its ending, or a Parquet file that has no column of audio bytes.

    :raises SourceError: a Parquet file that cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        return table_suffix(path) in SUFFIXES
    import pyarrow as pa
    import pyarrow.parquet as pq

    from logitstore.audio.parquet import bytes_columns

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not readable as Parquet: {first_line(error)}") from None
    return not bytes_columns(schema)


def read_manifest(path: Path, columns: ColumnNames | None = None, reading: Reading | None = None) -> pa.Table:
    """The rows of a manifest: ``path`` string, ``start`` and ``duration`` float64 in seconds where there, the others.

    :param columns: which columns say what. :param reading: told how the table was read.
    :raises SourceError: unreadable, empty, without a column of files, a path that leaves the audio root, times that
        cannot be.
    """
    asked, reading = columns or ColumnNames(), Reading() if reading is None else reading
    rows = _read(path, asked, reading)
    reading.notes += rows.notes
    names = rows.table.column_names
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"{path}: the column {name!r} is there twice; rename one")
    found = roles(names, asked, str(path))
    if not rows.table.num_rows:
        raise SourceError(f"{path}: no rows, so there are no clips; a manifest has one row a clip")
    return build_listing(rows, found, path, reading)


def build_listing(rows: Rows, found: Roles, path: Path, reading: Reading) -> pa.Table:
    """A listing of the rows of a table, given which of its columns say what.

    :raises SourceError: a path that leaves the audio root, times that cannot be; the row is named.
    """
    import pyarrow as pa

    table = rows.table
    made = {"path": _paths(rows, found.path)}
    times: dict[str, F64] = {}
    used = {"path": found.path}
    for role in ("start", "end", "duration"):
        column = getattr(found, role)
        values = None if column is None else _seconds(rows, column, role, found)
        if values is not None:
            times[role], used[role] = values, column
        elif column is not None:
            reading.notes.append(f"the column {column!r} is not in seconds, and cuts no file")
    if "start" in found.guessed and len(times) < 2:  # its end is no time, so it may be none either
        times, used = {}, {"path": found.path}
    kept = set(table.column_names) - {column for role, column in used.items() if role != "end"}
    if "end" in times:
        if "duration" not in times:
            kept.discard(used["end"])
        times["duration"] = _durations(rows, times, used)
    for role in ("start", "duration"):
        if role in times:
            made[role] = pa.array(times[role], pa.float64(), from_pandas=True)
    reading.used.update(used)
    others = table.select([name for name in table.column_names if name in kept])
    others = user_columns(others, str(path), reading)
    for name in OWN[1:]:
        if name in others.column_names and name not in made:
            others = others.rename_columns([f"source_{each}" if each == name else each for each in others.column_names])
    return pa.table(made | {name: others.column(name) for name in others.column_names})


def _read(path: Path, asked: ColumnNames, reading: Reading) -> Rows:
    """The rows of a file: text columns as what they are, but those that times may be read from as they stand."""
    suffix = table_suffix(path)
    if path.suffix.lower() == ".parquet":
        rows = rows_of(path)
        known = sonyc.is_annotations(rows.table.column_names)
        return sonyc.one_row_a_clip(sonyc.in_text(rows), str(path), lambda clips: clips.table) if known else rows
    if suffix in JSON_SUFFIXES:
        return read_json(path, reading.ignored)
    rows = read_rows(path, lambda names: has_path(names, asked), "\t" if suffix == ".tsv" else None)
    if sonyc.is_annotations(rows.table.column_names):
        return sonyc.one_row_a_clip(rows, str(path), lambda clips: text_types(clips, asked, str(path)))
    rows.table = audioset.with_lists(text_types(rows, asked, str(path)))
    return rows


def text_types(rows: Rows, asked: ColumnNames, what: str) -> pa.Table:
    """The columns of a text table as what they are; the path stays text."""
    import pyarrow as pa

    names = rows.table.column_names
    if len(set(names)) < len(names):
        return rows.table  # refused by name in a moment
    found = roles(names, asked, what)
    own = found.used().values()  # of these nothing needs to be said: times are read from their texts as well
    return pa.table(
        {
            name: rows.table.column(name)
            if name == found.path
            else typed(rows, name, [] if name in own else rows.notes)
            for name in names
        }
    )


def _paths(rows: Rows, column: str) -> pa.Array:
    import pyarrow as pa

    try:
        values = rows.table.column(column).cast(pa.string())
    except pa.ArrowException:
        kind = rows.table.column(column).type
        raise SourceError(f"{rows.where(0)}: the column {column!r} must hold paths as text; it is {kind}") from None
    keys = []
    for row, key in enumerate(values.to_pylist()):
        normal = normal_path(key) if key is not None else None
        if normal is None:
            raise SourceError(f"{rows.where(row)}: {_blame(key)}; paths are relative to the audio root and stay in it")
        keys.append(normal)
    return pa.array(keys, pa.string())


def _seconds(rows: Rows, column: str, role: str, found: Roles) -> F64 | None:
    """A column of seconds, float64 (n,), NaN where the cell is empty; None if a guessed one is not of numbers."""
    import pyarrow as pa

    cells = rows.table.column(column)
    guessed = role in found.guessed
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        values, wrong = np.full(len(cells), np.nan), None
        for row, text in enumerate(cells.to_pylist()):
            if text is None or not text.strip():
                continue
            number = _number(text)
            if number is None and guessed and np.isnan(values).all():
                return None
            if number is None:
                wrong = row
                break
            values[row] = number
        if wrong is not None:
            raise SourceError(
                f"{rows.where(wrong)}: {column} is {cells[wrong].as_py()!r}; it must be a number of seconds, "
                f"or nothing{_hint(role, {role: column})}"
            )
    elif pa.types.is_boolean(cells.type) or pa.types.is_temporal(cells.type) or pa.types.is_nested(cells.type):
        if guessed:
            return None
        raise SourceError(
            f"{rows.where(0)}: the column {column!r} must be double, in seconds; it is {cells.type}"
            f"{_hint(role, {role: column})}"
        )
    else:
        try:
            values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except pa.ArrowException as error:
            raise SourceError(f"{rows.where(0)}: the column {column!r} must be double: {first_line(error)}") from None
        nan = np.isnan(values) & ~np.asarray(cells.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        values = np.where(nan, np.inf, values)  # a stated NaN is no empty cell
        _refuse(rows, nan, lambda row: f"{column} is nan s; allowed is a number, or nothing")
    lowest, bad = ("0 or more", values < 0) if role == "start" else ("more than 0", values <= 0)
    _refuse(rows, bad | np.isinf(values), lambda row: f"{column} is {values[row]:g} s; allowed is {lowest}, or nothing")
    return values


def _durations(rows: Rows, times: dict[str, F64], used: dict[str, str]) -> F64:
    """Seconds from start to end of every row, float64 (n,), NaN where neither the end nor the duration is said."""
    end = times["end"]
    start = np.nan_to_num(times.get("start", np.zeros(len(end))), nan=0.0)
    length = end - start

    def too_early(row: int) -> str:
        return (
            f"it starts at {start[row]:g} s and ends at {end[row]:g} s; the end must come after the start"
            f"{_hint('end', used)}"
        )

    _refuse(rows, length <= 0, too_early)
    if "duration" not in times:
        return length
    stated = times["duration"]

    def contrary(row: int) -> str:
        return (
            f"{used['end']!r} and {used['duration']!r} contradict each other: from the start to the end it is "
            f"{length[row]:g} s, and the duration is {stated[row]:g} s{_hint('duration', used)}"
        )

    _refuse(rows, np.abs(length - stated) > _SAME, contrary)
    return np.where(np.isnan(stated), length, stated)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if np.isnan(number) or "_" in text else number


def _refuse(rows: Rows, wrong: Bool, blame: Callable[[int], str]) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SourceError(f"{rows.where(row)}: {blame(row)}")


def _hint(role: str, used: dict[str, str]) -> str:
    return f"; if {used[role]!r} is not the {role} of the clip, give --{role}-column another column, or ''"


def _blame(key: str | None) -> str:
    if not key:
        return "the path is empty"
    return f"the path {key!r} is absolute" if key.startswith("/") else f"the path {key!r} leaves the audio root"
