"""A store in formats that others read: one flat Parquet table, or the files of CED's ``save_logits.py``.

Both go through the store block by block, so that memory does not grow with it, and both appear under their names only
when they are whole.
"""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from logitstore.errors import StoreError, UsageError
from logitstore.files import check_out, open_out
from logitstore.jobs.imports.ced import SEEDS_COLUMN
from logitstore.jobs.imports.ced_files import require_h5py
from logitstore.store.format.commits import Commit
from logitstore.store.reader import Store
from logitstore.store.sql.lazy import LazyTable
from logitstore.store.sql.tables import clips_table, tables
from logitstore.store.storage import is_url

Advance = Callable[[int], None]

_CLIP_KEYS = ("path", "start", "length", "rate")
_NOT_DRAWN = ("entropy", "top1", "top1_probability")
_MOST_CED_CLASSES = 1 << 15  # int16
_HDF5_ROWS = 1024  # of a chunk


def export_parquet(
    store: Store, out: str | Path, *, class_indices: bool = False, advance: Advance = lambda views: None
) -> str:
    """One row a view that has targets, in one Parquet file.

    Columns: ``path``, ``start`` and ``length`` (frames), ``rate`` (Hz), the store's further columns of the clip table
    (named ``clip_…`` where a name is taken), ``clip``, ``view``, the draws as SQL's table ``views`` has them,
    ``classes`` (list of strings, or of uint16), falling by ``probabilities`` (list of float32); of a store that says
    when, ``frames``, a list of {class, start_s, end_s, probability}, by class and start, seconds of the view.

    :returns: what was written, in words.
    :raises UsageError: ``out`` exists, or the store has no blocks yet.
    """
    require_blocks(store)
    views = tables(store)["views"]()
    clips = _ClipRows(store)
    drawn = [name for name in views.schema.names if name not in _NOT_DRAWN]
    taken = {*_CLIP_KEYS, *drawn, "classes", "probabilities"}
    if store.manifest.frames is not None:
        taken.add("frames")
    further = [name for name in clips.names if name not in _CLIP_KEYS]
    renamed = {name: f"clip_{name}" if name in taken else name for name in further}
    class_names = pa.array(store.manifest.classes, pa.string())
    rows = 0
    with _table(out) as file, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for commit, part in zip(store.commits, views.parts, strict=True):
            kept = commit.readable
            table = part.decode(set(drawn)).select(drawn)
            keys = clips.take(np.repeat(commit.first_clip + kept, commit.views), commit)
            classes, probabilities = store.block_targets(commit)
            used = classes[kept] < len(store.manifest.classes)
            numbers = pa.array(classes[kept][used])
            items = numbers if class_indices else class_names.take(numbers)
            columns = {name: keys[name] for name in _CLIP_KEYS}
            columns |= {renamed[name]: keys[name] for name in further}
            columns |= {name: table[name] for name in drawn}
            columns["classes"] = _lists(items, used)
            columns["probabilities"] = _lists(pa.array(probabilities[kept][used]), used)
            if store.manifest.frames is not None:
                columns["frames"] = _when(store, commit, None if class_indices else class_names)
            flat = pa.table(columns)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, flat.schema, compression="zstd"))
            writer.write_table(flat)
            rows += flat.num_rows
            advance(flat.num_rows)
    return f"{rows:,} views written to {out}"


