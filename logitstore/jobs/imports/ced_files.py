"""The files that CED's ``save_logits.py`` writes: for every rank and epoch HDF5 targets and a Parquet table of names.

Row i of ``logits_ep{epoch}_{rank}.h5`` (``topk_values`` float16 (N, k), ``topk_indexes`` int16 (N, k), ``seeds`` int32
(N,)) belongs to row i of the Parquet file of the same name (``filename``, ``start`` and ``end`` in seconds). Rows may
come in any order and in other files from epoch to epoch; a row is known by its file name and its chunk. ``meta.pt``,
which lies beside them, is a pickle and is never opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from logitstore.arrays import F32, I64
from logitstore.audio.hdf5 import data_set
from logitstore.digests import file_digest, hasher
from logitstore.errors import MissingExtraError, SourceError
from logitstore.jobs.imports.ced_seeds import SAMPLE_RATE

if TYPE_CHECKING:
    import h5py


DATA_SETS = {"topk_values": "f", "topk_indexes": "iu", "seeds": "iu"}
_NAME = re.compile(r"logits_ep(\d+)_(\d+)\.(h5|parquet)")
_CHUNK_BITS = 32
_SLAB = 1 << 16  # rows read at once


@dataclass(frozen=True)
class Slab:
    """Some rows of an epoch: ``keys`` int64 (n,), see :class:`CedTable`, and what the ensemble said of them."""

    keys: I64
    classes: npt.NDArray[np.uint16]  # (n, k)
    probabilities: npt.NDArray[np.float16]  # (n, k)
    seeds: I64  # (n,), in [0, 2**32)


@dataclass(frozen=True)
class CedTable:
    """The clips of all epochs together.

    A clip is a key, the position of its file in ``names`` shifted by 32 bits, plus the number of its chunk. ``keys``
    rise. ``ends`` are the chunks' ends in seconds as the files have them; ``epochs`` in how many epochs a clip is.
    """

    names: pa.Array
    keys: I64
    ends: F32
    epochs: I64

    def name(self, key: int) -> str:
        """The file name of a key."""
        return str(self.names[key >> _CHUNK_BITS].as_py())

    @property
    def files(self) -> I64:
        """Positions in ``names``, int64 (n,)."""
        return self.keys >> _CHUNK_BITS

    @property
    def chunks(self) -> I64:
        """Numbers of the chunks, from 0, int64 (n,)."""
        return self.keys & ((1 << _CHUNK_BITS) - 1)


class CedFiles:
    """A folder of CED's logits.

    :param chunk_seconds: length of CED's chunks.
    :param epochs: how many epochs to use, the first ones; all by default.
    :raises SourceError: no such files, or files that are missing among them.
    :raises MissingExtraError: h5py is not installed.
    """

    def __init__(self, folder: str | Path, chunk_seconds: float, epochs: int | None = None) -> None:
        self._h5py = require_h5py()
        self.folder = Path(folder)
        self.chunk_seconds = chunk_seconds
        self.files = _find(self.folder, epochs)
        self.topk = self._topk()

    @property
    def epochs(self) -> int:
        """Number of epochs: each becomes a view."""
        return len(self.files)

    def digest(self) -> str:
        """BLAKE2b with 128 bits over the names and bytes of all files, in their order."""
        total = hasher()
        for stem in (stem for ranks in self.files for stem in ranks):
            for path in (_h5(stem), _parquet(stem)):
                total.update(path.name.encode() + b"\0" + bytes.fromhex(file_digest(path)))
        return total.hexdigest()

    def table(self) -> CedTable:
        """The clips of all epochs.

        :raises SourceError: a table is damaged, a chunk starts or ends where none can, or a clip is twice in an epoch.
        """
        names = pa.array([], pa.string())
        keys, ends, counts = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
        for number in range(self.epochs):
            rows = pa.concat_tables([self._rows(stem) for stem in self.files[number]])
            fresh = pc.unique(rows["filename"])
            fresh = fresh.filter(pc.invert(pc.is_in(fresh, value_set=names)))
            names = pa.concat_arrays([names, fresh])
            own = self._keys(rows, names)
            order = np.argsort(own, kind="stable")
            own, own_ends = own[order], rows["end"].to_numpy()[order]
            twice = np.flatnonzero(own[1:] == own[:-1])
            if len(twice):
                raise SourceError(
                    f"{self.folder}: {_describe(names, int(own[twice[0]]), self.chunk_seconds)} is twice in epoch "
                    f"{number + 1} ({len(twice)} such rows); keep one row of each"
                )
            merged = np.union1d(keys, own)
            new_ends, new_counts = np.full(len(merged), np.nan, np.float32), np.zeros(len(merged), np.int64)
            old_at, own_at = np.searchsorted(merged, keys), np.searchsorted(merged, own)
            new_ends[own_at] = own_ends
            differ = np.flatnonzero(~np.isnan(new_ends[old_at]) & (new_ends[old_at] != ends))
            if len(differ):
                where = differ[0]
                raise SourceError(
                    f"{self.folder}: {_describe(names, int(keys[where]), self.chunk_seconds)} ends at "
                    f"{float(new_ends[old_at[where]]):g} s in epoch {number + 1} and at {float(ends[where]):g} s "
                    "before; the epochs must be of the same audio"
                )
            new_ends[old_at], new_counts[old_at] = ends, counts
            new_counts[own_at] += 1
            keys, ends, counts = merged, new_ends, new_counts
        if not len(keys):
            raise SourceError(f"{self.folder}: the tables have no rows; give what save_logits.py wrote")
        return CedTable(names, keys, ends, counts)

    def slabs(self, epoch: int, names: pa.Array, class_count: int) -> Iterator[Slab]:
        """The rows of an epoch, in [0, epochs), some at a time.

        :raises SourceError: a value that is no probability, a class that there is not, or a row with a class twice.
        """
        for stem in self.files[epoch]:
            keys = self._keys(self._rows(stem), names)
            with self._open(_h5(stem)) as file:
                for low in range(0, len(keys), _SLAB):
                    high = min(low + _SLAB, len(keys))
                    yield self._slab(file, _h5(stem), keys[low:high], low, high, class_count)

    def _slab(self, file: h5py.File, path: Path, keys: I64, low: int, high: int, class_count: int) -> Slab:
        try:
            values, classes, seeds = (np.asarray(file[name][low:high]) for name in DATA_SETS)
        except OSError as error:
            raise SourceError(f"{path}: rows {low} to {high - 1} cannot be read: {_first_line(error)}") from error
        for wrong, found, allowed in (
            (~((values >= 0) & (values <= 1)), values, "probabilities from 0 to 1"),
            (
                ~((classes >= 0) & (classes < class_count)),
                classes,
                f"classes from 0 to {class_count - 1}, as --classes names {class_count}",
            ),
            (~((seeds >= 0) & (seeds < 1 << 32)), seeds, "seeds from 0 to 2**32 - 1"),
        ):
            if wrong.any():
                row = int(np.argwhere(wrong)[0][0])
                value = found[wrong][0]
                raise SourceError(f"{path}: row {low + row} holds {value}; allowed are {allowed}")
        ranked = np.sort(classes, axis=1)
        same = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)
        if same.any():
            raise SourceError(f"{path}: row {low + int(same.argmax())} names a class twice; the file is damaged")
        return Slab(keys, classes.astype(np.uint16), values.astype(np.float16), seeds.astype(np.int64))

    def _topk(self) -> int:
        found: dict[int, Path] = {}
        for stem in (stem for ranks in self.files for stem in ranks):
            path = _h5(stem)
            with self._open(path) as file:
                for name, kinds in DATA_SETS.items():
                    item = data_set(file, name, SourceError, f"{path}: ") if name in file.keys() else None  # noqa: SIM118
                    if item is None or item.dtype.kind not in kinds or item.ndim != (1 if name == "seeds" else 2):
                        raise SourceError(
                            f"{path}: no data set {name!r} of the kind that save_logits.py writes "
                            f"(found {', '.join(file) or 'nothing'})"
                        )
                shapes = {name: file[name].shape for name in DATA_SETS}
            rows = self._row_count(_parquet(stem))
            if {shape[0] for shape in shapes.values()} != {rows} or (
                shapes["topk_values"] != shapes["topk_indexes"] or not shapes["topk_values"][1]
            ):
                raise SourceError(
                    f"{path} and its Parquet table do not fit: {rows} names, "
                    + ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
                    + "; the run that wrote them was cut short: leave its last epochs out with --epochs"
                )
            found.setdefault(shapes["topk_values"][1], path)
        if len(found) > 1:
            (first, one), (second, other) = sorted(found.items())[:2]
            raise SourceError(f"{one} has {first} classes a row and {other} has {second}; a store has one number")
        return next(iter(found))

    def _row_count(self, path: Path) -> int:
        with _parquet_file(path) as file:
            missing = [name for name in ("filename", "start", "end") if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(
                    f"{path} has no column {missing[0]!r} (found {', '.join(file.schema_arrow.names)}); "
                    "give what save_logits.py wrote"
                )
            return int(file.metadata.num_rows)

    def _open(self, path: Path) -> h5py.File:
        try:
            return self._h5py.File(path, "r", locking=False)
        except OSError as error:
            raise SourceError(
                f"{path} is not readable as HDF5 ({_first_line(error)}); a run that was cut short leaves such a file: "
                "leave its epoch out with --epochs"
            ) from error

    def _rows(self, stem: Path) -> pa.Table:
        path = _parquet(stem)
        with _parquet_file(path) as file:
            try:
                table = file.read(columns=["filename", "start", "end"])
                table = table.cast(
                    pa.schema([("filename", pa.string()), ("start", pa.float32()), ("end", pa.float32())])
                )
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
                raise SourceError(f"{path} cannot be read: {_first_line(error)}") from error
        if any(column.null_count for column in table.columns):
            raise SourceError(f"{path} has empty cells; every row needs filename, start and end")
        return table

    def _keys(self, rows: pa.Table, names: pa.Array) -> I64:
        start = rows["start"].to_numpy()
        chunk = np.rint(start.astype(np.float64) / self.chunk_seconds)
        with np.errstate(invalid="ignore"):
            wrong = ~((chunk >= 0) & (chunk < 1 << _CHUNK_BITS)) | (
                (chunk * self.chunk_seconds).astype(np.float32) != start
            )
        if wrong.any():
            row = int(wrong.argmax())
            raise SourceError(
                f"{self.folder}: a row of {rows['filename'][row].as_py()} starts at {start[row]:g} s, which is no "
                f"multiple of {self.chunk_seconds:g} s; give the length of CED's chunks with --chunk-seconds"
            )
        end = rows["end"].to_numpy()
        outside = ~((end > start) & (end <= ((chunk + 1) * self.chunk_seconds).astype(np.float32)))
        if outside.any():
            row = int(outside.argmax())
            raise SourceError(
                f"{self.folder}: a row of {rows['filename'][row].as_py()} is from {start[row]:g} to {end[row]:g} s, "
                f"and chunks are of at most {self.chunk_seconds:g} s; give their length with --chunk-seconds"
            )
        files = pc.index_in(rows["filename"], value_set=names).to_numpy().astype(np.int64)
        keys: I64 = (files << _CHUNK_BITS) + chunk.astype(np.int64)
        return keys


def chunk_lengths(chunks: I64, ends: F32, totals: I64, chunk_seconds: float) -> I64:
    """Own lengths, in samples at 16 kHz, of chunks of audio of known lengths; -1 where a chunk does not end there.

    :param totals: int64 (n,), lengths of the whole audio in samples at 16 kHz.
    """
    size = int(chunk_seconds * SAMPLE_RATE)
    end = np.minimum((chunks + 1) * chunk_seconds, totals / SAMPLE_RATE).astype(np.float32)
    return np.where(end == ends, np.minimum(size, totals - chunks * size), -1)


def stated_lengths(chunks: I64, ends: F32, chunk_seconds: float) -> I64:
    """What the tables say of the lengths, in samples at 16 kHz; off by rounding for chunks that begin after 1,000 s."""
    size = int(chunk_seconds * SAMPLE_RATE)
    return np.rint(ends.astype(np.float64) * SAMPLE_RATE).astype(np.int64) - chunks * size


def _find(folder: Path, epochs: int | None) -> list[list[Path]]:
    """Files of the first epochs without their endings, by epoch and rank."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give the one in which save_logits.py left logits_ep1_0.h5")
    found: dict[int, dict[int, set[str]]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {}).setdefault(int(match[2]), set()).add(match[3])
    if not found:
        raise SourceError(f"{folder} holds no logits_ep1_0.h5; give the folder in which save_logits.py left it")
    last = max(found) if epochs is None else epochs
    if last > max(found):
        raise SourceError(f"{folder} holds epochs up to {max(found)}, --epochs is {last}; give at most as many")
    ranks = sorted({rank for epoch, by_rank in found.items() if epoch <= last for rank in by_rank})
    for epoch in range(1, last + 1):
        for rank in ranks:
            missing = {"h5", "parquet"} - found.get(epoch, {}).get(rank, set())
            if missing:
                raise SourceError(
                    f"{folder}: logits_ep{epoch}_{rank}.{min(missing)} is missing, and there are epochs up to "
                    f"{last} and ranks {', '.join(map(str, ranks))}; restore it, or import the epochs before it with "
                    "--epochs"
                )
    return [[folder / f"logits_ep{epoch}_{rank}" for rank in ranks] for epoch in range(1, last + 1)]


def _describe(names: pa.Array, key: int, chunk_seconds: float) -> str:
    chunk = key & ((1 << _CHUNK_BITS) - 1)
    return f"{names[key >> _CHUNK_BITS].as_py()} at {chunk * chunk_seconds:g} s"


def _h5(stem: Path) -> Path:
    return stem.with_name(stem.name + ".h5")


def _parquet(stem: Path) -> Path:
    return stem.with_name(stem.name + ".parquet")


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} is not readable as Parquet: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_h5py() -> Any:
    """The module h5py.

    :raises MissingExtraError: it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "ced", "reading or writing CED's HDF5 files") from None
    return h5py
