"""Manifests: tables that name audio files, and may cut them and say more about them.

``path`` is relative to the audio root. ``start`` and ``duration``, both optional, are in seconds. Every other column
is carried into the clip table with its type.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from logitstore.audio.audiofile import Audio
from logitstore.audio.source import Source, check_columns, first_line, normal_path
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

#: Endings of the files that are manifests whatever they hold.
SUFFIXES = (".csv", ".tsv")
OWN = ("path", "start", "duration")


class ManifestSource:
    """Rows of a table that name audio below a root."""

    kind = "manifest"
    segmented = True

    def __init__(self, path: Path, audio: Source) -> None:
        self.path = path
        self.audio = audio

    def listing(self) -> pa.Table:
        return read_manifest(self.path)

    def read(self, path: str) -> Audio:
        return self.audio.read(path)


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest: by its ending, or a Parquet file that has no column of audio bytes.

    :raises SourceError: a Parquet file that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix != ".parquet":
        return suffix in SUFFIXES
    import pyarrow as pa
    import pyarrow.parquet as pq

    from logitstore.audio.parquet import bytes_columns

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not readable as Parquet: {first_line(error)}") from None
    return not bytes_columns(schema)


def read_manifest(path: Path) -> pa.Table:
    """The rows of a manifest: ``path`` string, ``start`` and ``duration`` float64 in seconds where there, the others.

    :raises SourceError: unreadable, empty, without ``path``, a path that leaves the audio root, times that cannot be.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _read(path)
    try:
        table = table.rename_columns([name.strip() for name in table.column_names])
    except UnicodeDecodeError:
        raise SourceError(f"{path}: the names of its columns are not UTF-8; save the manifest as UTF-8") from None
    if "path" not in table.column_names:
        raise SourceError(
            f"{path}: no column 'path'; found {', '.join(map(repr, table.column_names)) or 'none'}; "
            "name the column of audio paths, relative to --audio-root, 'path'"
        )
    for name in OWN:
        if table.column_names.count(name) > 1:
            raise SourceError(f"{path}: the column {name!r} is there twice; rename one")
    check_columns(table.column_names, str(path), OWN)
    if not table.num_rows:
        raise SourceError(f"{path}: no rows, so there are no clips; a manifest has one row a clip")
    table = _cast(table, "path", pa.string(), path)
    keys = []
    for row, key in enumerate(table.column("path").to_pylist()):
        normal = normal_path(key) if key is not None else None
        if normal is None:
            raise SourceError(
                f"{_place(path, row)}: {_blame(key)}; paths are relative to the audio root and stay in it"
            )
        keys.append(normal)
    table = table.set_column(table.schema.get_field_index("path"), "path", pa.array(keys, pa.string()))
    for name, lowest in (("start", "0 or more"), ("duration", "more than 0")):
        if name not in table.column_names:
            continue
        table = _cast(table, name, pa.float64(), path)
        values = pc.fill_null(table.column(name), 1.0).to_numpy()
        wrong = ~np.isfinite(values) | (values < 0 if name == "start" else values <= 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise SourceError(f"{_place(path, row)}: {name} is {values[row]:g} s; allowed is {lowest}, or nothing")
    for index, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) and path.suffix.lower() != ".parquet":
            raise SourceError(f"{path}: the column {field.name!r} is not UTF-8; save the manifest as UTF-8")
        if pa.types.is_null(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
    own = [name for name in OWN if name in table.column_names]
    return table.select(own + [name for name in table.column_names if name not in own])


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        # one block: types are inferred from all rows, not from the first megabyte
        block = min(max(path.stat().st_size + 1, 1 << 16), (1 << 31) - 1)
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=block),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={"path": pa.string(), "start": pa.float64(), "duration": pa.float64()}
            ),
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = first_line(error).removesuffix(".")
        raise SourceError(f"{path}: not readable as a {path.suffix.lower()[1:]} manifest: {reason}") from None


def _cast(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        column = table.column(name).cast(kind)
    except pa.ArrowException as error:
        raise SourceError(f"{path}: the column {name!r} must be {kind}: {first_line(error)}") from None
    return table.set_column(table.schema.get_field_index(name), name, column)


def _place(path: Path, row: int) -> str:
    return f"{path}, row {row + 1}" if path.suffix.lower() == ".parquet" else f"{path}, line {row + 2}"


def _blame(key: str | None) -> str:
    if not key:
        return "the path is empty"
    return f"the path {key!r} is absolute" if key.startswith("/") else f"the path {key!r} leaves the audio root"
