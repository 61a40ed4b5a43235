"""Mutations of files that a stranger might send: JSON by its structure, bytes, Parquet, kinds of files. Seeded.

A mutation is a function of its seed and of the files alone, so that one that finds a fault is replayed from its number.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: What stands where something else is expected.
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 2**70,
           -(2**31), -(2**63), 10**30, -(10**30), 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"))  # fmt: skip
TEXTS = ("", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a\0b", "a\nb", "\x1b[2J", "\\", "x" * 5000,
         "é", "\ud800", "NaN", "0", "-1", "1e400", "=1+1", "blocks/000000-0-1", "clips/00000.parquet", "zarr.json",
         "*", "%s{0}")  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"x": {}}, [0] * 2000)


@dataclass(frozen=True)
class Special:
    """What lies where a file should: a "fifo", "folder", "link" to a target, or a file with a "hole" of a terabyte."""

    kind: str
    target: str = ""


#: What becomes of some files: bytes, something else, or None where one is removed.
Changes = dict[str, "bytes | Special | None"]


def value(chance: random.Random) -> Any:
    """A JSON value as nobody should write it."""
    return copy.deepcopy(chance.choice(chance.choice((NUMBERS, NUMBERS, TEXTS, OTHERS))))


def _places(document: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    found = [] if found is None else found
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, inner in list(items):
        found.append((document, key))
        if isinstance(inner, dict | list):
            _places(inner, found)
    return found


def change_json(chance: random.Random, document: Any) -> Any:
    """A JSON document (an object or a list) with one to three places of it otherwise."""
    document = json.loads(json.dumps(document))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = _places(document)
        if not places:
            return value(chance)
        container, key = chance.choice(places)
        how = chance.randrange(8)
        if how < 4:
            container[key] = value(chance)
        elif how == 4:
            del container[key]
        elif how == 5:
            other, name = chance.choice(places)
            with_other = other[name] if name in other or (isinstance(other, list) and name < len(other)) else None
            container[key] = json.loads(json.dumps(with_other))
        elif how == 6 and isinstance(container, dict):
            container[chance.choice(TEXTS)] = container.pop(key)
        elif isinstance(container[key], int) and not isinstance(container[key], bool):
            container[key] += chance.choice((-1, 1, 2, 100, -100, 10**6))
        else:
            container[key] = [container[key]] * chance.choice((1, 2, 3))
    return document


def json_text(chance: random.Random, document: Any) -> bytes:
    """A changed document as bytes; now and then one that no parser likes."""
    odd = chance.randrange(40)
    if odd == 0:
        depth = chance.choice((50, 990, 5000, 100_000))
        return b"[" * depth + b"]" * depth
    if odd == 1:
        return b'{"a":' * 3000 + b"1" + b"}" * 3000
    if odd == 2:
        return chance.choice((b"", b"null", b"[]", b"{}", b"1", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"9" * 6000))
    text = json.dumps(change_json(chance, document), separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def change_bytes(chance: random.Random, content: bytes) -> bytes:
    """Bytes with some of them changed, cut off, taken out, doubled or put in."""
    at = chance.randrange(len(content)) if content else 0
    how = chance.randrange(6)
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + content[at + chance.randint(1, 64) :]
    if how == 2:
        return content[:at] + content[max(0, at - 40) :]
    if how == 3:
        return (
            content[:at]
            + chance.choice((b"\0" * 8, b"\xff" * 8, b"\x80\x80\x80\x80\x7f", b"\x7f" * 4))
            + content[at + 8 :]
        )
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def change_parquet(chance: random.Random, content: bytes) -> bytes:
    """A Parquet file with other values, columns, types or encodings, or with other bytes in it."""
    if chance.randrange(3) == 0:
        return change_bytes(chance, content)
    table = pq.read_table(pa.BufferReader(content))
    for _ in range(chance.choice((1, 1, 2))):
        table = chance.choice(_OF_TABLES)(chance, table)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression=chance.choice(("zstd", "none", "snappy")),
        row_group_size=chance.choice((1, 3, 1 << 17)), use_dictionary=chance.random() < 0.7,
        store_schema=chance.random() < 0.7, data_page_version=chance.choice(("1.0", "2.0")),
        write_statistics=chance.random() < 0.5,
    )  # fmt: skip
    return bytes(sink.getvalue().to_pybytes())


def _column(chance: random.Random, table: pa.Table) -> pa.Table:
    number, rows = chance.randrange(max(1, table.num_columns)), table.num_rows
    made: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(rows, pa.int64()),
        lambda: pa.nulls(rows),
        lambda: pa.array([chance.choice((-1, 0, 2**40, 2**62, 2**63 - 1, -(2**63)))] * rows, pa.int64()),
        lambda: pa.array([chance.choice((-1, 0, 2**31 - 1))] * rows, pa.int32()),
        lambda: pa.array([chance.choice(("", "..", "/etc/passwd", "../x", "a\0b", "x" * 10_000, "a\n\x1b[2J"))] * rows),
        lambda: pa.array([b"\xff\xfe"] * rows).view(pa.string()),
        lambda: pa.array([1.5, float("nan")] * rows)[:rows],
        lambda: pa.array([["a"]] * rows),
        lambda: pa.array([{"a": 1}] * rows),
        lambda: pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 1000])),
    ]
    if not table.num_columns:
        return table
    return table.set_column(number, table.column_names[number], chance.choice(made)())


def _more_rows(chance: random.Random, table: pa.Table) -> pa.Table:
    return pa.concat_tables([table] * chance.choice((2, 5, 3000)))


def _renamed(chance: random.Random, table: pa.Table) -> pa.Table:
    names = [
        name if chance.random() < 0.7 else chance.choice(("path", "clip", "Path", "", "length", "a\nb"))
        for name in table.column_names
    ]
    return table.rename_columns(names)


def _fewer(chance: random.Random, table: pa.Table) -> pa.Table:
    """Columns in another order, or one less."""
    order = chance.sample(range(table.num_columns), table.num_columns)
    return table.select(order[chance.randrange(2) :]) if table.num_columns > 1 else table


def _wider(chance: random.Random, table: pa.Table) -> pa.Table:
    return table.append_column(chance.choice(("more", "path", "clip")), pa.array(["x"] * table.num_rows))


_OF_TABLES: tuple[Callable[[random.Random, pa.Table], pa.Table], ...] = (
    _column,
    _column,
    _column,
    _more_rows,
    _renamed,
    lambda chance, table: table.slice(chance.randrange(table.num_rows + 1), chance.choice((0, 1, 3))),
    _fewer,
    _wider,
)  # fmt: skip


def special(chance: random.Random) -> Special:
    """Something that is no plain file."""
    kind = chance.choice(("fifo", "folder", "link", "link", "hole"))
    return Special(kind, chance.choice((".", "..", "/etc/passwd", "/dev/zero", "nowhere", "zarr.json", "/")))


def apply(folder: Path, changes: Mapping[str, bytes | Special | None]) -> None:
    """Make changes to the files of a folder."""
    for name, content in changes.items():
        path = folder / name
        _remove(path)
        if content is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.kind == "fifo":
            os.mkfifo(path)
        elif content.kind == "folder":
            path.mkdir()
        elif content.kind == "link":
            path.symlink_to(content.target or path.name)
        else:
            with path.open("wb") as file:
                file.truncate(1 << 40)


def restore(folder: Path, originals: Mapping[str, bytes], changes: Mapping[str, object]) -> None:
    """Undo changes to a folder whose files were these."""
    for name in changes:
        _remove(folder / name)
        for parent in (folder / name).parents:
            if parent == folder or parent.is_symlink() or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()
    for name in changes:
        for known, content in originals.items():
            if known == name or known.startswith(f"{name}/"):
                (folder / known).parent.mkdir(parents=True, exist_ok=True)
                (folder / known).write_bytes(content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