def export_ced(store: Store, out: str | Path, *, advance: Advance = lambda views: None) -> str:
    """CED's own files: ``logits_ep{v + 1}_0.h5`` and ``.parquet`` for every view v, clips without targets left out.

    CED's training replays a view from its seed. A store without ops needs none (0 is written); one that was imported
    with its seeds has them; any other cannot be replayed by CED's code and is refused.

    :returns: what was written, in words.
    :raises UsageError: ``out`` exists; the store's views have no seeds, its scores are not sigmoid, or its classes or
        file names do not fit CED's files.
    :raises MissingExtraError: h5py is not installed.
    """
    h5py = require_h5py()
    require_blocks(store)
    clips = _ClipRows(store)
    _require_exportable(store, clips)
    with whole(out) as partial, contextlib.ExitStack() as stack:
        partial.mkdir()
        files = [_CedWriter(h5py, partial / f"logits_ep{view + 1}_0", store, stack) for view in range(store.views)]
        for commit in store.commits:
            kept = commit.readable
            keys = clips.take(commit.first_clip + kept, commit)
            start, length, rate = (keys[name].to_numpy().astype(np.float64) for name in ("start", "length", "rate"))
            names = pa.array([posixpath.basename(path) for path in keys["path"].to_pylist()], pa.string())
            span = (start / rate, (start + length) / rate)
            classes, probabilities = _k_of_each(store, commit)
            seeds = np.zeros((len(kept), store.views), np.int64)
            if store.manifest.recipe.ops:
                seeds = _seeds(keys[SEEDS_COLUMN], len(kept), store)
            for view in range(commit.view_start, commit.view_stop):
                at = view - commit.view_start
                files[view].write(names, span, classes[kept, at], probabilities[kept, at], seeds[:, view])
                advance(len(kept))
    when = "" if store.manifest.frames is None else " (they have no place for frames, which are left out)"
    return f"{store.views} epochs of CED's files written to {out}{when}"


def _k_of_each(store: Store, commit: Commit) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
    """Classes and probabilities (R, V, k), every place used: where a view keeps fewer classes, those that it lacks take
    the places that are left, the lowest first, with the probability that the store has for them."""
    classes, probabilities = store.block_targets(commit)
    if store.manifest.quality is None:
        return classes, probabilities
    count, rests = len(store.manifest.classes), store.block_rests(commit)
    for row, view in np.argwhere((classes == count).any(axis=2)).tolist():
        used = int(np.count_nonzero(classes[row, view] < count))
        lacking = np.setdiff1d(np.arange(count), classes[row, view, :used])[: classes.shape[2] - used]
        classes[row, view, used:], probabilities[row, view, used:] = lacking, rests[row, view]
    return classes, probabilities


class _CedWriter:
    """The two files of one epoch."""

    def __init__(self, h5py: Any, stem: Path, store: Store, stack: contextlib.ExitStack) -> None:
        k = min(store.k, len(store.manifest.classes))
        file = stack.enter_context(h5py.File(stem.with_name(stem.name + ".h5"), "w"))
        self._arrays = {
            name: file.create_dataset(name, (0, *rest), dtype, maxshape=(None, *rest), chunks=(_HDF5_ROWS, *rest))
            for name, dtype, rest in (
                ("topk_values", "float16", (k,)),
                ("topk_indexes", "int16", (k,)),
                ("seeds", "int32", ()),
            )
        }
        self._schema = pa.schema([("filename", pa.string()), ("start", pa.float32()), ("end", pa.float32())])
        path = stem.with_name(stem.name + ".parquet")
        self._table = stack.enter_context(pq.ParquetWriter(path, self._schema, compression="brotli"))

    def write(self, names: pa.Array, span: tuple[Any, Any], classes: Any, probabilities: Any, seeds: Any) -> None:
        """Append some rows."""
        for name, values in (("topk_values", probabilities), ("topk_indexes", classes), ("seeds", seeds)):
            array = self._arrays[name]
            rows = len(array)
            array.resize(rows + len(values), axis=0)
            array[rows:] = values.astype(array.dtype)
        columns = [names, *(pa.array(np.asarray(seconds).astype(np.float32)) for seconds in span)]
        self._table.write_table(pa.table(columns, schema=self._schema))


class _ClipRows:
    """The clip table, a piece at a time; the last piece is kept, for blocks come in the order of their clips."""

    def __init__(self, store: Store) -> None:
        self._table: LazyTable = clips_table(store)
        self.names = [name for name in self._table.schema.names if name != "clip"]
        self._held: tuple[int, int, pa.Table] | None = None

    def take(self, clips: npt.NDArray[np.int64], commit: Commit) -> pa.Table:
        """The rows of some clips of a block."""
        low, high = commit.first_clip, commit.first_clip + commit.clips
        if self._held is None or not (self._held[0] <= low and high <= self._held[1]):
            held = [(*part.bounds["clip"], part) for part in self._table.parts]
            held = [(first, stop, part) for first, stop, part in held if first < high and low < stop]
            piece = pa.concat_tables([part.decode(set(self.names)) for _, _, part in held])
            self._held = (held[0][0], held[-1][1], piece)
        first, _, piece = self._held
        return piece.take(pa.array(clips - first))

    def paths(self) -> Iterator[str]:
        """All paths, in the order of the table."""
        for part in self._table.parts:
            yield from part.decode({"path"})["path"].to_pylist()


