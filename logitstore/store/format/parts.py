"""The parts of a store's clip table: files of clips, each appended once, each with shards of its own.

A clip is known by its key (path, start, length), which a store holds once. A part is found again by its clips: a
source that gives them goes on with it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from logitstore.arrays import I64
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, MismatchError, StoreError
from logitstore.store.format.room import Source, open_parquet, require_room
from logitstore.store.names import CLIPS, part_name, part_number, shown
from logitstore.store.storage import LocalStorage, Storage

KEY = ("path", "start", "length")
#: The columns that every clip table has, and their types.
COLUMNS = {"path": "string", "start": "int64", "length": "int64", "rate": "int32"}
#: Of a length: what it comes to at another rate is then a number of 64 bits.
MOST_FRAMES = 1 << 37
_FORMER_NULLS = ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA",
                 "NULL", "NaN", "n/a", "nan", "null")  # fmt: skip
_SOME = 3  # how many examples an error shows


@dataclass(frozen=True)
class Part:
    """One file of the clip table, and where its rows and shards start."""

    name: str
    digest: str
    table: pa.Table
    first_clip: int
    first_shard: int

    def shards(self, shard_clips: int) -> range:
        """The numbers of its shards."""
        return range(self.first_shard, self.first_shard - (-int(self.table.num_rows) // shard_clips))

    def clips_of(self, shard: int, shard_clips: int) -> range:
        """The clips of one of its shards."""
        start = (shard - self.first_shard) * shard_clips
        stop = min(start + shard_clips, int(self.table.num_rows))
        return range(self.first_clip + start, self.first_clip + stop)


def part_names(storage: Storage) -> list[str]:
    """The names of a store's parts in their order; what else lies among them is none.

    :raises CorruptStoreError: one is missing between others.
    """
    names = [name for name in storage.names(CLIPS) if part_number(name) is not None]
    for number, name in enumerate(names):
        if part_number(name) != number:
            raise CorruptStoreError(f"{storage.location}: {part_name(number)} is missing; restore it")
    return names


def read_parts(storage: Storage, shard_clips: int) -> tuple[Part, ...]:
    """The parts of a store in their order.

    :raises CorruptStoreError: a part is missing or damaged.
    """
    parts: list[Part] = []
    for name in part_names(storage):
        content = storage.get(name)
        table = read_columns(storage, name, open_part(storage, name, content), content=content)
        parts.append(next_part(parts, table, digest(content), shard_clips))
    return tuple(parts)


def open_part(storage: Storage, name: str, content: bytes | None = None) -> pq.ParquetFile:
    """A part of the clip table as a Parquet file; only its end is read.

    :param content: its bytes, where they are known; of a folder they need not be.
    :raises CorruptStoreError: it is damaged.
    """
    source = _source(storage, name, content)
    with damage(storage, name):
        file = open_parquet(source)
        _require_schema(file.schema_arrow)
    return file


def _source(storage: Storage, name: str, content: bytes | None) -> Source:
    if content is None and isinstance(storage, LocalStorage):
        return storage.file(name)
    return storage.get(name) if content is None else content


def _require_schema(schema: pa.Schema) -> None:
    """:raises ValueError: it is not that of a clip table."""
    found = {field.name: str(field.type) for field in schema}
    wrong = [f"{name} is {found.get(name, 'missing')}" for name, kind in COLUMNS.items() if found.get(name) != kind]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}, not {', '.join(map(' '.join, COLUMNS.items()))}")
    if len(found) != len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise ValueError(f"it has the column {shown(twice)} twice")


def read_columns(
    storage: Storage,
    name: str,
    file: pq.ParquetFile,
    columns: Sequence[str] | None = None,
    *,
    content: bytes | None = None,
    group: int | None = None,
) -> pa.Table:
    """Some columns of a part, all by default; of one of its groups of rows where it is given.

    :param content: its bytes, where they are known; of a folder they need not be.
    :raises CorruptStoreError: it is damaged, would take more memory than it may, or holds what no clip has.
    """
    source = _source(storage, name, content)
    with damage(storage, name):
        groups = None if group is None else [group]
        require_room(source, file, columns, groups)
        if group is None:
            table = file.read(columns=columns)
        else:
            table = file.read_row_group(group, columns=columns, use_threads=False)
        rows = file.metadata.num_rows if group is None else file.metadata.row_group(group).num_rows
        if table.num_rows != rows:
            raise ValueError(f"it has {table.num_rows:,} rows, and says {rows:,}")
        check_clips(table)
    return table


def check_clips(table: pa.Table) -> None:
    """Refuse values that no clip has: nulls, negative or endless lengths, texts that are not UTF-8.

    :raises ValueError, ArrowInvalid: there is one.
    """
    table.validate(full=True)
    for name in COLUMNS:
        if name not in table.column_names:
            continue
        if table[name].null_count:
            raise ValueError(f"a {name} is null")
        if name != "path" and table.num_rows:
            least, most = pc.min_max(table[name]).as_py().values()
            if least < 0 or (name == "length" and most > MOST_FRAMES):
                raise ValueError(f"a {name} is {least if least < 0 else most}, which no clip has")


@contextlib.contextmanager
def damage(storage: Storage, name: str) -> Iterator[None]:
    """Around the reading of a part: what Arrow cannot read is damage, and is said so."""
    try:
        yield
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise CorruptStoreError(f"{storage.location}: {name} is damaged ({reason}); restore it") from error


def next_part(parts: Sequence[Part], table: pa.Table, table_digest: str, shard_clips: int) -> Part:
    """The part that follows the others."""
    clips = sum(int(part.table.num_rows) for part in parts)
    shards = parts[-1].shards(shard_clips).stop if parts else 0
    return Part(part_name(len(parts)), table_digest, table, clips, shards)


def encode_clips(table: pa.Table) -> bytes:
    """A part of the clip table as Parquet bytes, a function of the table alone."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, row_group_size=1 << 17, write_statistics=True
    )  # fmt: skip
    return bytes(sink.getvalue().to_pybytes())


