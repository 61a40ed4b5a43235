"""Packed audio: what tar shards, Parquet with audio bytes, and HDF5 share.

Each kind is a file of this package with a subclass of :class:`Packed`, which registers itself by its files' endings.
Nothing is unpacked to disk. A key is the packed file's path below the root, '/', and the piece's name in it.
Sources hold no handles and no locks, so they may be pickled and forked; what is open or cached belongs to the modules.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from logitstore.arrays import I64
from logitstore.audio.audiofile import Audio
from logitstore.audio.source import Reading, join_tables
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa


#: Guards every index, cache and handle of packed files; used as ``packed.lock``, because a fork renews it.
lock = threading.RLock()


def _after_fork() -> None:
    global lock
    lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


#: The kinds of packed audio by the endings of their files; :mod:`logitstore.audio.sources` loads them all.
KINDS: dict[str, type[Packed]] = {}


_SCALARS = (str, int, float, bool)


@dataclass(frozen=True)
class Index:
    """Names of one packed file, sorted, and an offset and a size each; some 40 bytes a name."""

    names: Any  # pa.Array of strings
    offsets: I64
    sizes: I64

    @classmethod
    def of(cls, names: list[str], offsets: list[int], sizes: list[int]) -> Index:
        import pyarrow as pa

        order = sorted(range(len(names)), key=names.__getitem__)
        picked = np.array(order, dtype=np.int64)
        values = np.array([offsets, sizes], dtype=np.int64).reshape(2, -1)[:, picked]
        return cls(pa.array([names[i] for i in order], pa.large_string()), values[0], values[1])

    def find(self, name: str) -> tuple[int, int] | None:
        row = bisect_left(range(len(self.names)), name, key=lambda i: self.names[i].as_py())
        if row == len(self.names) or self.names[row].as_py() != name:
            return None
        return int(self.offsets[row]), int(self.sizes[row])


class Packed(ABC):
    """What the kinds share: files below a root, and keys that begin with one of their names.

    :param root: the folder that the keys start from. :param names: of the packed files, sorted, relative to it.
    """

    kind: str
    suffixes: ClassVar[tuple[str, ...]]
    segmented = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        KINDS.update(dict.fromkeys(cls.suffixes, cls))

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self.root = root
        self.names = names
        self._known = frozenset(names)
        self._indexes: dict[str, Index] = {}
        self.reading = Reading()

    def listing(self) -> pa.Table:
        self.reading = Reading()
        tables = [table for name in self.names if (table := self._list(name)).num_rows]
        if not tables:
            raise SourceError(f"{self.root}: no audio found in {len(self.names)} packed files, such as {self.names[0]}")
        return join_tables(tables, str(self.root))

    @abstractmethod
    def read(self, path: str) -> Audio:
        """One piece by its key; see :class:`logitstore.audio.source.Source`."""

    @abstractmethod
    def _list(self, name: str) -> pa.Table:
        """The pieces of one packed file, their keys in ``path``, and the user's columns."""

    def _split(self, path: str) -> tuple[str, str]:
        at = path.find("/")
        while at >= 0:
            if path[:at] in self._known:
                return path[:at], path[at + 1 :]
            at = path.find("/", at + 1)
        raise AudioError("no packed file of this name below the audio root")

    def _indexed(self, name: str, build: Callable[[str], Index]) -> Index:
        with lock:
            if name not in self._indexes:
                self._indexes[name] = build(name)
            return self._indexes[name]


def is_plain(value: Any) -> bool:
    """Whether a value of JSON is a scalar or a list of scalars."""
    if isinstance(value, list):
        return all(each is None or isinstance(each, _SCALARS) for each in value)
    return value is None or isinstance(value, _SCALARS)


def column_of(values: list[Any]) -> pa.Array:
    """Plain values of one column as the type they share, or as text; as lists where one of them is a list."""
    import pyarrow as pa

    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) or value is None else [value] for value in values]
        inner = column_of([each for value in lists for each in value or ()])
        kind = pa.string() if pa.types.is_null(inner.type) else inner.type
        taken = iter(inner.cast(kind).to_pylist())
        return pa.array([None if value is None else [next(taken) for _ in value] for value in lists], pa.list_(kind))
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):  # the last: half of a character, as JSON can hold
        texts = [None if value is None else str(value).encode("utf-8", "backslashreplace").decode() for value in values]
        return pa.array(texts, pa.string())
