"""The keys of a store's clips, read where they are asked for: opening a store costs the same however many it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from logitstore.arrays import I64
from logitstore.audio.clips import ClipKeys, Cut, TableKeys
from logitstore.errors import CorruptStoreError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class ClipFiles(Protocol):
    """What has the files of a clip table: a piece of a store."""

    @property
    def location(self) -> str:
        """What a user calls it."""

    def clip_files(self) -> dict[str, pq.ParquetFile]:
        """The files by name, in the order of their clips."""

    def clip_group(self, name: str, file: pq.ParquetFile, columns: Sequence[str] | None, group: int) -> pa.Table:
        """Some columns of a group of rows of a file."""


class Group(NamedTuple):
    """A group of rows of a file of the clip table: its clips, and where it lies."""

    clips: range
    piece: ClipFiles
    name: str
    file: pq.ParquetFile
    number: int
    reading: Lock  # of the file: Arrow does not say that two threads may read one at once

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of its clips, all by default.

        :raises CorruptStoreError: the file is damaged.
        """
        with self.reading:
            return self.piece.clip_group(self.name, self.file, columns, self.number)

    def may_hold(self, paths: Sequence[str]) -> bool:
        """Whether one of some rising paths can be in it, by the least and the greatest path that it says it has."""
        column = self.file.schema_arrow.get_field_index("path")
        known = self.file.metadata.row_group(self.number).column(column).statistics
        if known is None or not known.has_min_max:
            return True
        at = int(np.searchsorted(paths, known.min))
        return at < len(paths) and paths[at] <= known.max


class StoredKeys(ClipKeys):
    """Those of one or several pieces, one after the other.

    The first clip of a group of rows (131,072 of them, as this package writes them) that is asked for has the whole
    group read, which is then kept: some 50 bytes a clip.
    """

    def __init__(self, pieces: Sequence[ClipFiles]) -> None:
        self.groups = tuple(_groups(pieces))
        self._firsts: I64 = np.array([group.clips.start for group in self.groups], dtype=np.int64)
        self._read: dict[int, TableKeys] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[StoredKeys], tuple[list[ClipFiles]]]:
        return StoredKeys, (list(dict.fromkeys(group.piece for group in self.groups)),)

    def __len__(self) -> int:
        return self.groups[-1].clips.stop if self.groups else 0

    def group_of(self, clip: int) -> Group:
        """The group of rows that a clip lies in."""
        return self.groups[int(self._firsts.searchsorted(clip, side="right")) - 1]

    def __getitem__(self, clip: int) -> tuple[str, Cut]:
        number = int(self._firsts.searchsorted(clip, side="right")) - 1
        return self.of_group(number)[int(clip) - self.groups[number].clips.start]

    def of_group(self, number: int) -> TableKeys:
        """Those of a group of rows, by their places in it."""
        keys = self._read.get(number)
        if keys is None:
            with self._lock:
                if number not in self._read:
                    self._read[number] = TableKeys(self.groups[number].read(["path", "start", "length", "rate"]))
                keys = self._read[number]
        return keys

    def paths(self, number: int) -> pa.ChunkedArray:
        """The paths of a group of rows; one that has not been read yet is read for this alone, and not kept."""
        keys = self._read.get(number)
        return self.groups[number].read(["path"])["path"] if keys is None else keys.paths


def _groups(pieces: Sequence[ClipFiles]) -> Iterator[Group]:
    first = 0
    for piece in pieces:
        for name, file in piece.clip_files().items():
            rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            if sum(rows) != file.metadata.num_rows or min(rows, default=0) < 0:
                raise CorruptStoreError(
                    f"{piece.location}: {name} says that it has {file.metadata.num_rows:,} clips, and its groups of "
                    f"rows have {sum(rows):,}; restore it from a copy"
                )
            reading = Lock()
            for number, count in enumerate(rows):
                if count:
                    yield Group(range(first, first + count), piece, name, file, number, reading)
                first += count