def parts_of_source(parts: Sequence[Part], scanned: pa.Table, location: str) -> tuple[Part, ...]:
    """The parts whose clips a source gives: at least one of them, and nothing else.

    :raises MismatchError: it gives clips that the store lacks, or a part's clips otherwise than they are stored.
    """
    scanned = _under_stored_names(parts, scanned)
    if len(parts) == 1:
        require_same_clips(parts[0].table, scanned, location)
        return tuple(parts)
    by_key, by_path = _assigned(parts, scanned)
    home = np.where(by_key >= 0, by_key, by_path)
    new = np.flatnonzero((home < 0) & (_lengths(scanned) > 0))
    if len(new):
        raise MismatchError(
            f"{len(new)} clips of the source are not in {location} ({_examples(scanned, new)}); add them with: "
            "logitstore extend --skip-known, or give the source that the store was made from"
        )
    found = []
    for number, part in enumerate(parts):
        if (by_key == number).any():
            require_same_clips(part.table, scanned.filter(pa.array(home == number)), location)
            found.append(part)
    if not found:
        raise MismatchError(f"the source gives none of the clips of {location}; give the source that it was made from")
    return tuple(found)


def plan_extension(
    parts: Sequence[Part], scanned: pa.Table, location: str, skip_known: bool
) -> tuple[tuple[Part, ...], pa.Table | None]:
    """What a source adds to a store: the parts, beyond the first, that it goes on with, and the clips of a new one.

    :param skip_known: leave out clips that the store has, instead of refusing them.
    :raises MismatchError: without ``skip_known``, clips that the store has; or columns that do not fit the store's.
    """
    scanned = _under_stored_names(parts, scanned)
    by_key, by_path = _assigned(parts, scanned)
    known = (by_key >= 0) | ((_lengths(scanned) == 0) & (by_path >= 0))
    own = []
    for number, part in enumerate(parts[1:], start=1):
        matched = int((by_key == number).sum())
        alone = matched == int((by_key >= 0).sum()) and bool(known.all())
        if matched and (matched == part.table.num_rows if skip_known else alone):
            own.append(part)
    if not skip_known and known.any():
        if len(own) == 1:
            require_same_clips(own[0].table, scanned, location)
            return tuple(own), None
        raise MismatchError(
            f"{int(known.sum())} of {len(known)} clips of the source are already in {location} "
            f"({_examples(scanned, np.flatnonzero(known))}); give --skip-known to add only the others"
        )
    if known.all():
        return tuple(own), None
    fresh = scanned.filter(pa.array(~known))
    _require_columns(parts, fresh, location)
    return tuple(own), fresh


