"""What a source of clips is: one small interface (list the audio, read a piece of it), and the rules for its keys."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from logitstore.audio.audiofile import Audio
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of a listing that are not the user's: the key, and what cuts the file, in seconds.
OWN = ("path", "start", "duration")
#: A column of our own beside a listing's; no user's column begins so, for their names are stripped.
ROW = "\nrow"
#: Names that the clip table has for itself.
RESERVED = ("clip", "path", "start", "length", "rate", "failed")


@dataclass
class Reading:
    """What the last listing of a source made of its columns, for the user to read.

    ``used`` maps path, start, end and duration to the user's columns, ``renamed`` a user's column to the name that it
    is kept under, ``ignored`` a column to why. ``notes`` are whole sentences without a full stop.
    """

    used: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ColumnNames:
    """Which columns of a table say what; None: by their usual names, "": none does."""

    path: str | None = None
    start: str | None = None
    end: str | None = None
    duration: str | None = None

    @classmethod
    def of(cls, options: Any) -> ColumnNames:
        """What an object of options says; see :class:`logitstore.options.ColumnOptions`."""
        return cls(options.path_column, options.start_column, options.end_column, options.duration_column)


class Source(Protocol):
    """Where clips come from. Safe to share between threads, across a fork, and to pickle."""

    kind: str
    segmented: bool  # whether the listing's start and duration (s) cut its files

    def listing(self) -> pa.Table:
        """The pieces of audio: column ``path`` (string, the key), ``start`` and ``duration`` (float64 s) where the
        source is segmented, then the user's columns. Any order.

        :raises SourceError: nothing there, or not what it says it is.
        """
        ...

    def read(self, path: str) -> Audio:
        """One piece by its key.

        :raises AudioError: there is no such piece; the message holds no path of the machine.
        """
        ...


def check_columns(names: Iterable[str], what: str, own: Sequence[str] = ()) -> None:
    """Refuse columns of the same name, whatever their case (SQL has none).

    :param own: columns that are the listing's, not the user's.

    :raises SourceError: a name is there twice.
    """
    seen = {name.lower() for name in own}
    for name in names:
        if name in own:
            continue
        lower = name.lower()
        if lower in seen:
            raise SourceError(f"{what}: the column {name!r} is there twice (case does not count in SQL); rename one")
        seen.add(lower)


def kept_names(names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """The names under which columns are kept that are called like one of ``taken``, whatever their case.

    ``class`` becomes ``source_class``, or ``source_class_2`` where that is taken, too. A function of the names alone.

    :param taken: names in lower case.
    """
    found: dict[str, str] = {}
    known = {name.lower() for name in names} | set(taken)
    for name in names:
        if name.lower() in taken:
            new, number = f"source_{name}", 1
            while new.lower() in known:
                number += 1
                new = f"source_{name}_{number}"
            known.add(new.lower())
            found[name] = new
    return found


def kept_name(name: str, names: Sequence[str]) -> str:
    """What a table calls a user's column: itself, or the name that it was kept under."""
    return f"source_{name}" if name not in names and f"source_{name}" in names else name


def user_columns(table: pa.Table, what: str, reading: Reading) -> pa.Table:
    """A user's columns in types that a store can hold; what cannot stand beside a listing's own is renamed.

    16-bit floats become 32-bit ones, views plain text, wide decimals floats; what no store holds is left out, and said.

    :raises SourceError: a name is there twice.
    """
    import pyarrow as pa

    table = table.rename_columns([name.strip() if name[:1] == "\n" else name for name in table.column_names])
    check_columns(table.column_names, what)
    renamed = kept_names(table.column_names, OWN)
    reading.renamed.update(renamed)
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        kind = _storable(column.type)
        if kind is None:
            reading.ignored[name] = str(column.type)
            continue
        try:
            if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
                column = pa.chunked_array([pa.array(column.to_pylist(), kind)])  # Arrow's own cast makes broken lists
            columns[renamed.get(name, name)] = column if kind == column.type else column.cast(kind)
        except pa.ArrowException:
            reading.ignored[name] = str(column.type)
    return pa.table(columns) if columns else table.select([])


