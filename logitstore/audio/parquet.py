"""Parquet with audio bytes, as on the Hugging Face hub: the key is shard/row.

Rows keep their order in the sorted keys, so a build decodes each row group once.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.audio import packed
from logitstore.audio.audiofile import Audio, InMemory
from logitstore.audio.classlabel import with_names
from logitstore.audio.delimited import Rows
from logitstore.audio.source import check_columns, first_line, user_columns
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP_BYTES = 256 << 20
_row_groups: OrderedDict[tuple[tuple[Path, int, int, int], int], Any] = OrderedDict()


def bytes_columns(schema: pa.Schema) -> list[str]:
    """Columns that can hold audio: structs with a binary field ``bytes``, or, where there is none, binary columns."""
    import pyarrow as pa

    structs = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and any(inner.name == "bytes" and is_binary(inner.type) for inner in field.type)
    ]
    return structs or [field.name for field in schema if is_binary(field.type)]


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type is of bytes of any length."""
    import pyarrow as pa

    return any(each(kind) for each in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


class ParquetSource(packed.Packed):
    """Parquet with encoded audio in a struct column {bytes, path} or a binary column.

    The key of a row is its number, nine digits. The name of the audio, from a string column ``path`` or the struct's
    own ``path``, becomes the column ``<column>_path``; other columns are carried, except binary ones.
    Random reads decode a whole row group, of which the last 256 MiB are kept: write small row groups.
    """

    kind = "parquet"
    suffixes = (".parquet",)

    def _list(self, name: str) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.root / name
        try:
            schema = pq.read_schema(file)
            check_columns(schema.names, str(file))
            column = _audio_column(schema, file)
            kind = schema.field(column).type
            named = f"{column}_path"
            inner = pa.types.is_struct(kind) and any(field.name == "path" for field in kind)
            others = [other for other in schema.names if other not in (column, *bytes_columns(schema))]
            left = {each.name: str(each.type) for each in schema if each.name in others and is_binary(each.type)}
            self.reading.ignored.update({each: str(schema.field(each).type) for each in bytes_columns(schema)} | left)
            self.reading.ignored.pop(column, None)
            others = [other for other in others if other not in left]
            table = whole_table(file, others)
            if "path" in others:
                names = table.column("path")
                table = table.drop_columns(["path"])
            elif inner:
                names = _inner_paths(file, column)
            else:
                names = None
            rows = pq.read_metadata(file).num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{file}: not readable as Parquet: {first_line(error)}") from None
        keys = pa.array([f"{name}/{row:09d}" for row in range(rows)], pa.string())
        table = user_columns(with_names(table, str(file)), str(file), self.reading)
        self.reading.used["audio"] = column
        if names is not None and named not in table.column_names:
            table = table.append_column(named, names)
        return pa.table([keys, *table.columns], names=["path", *table.column_names])

    def read(self, path: str) -> Audio:
        import pyarrow as pa

        name, row = self._split(path)
        if not row.isdecimal():
            raise AudioError("no such row in the Parquet file")
        try:
            value = _parquet_value(self.root / name, int(row))
        except (pa.ArrowException, OSError):
            raise AudioError("the Parquet file cannot be read at this row") from None
        except SourceError:
            raise AudioError("the Parquet file has no column of audio bytes") from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise AudioError("empty: the row has no audio bytes")
        return InMemory(content)


def whole_table(file: Path, columns: list[str] | None = None) -> pa.Table:
    """The columns of a Parquet file, all of them by default, and every text in them valid UTF-8.

    :raises pa.ArrowException, OSError, UnicodeDecodeError: it cannot be read, or claims more than is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=columns)
    table.validate(full=True)
    if len({*table.column_names}) and table.num_rows != pq.read_metadata(file).num_rows:
        raise pa.ArrowInvalid(f"it says that it has {pq.read_metadata(file).num_rows} rows, and has {table.num_rows}")
    return table


def rows_of(path: Path) -> Rows:
    """The rows of a Parquet file that is a table, its columns of the types that they have.

    :raises SourceError: it cannot be read.
    """
    import pyarrow as pa

    try:
        table = with_names(whole_table(path), str(path))
        table = table.rename_columns([name.strip() for name in table.column_names])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = first_line(error).removesuffix(".")
        raise SourceError(f"{path}: not readable as a parquet manifest: {reason}") from None
    return Rows(table, lambda row: f"{path}, row {row + 1}")


def _inner_paths(file: Path, column: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        structs = parquet.read(columns=[f"{column}.path"]).column(column)
    return pa.chunked_array([chunk.field("path").cast(pa.string()) for chunk in structs.chunks], pa.string())


def _audio_column(schema: pa.Schema, file: Path) -> str:
    names = bytes_columns(schema)
    if "audio" in names or len(names) == 1:
        return "audio" if "audio" in names else names[0]
    if not names:
        raise SourceError(f"{file}: no column of audio bytes; found {', '.join(schema.names)}")
    raise SourceError(f"{file}: several columns of bytes ({', '.join(names)}); name the one with the audio 'audio'")


def _parquet_value(file: Path, row: int) -> Any:
    import pyarrow.parquet as pq

    found = file.stat()
    identity = (file, found.st_ino, found.st_size, found.st_mtime_ns)  # what is replaced meanwhile is read anew
    with packed.lock:
        parquet = pq.ParquetFile(file)
        with parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if row < rows:
                    break
                row -= rows
            else:
                raise AudioError("no such row in the Parquet file")
            if (identity, group) not in _row_groups:
                column = _audio_column(parquet.schema_arrow, file)
                table = parquet.read_row_group(group, columns=[column], use_threads=False)
                table.validate(full=True)
                if table.num_rows != rows:
                    raise AudioError(f"the Parquet file holds {table.num_rows} rows where it says {rows}")
                _row_groups[identity, group] = table.column(0)
                while len(_row_groups) > 1 and sum(kept.nbytes for kept in _row_groups.values()) > _ROW_GROUP_BYTES:
                    _row_groups.popitem(last=False)
            _row_groups.move_to_end((identity, group))
            return _row_groups[identity, group][row].as_py()