def require_same_clips(stored: pa.Table, scanned: pa.Table, location: str) -> None:
    """Refuse clips other than the store's. A clip that has since gone is no difference: it fails when it is decoded.

    :raises MismatchError: naming the first clips or columns that differ.
    """
    if stored.column_names != scanned.column_names:
        raise MismatchError(
            f"the clips of {location} have the columns {', '.join(stored.column_names)}, the source now gives "
            f"{', '.join(scanned.column_names)}; give the source that the store was made from, or another --out"
        )
    if _equal(stored, scanned):
        return
    old = set(zip(*(stored[name].to_pylist() for name in KEY), strict=True))
    new = set(zip(*(scanned[name].to_pylist() for name in KEY), strict=True))
    gone_paths = {path for path, _, _ in old} - {path for path, _, _ in new}
    unreadable = {path for path, _, length in new if not length}
    extra = sorted(key for key in new - old if key[2])
    changed = sorted(key for key in old - new if key[0] not in gone_paths | unreadable)
    if extra or changed:
        examples = ", ".join(f"{path} at {start}+{length}" for path, start, length in (extra or changed)[:_SOME])
        raise MismatchError(
            f"the source is not the one that {location} was made from: {len(extra)} clips are new and {len(changed)} "
            f"are not as they were (as {examples}); give the same source, or another --out"
        )
    if old == new:
        was, now = (
            dict(zip(table["path"].to_pylist(), table["rate"].to_pylist(), strict=True)) for table in (stored, scanned)
        )
        other = sorted(path for path, rate in was.items() if now[path] != rate)
        if other:
            raise MismatchError(
                f"the source is not the one that {location} was made from: {other[0]} was at {was[other[0]]} Hz and is "
                f"at {now[other[0]]} Hz ({len(other)} such files); give the same source, or another --out"
            )
        raise MismatchError(
            f"the clips of {location} are the same and their other columns differ; give the manifest that the store "
            "was made from, or another --out"
        )


def _equal(stored: pa.Table, scanned: pa.Table) -> bool:
    return stored.num_rows == scanned.num_rows and all(
        _same_column(stored[name].combine_chunks(), scanned[name].combine_chunks()) for name in stored.column_names
    )


def _same_column(stored: pa.Array, scanned: pa.Array) -> bool:
    """Whether two columns say the same; a store may be older than the rule that text stays text.

    Then "007" was stored as 7, "NA" as null, and a ClassLabel as its number.
    """
    if stored.equals(scanned):
        return True
    if stored.type == scanned.type:
        if not pa.types.is_floating(stored.type):
            return False
        pairs = [
            (pc.is_null(each), pc.fill_null(pc.if_else(pc.is_nan(each), None, each), 0)) for each in (stored, scanned)
        ]
        return bool(pairs[0][0].equals(pairs[1][0]) and pairs[0][1].equals(pairs[1][1]))  # NaN is NaN here
    text = scanned
    if pa.types.is_string(scanned.type) and not _is_text(stored.type):
        text = pc.if_else(pc.is_in(scanned, value_set=pa.array(_FORMER_NULLS)), pa.scalar(None, pa.string()), scanned)
    for one, other, kind in ((stored, text, stored.type), (text, stored, scanned.type)):
        with contextlib.suppress(pa.ArrowException):
            if one.equals(other.cast(kind)):
                return True
    values = stored.type.value_type if pa.types.is_nested(stored.type) and not pa.types.is_struct(stored.type) else None
    if not pa.types.is_integer(stored.type if values is None else values):
        return False
    return _are_names(stored.to_pylist(), scanned.to_pylist())