def _storable(kind: pa.DataType) -> pa.DataType | None:
    """The type that a store holds a column as; None for none."""
    import pyarrow as pa

    simple = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _storable(kind.storage_type)
    if simple.is_binary(kind) or simple.is_large_binary(kind) or simple.is_binary_view(kind):
        return None
    if simple.is_null(kind) or simple.is_string_view(kind):
        return pa.string()
    if simple.is_float16(kind):
        return pa.float32()
    if simple.is_decimal(kind) and not simple.is_decimal128(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.float64()
    if simple.is_dictionary(kind):
        values = _storable(kind.value_type)
        return None if values is None else kind if values == kind.value_type else values
    if simple.is_struct(kind):
        inner = [(each.name, _storable(each.type)) for each in kind]
        if not inner or any(of is None for _, of in inner):
            return None
        return kind if all(of == each.type for (_, of), each in zip(inner, kind, strict=True)) else pa.struct(inner)
    if simple.is_list_view(kind) or simple.is_large_list_view(kind):
        values = _storable(kind.value_type)
        return None if values is None else pa.list_(values)
    if simple.is_list(kind) or simple.is_large_list(kind) or simple.is_fixed_size_list(kind):
        values = _storable(kind.value_type)
        return None if values is None else kind if values == kind.value_type else pa.list_(values)
    if simple.is_map(kind):
        plain = _storable(kind.key_type) == kind.key_type and _storable(kind.item_type) == kind.item_type
        return kind if plain else None
    return kind


def join_tables(tables: Sequence[pa.Table], what: str) -> pa.Table:
    """Listings one after the other: a column that one lacks is null there, and one of several types is text.

    :raises SourceError: columns that differ by case alone, or whose types have nothing in common.
    """
    import pyarrow as pa

    if len(tables) == 1:
        return tables[0]
    kinds: dict[str, list[pa.DataType]] = {}
    for table in tables:
        for each in table.schema:
            known = kinds.setdefault(each.name, [])
            known += [] if each.type in known else [each.type]
    check_columns(list(kinds), what)
    try:
        for name, types in kinds.items():
            common = _common([kind for kind in types if not pa.types.is_null(kind)])
            if common is not None:
                tables = [_as(table, name, common) for table in tables]
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, OverflowError) as error:
        raise SourceError(f"{what}: the columns do not fit: {first_line(error)}") from None


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType | None:
    """What several types are joined as where Arrow knows no way: text, or lists of text."""
    import pyarrow as pa

    text = [kind for kind in kinds if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    lists = [kind for kind in kinds if pa.types.is_list(kind)]
    if len(kinds) > 1 and lists:
        return pa.list_(pa.string())
    return pa.string() if text and len(kinds) > len(text) else None


def _as(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    import pyarrow as pa

    at = table.schema.get_field_index(name)
    if at < 0 or table.schema.field(at).type == kind:
        return table
    column = table.column(at)
    if pa.types.is_list(kind) and not pa.types.is_list(column.type):
        text = column.cast(pa.string()).to_pylist()
        return table.set_column(at, name, pa.array([None if each is None else [each] for each in text], kind))
    return table.set_column(at, name, column.cast(kind))


def text_key(key: str, what: str) -> str:
    """Check that a key is valid UTF-8, and give it back.

    :raises SourceError: it is not.
    """
    try:
        key.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{what}: the name {key!r} is not UTF-8; rename it") from None
    return key


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def normal_path(path: str) -> str | None:
    """The path without '.', '//' and inner '..'; None if it is absolute, empty, or leaves the folder it starts in.

    Lexical: a symbolic link below the root is its owner's business and is followed.
    """
    if not path or path.startswith("/") or "\0" in path or os.path.splitdrive(path)[0]:
        return None
    normal = posixpath.normpath(path)
    return None if normal in (".", "..") or normal.startswith("../") else normal