def _require_exportable(store: Store, clips: _ClipRows) -> None:
    manifest = store.manifest
    if manifest.scores != "sigmoid":
        raise UsageError(
            f"{store.location} holds {manifest.scores} scores, CED's files sigmoid ones; export to parquet"
        )
    if len(manifest.classes) > _MOST_CED_CLASSES:
        raise UsageError(
            f"{store.location} has {len(manifest.classes)} classes, CED's files have room for {_MOST_CED_CLASSES} "
            "(int16); export to parquet"
        )
    if manifest.recipe.ops and SEEDS_COLUMN not in clips.names:
        raise UsageError(
            f"{store.location} holds draws ({', '.join(manifest.recipe.columns)}) and no seeds, and CED's code can "
            "replay a view from CED's own seed alone; export to parquet, or, if the store was imported from CED, "
            "import it with --keep-seeds"
        )
    owners: dict[str, str] = {}
    for path in clips.paths():
        name = posixpath.basename(path)
        if owners.setdefault(name, path) != path:
            raise UsageError(
                f"{owners[name]} and {path} have the same file name, by which alone CED's tables know a clip; "
                "export to parquet"
            )


def _seeds(column: pa.ChunkedArray, rows: int, store: Store) -> npt.NDArray[np.int64]:
    """CED's seeds, int64 (rows, V)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if len(flat) != rows * store.views:
        raise UsageError(
            f"{store.location} has {store.views} views, and seeds of other than {store.views} a clip; export to parquet"
        )
    return np.asarray(flat, dtype=np.int64).reshape(rows, store.views)


def require_blocks(store: Store) -> None:
    """Refuse a store that holds nothing yet.

    :raises UsageError: it has no finished block.
    """
    if not store.commits:
        raise UsageError(f"{store.location} has no finished block yet; run its build")


def _when(store: Store, commit: Commit, names: pa.Array | None) -> pa.ListArray:
    """The stretches of time of every view of a block that has targets."""
    frames = store.block_frames(commit)
    views = (commit.readable[:, None] * commit.views + np.arange(commit.views)).reshape(-1)
    counts = np.bincount(frames.clips, minlength=commit.clips * commit.views)[views]
    labels = pa.array(frames.classes)
    ends = np.minimum(np.round(frames.stops * frames.hop, 3), store.manifest.clip_seconds)
    stretches = {
        "class": labels if names is None else names.take(labels),
        "start_s": pa.array(np.round(frames.starts * frames.hop, 3)),
        "end_s": pa.array(ends),
        "probability": pa.array(frames.probabilities),
    }
    offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(stretches.values(), stretches.keys()))


def _lists(items: Any, used: npt.NDArray[np.bool_]) -> pa.ListArray:
    """A list a view of its items; ``used`` says how many each has, bool (n, V, k)."""
    offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(used, axis=2).reshape(-1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items)


@contextlib.contextmanager
def _table(out: str | Path) -> Iterator[IO[bytes]]:
    """A new Parquet file to write to, or a pipe or device."""
    if is_url(str(out)):
        raise UsageError(f"--out {out} is a URL; exports are written to a file or folder: copy it from there")
    if Path(out).is_file() or Path(out).is_dir():
        raise UsageError(f"--out {out} exists; choose another name, or remove it")
    check_out(out, endings=(".parquet", ".pq") if Path(out).suffix else ())
    with open_out(out) as file:
        yield file


@contextlib.contextmanager
def whole(out: str | Path) -> Iterator[Path]:
    """A path to write to that becomes ``out`` at the end, and goes away where there is an error.

    It lies in a folder that is made for it alone, beside ``out``: nothing that was there is touched.
    """
    if is_url(str(out)):
        raise UsageError(f"--out {out} is a URL; exports are written to a file or folder: copy it from there")
    target = Path(out)
    if target.exists():
        raise UsageError(f"--out {out} exists; choose another name, or remove it")
    if not target.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {target.parent}; make it")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.partial-", dir=target.parent) as scratch:
            partial = Path(scratch) / target.name
            yield partial
            partial.replace(target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