def _are_names(numbers: Sequence[Any], names: Sequence[Any]) -> bool:
    """Whether texts, or lists of them, can be the names of a ClassLabel's numbers: each of one, and none of -1."""
    name_of: dict[int, str] = {}
    for stored, scanned in zip(numbers, names, strict=True):
        several = isinstance(stored, list)
        given = [number for number in (stored if several else [stored]) if number is not None and number >= 0]
        called = [name for name in (scanned if isinstance(scanned, list) else [scanned]) if name is not None]
        if len(given) != len(called) or any(name_of.setdefault(n, c) != c for n, c in zip(given, called, strict=True)):
            return False
    return len(set(name_of.values())) == len(name_of)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _under_stored_names(parts: Sequence[Part], scanned: pa.Table) -> pa.Table:
    """A scanned table whose renamed columns have the names that an older store kept them under."""
    stored = {name for part in parts for name in part.table.column_names}
    names = []
    for name in scanned.column_names:
        former = name.removeprefix("source_") if name.startswith("source_") else ""
        renamed = former != "" or re.fullmatch(r"column_\d+", name)
        names.append(former if renamed and name not in stored and former in stored else name)
    return scanned.rename_columns(names)


def _assigned(parts: Sequence[Part], scanned: pa.Table) -> tuple[I64, I64]:
    """For every scanned clip the part that has its key, and one that has its path; -1 where there is none.

    Clips of paths that were not scanned are left out first: a store that grows by new files is gone through once.
    """
    wanted = pc.unique(scanned["path"])
    known = [part.table.select(KEY).filter(pc.is_in(part.table["path"], value_set=wanted)) for part in parts]
    keys = pa.concat_tables(
        [table.append_column("part", pa.array(np.full(table.num_rows, number))) for number, table in enumerate(known)]
    )
    paths = keys.group_by("path").aggregate([("part", "min")]).rename_columns(["path", "part"])
    return _look_up(scanned, keys, KEY), _look_up(scanned, paths, ("path",))


def _look_up(scanned: pa.Table, known: pa.Table, key: Sequence[str]) -> I64:
    left = scanned.select(key).append_column("row", pa.array(np.arange(scanned.num_rows)))
    joined = left.join(known.select([*key, "part"]), list(key), join_type="inner")
    found = np.full(scanned.num_rows, -1, dtype=np.int64)
    found[joined["row"].to_numpy()] = joined["part"].to_numpy()
    return found


def _require_columns(parts: Sequence[Part], fresh: pa.Table, location: str) -> None:
    """Refuse columns that cannot stand in one table with the store's: other types, or names that differ by case."""
    stored = pa.unify_schemas([part.table.schema for part in parts], promote_options="default")
    names = {name.lower(): name for name in stored.names}
    for field in fresh.schema:
        name = names.get(field.name.lower(), field.name)
        if name != field.name:
            raise MismatchError(
                f"the source has a column {field.name!r} and {location} a column {name!r}, which SQL cannot tell "
                "apart; rename the source's"
            )
        if name not in stored.names:
            continue
        kind = stored.field(name).type
        if field.type != kind and not pa.types.is_null(field.type) and not pa.types.is_null(kind):
            raise MismatchError(
                f"the column {name!r} is {field.type} in the source and {kind} in {location}; give it as {kind}"
            )


def _lengths(table: pa.Table) -> I64:
    return np.asarray(table["length"].to_numpy(), dtype=np.int64)


def _examples(table: pa.Table, rows: I64) -> str:
    chosen = table.select(KEY).take(pa.array(rows[:_SOME])).to_pylist()
    shown = ", ".join(f"{clip['path']} at {clip['start']}+{clip['length']}" for clip in chosen)
    return shown + (", …" if len(rows) > _SOME else "")
