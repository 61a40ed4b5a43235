"""Reading a store: every object is checked against its commit before it is decoded, and loaded only when used."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import CorruptStoreError, NotAStoreError, StoreError, UsageError
from logitstore.store import commits, layout
from logitstore.store.commits import Commit
from logitstore.store.manifest import ROOT, Manifest, decode_root, digest
from logitstore.store.objects import array_shape, decode_array
from logitstore.store.storage import LocalStorage, Storage
from logitstore.view.lengths import samples_at
from logitstore.view.recipe import Draws

if TYPE_CHECKING:
    import pyarrow as pa

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
U16 = npt.NDArray[np.uint16]

CACHE_BYTES = 1 << 29


@dataclass(frozen=True)
class _Decoded:
    """The targets and draws of a block, ready to be indexed."""

    targets: layout.Targets
    draws: dict[str, I64]

    @property
    def nbytes(self) -> int:
        drawn = sum(values.nbytes for values in self.draws.values())
        return self.targets.classes.nbytes + self.targets.codes.nbytes + drawn


class Store:
    """A store, read-only. Open one with :func:`open_store`."""

    def __init__(self, storage: Storage, manifest: Manifest, root_digest: str) -> None:
        self.storage = storage
        self.manifest = manifest
        self.root_digest = root_digest
        self._cache: OrderedDict[str, _Decoded] = OrderedDict()
        self._cached_bytes = 0

    @property
    def location(self) -> str:
        """What a user calls the store."""
        return self.storage.location

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """The commits, by shard and first view; read once, when first used."""
        found = []
        for name in self.storage.names(commits.FOLDER):
            commit = commits.decode(self.storage.get(name), name)
            if commit.manifest_digest != self.root_digest:
                raise CorruptStoreError(
                    f"{self.location}: {name} was committed under another manifest; restore {ROOT} from a copy"
                )
            found.append(commit)
        return tuple(sorted(found, key=lambda commit: (commit.shard, commit.view_start)))

    @property
    def views(self) -> int:
        """Number of views V: one more than the highest view of any block."""
        return max((commit.view_stop for commit in self.commits), default=0)

    @functools.cached_property
    def clips(self) -> pa.Table:
        """The clip table: clip (int64, the row number), path, start, length (frames), rate (Hz), the user's columns.

        :raises CorruptStoreError: a part of the table is not the one that the commits name.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        known = {commit.clip_table: commit.clip_table_digest for commit in self.commits}
        tables = []
        for name in self.storage.names("clips"):
            content = self.storage.get(name)
            if name in known and digest(content) != known[name]:
                raise CorruptStoreError(f"{self.location}: {name} is not the file that was committed; restore it")
            try:
                tables.append(pq.read_table(pa.BufferReader(content)))
            except pa.ArrowInvalid as error:
                raise CorruptStoreError(f"{self.location}: {name} is damaged ({error}); restore it") from error
        missing = sorted(set(known) - set(self.storage.names("clips")))
        if missing or not tables:
            raise CorruptStoreError(
                f"{self.location}: {(missing or ['clips/00000.parquet'])[0]} is missing; restore it"
            )
        table = pa.concat_tables(tables, promote_options="default")
        return table.add_column(0, "clip", pa.array(np.arange(table.num_rows)))

    def lengths(self, rows: I64) -> I64:
        """The clips' own lengths in samples at the store's rate, before padding: int64 (n,)."""
        length, rate = self._numbers
        own = samples_at(length[rows], np.maximum(rate[rows], 1), self.manifest.sample_rate)
        return np.minimum(np.asarray(own, dtype=np.int64), self.manifest.clip_samples)

    @functools.cached_property
    def _numbers(self) -> tuple[I64, I64]:
        length, rate = (self.clips[name].to_numpy().astype(np.int64) for name in ("length", "rate"))
        return length, rate

    def rows(self, view: int) -> I64:
        """The clips, rising, that have targets for a view."""
        parts = []
        for commit in self._commits_of(view):
            rows = np.arange(commit.clips)
            failed = [row for row, _ in commit.failed]
            parts.append(commit.first_clip + np.delete(rows, failed))
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def targets(self, view: int, rows: Any) -> tuple[U16, F32]:
        """What the ensemble said of one view of some clips.

        :param view: in [0, V).
        :param rows: integers (n,), clips in any order, repeats allowed.
        :returns: classes uint16 (n, k) and probabilities float32 (n, k) in (0, 1), falling; ties by rising class.
        :raises UsageError: a clip has no targets for this view: it failed, or its block is missing.
        :raises CorruptStoreError: an object is not the one that was committed.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        shape = (len(wanted), self.manifest.topk)
        classes, codes = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
        for commit, where, local in self._by_block(view, wanted):
            targets = self._decoded(commit).targets
            if not targets.readable[local].all():
                bad = int(wanted[where][~targets.readable[local]][0])
                reason = dict(commit.failed).get(bad - commit.first_clip, "unknown")
                raise UsageError(f"clip {bad} has no targets, it failed: {reason}; use the clips of store.rows({view})")
            classes[where] = targets.classes[local, view - commit.view_start]
            codes[where] = targets.codes[local, view - commit.view_start]
        return classes, self._table[codes]

    def draws(self, view: int, rows: Any = None) -> Draws:
        """The draws of one view of some clips, by default of all that have targets; int64 (n,) a column."""
        wanted = self.rows(view) if rows is None else np.asarray(rows, dtype=np.int64)
        columns = {column.name: np.zeros(len(wanted), np.int64) for column in self.manifest.columns}
        for commit, where, local in self._by_block(view, wanted):
            decoded = self._decoded(commit).draws
            for name, values in columns.items():
                values[where] = decoded[name][local, view - commit.view_start]
        return Draws(columns)

    def partner_clip(self, clip: int, partner: int) -> int:
        """The clip that a draw's ``mixup_partner``, a row of the clip's own shard, stands for."""
        for commit in self.commits:
            if commit.first_clip <= clip < commit.first_clip + commit.clips:
                return commit.first_clip + partner
        raise UsageError(f"clip {clip} is in no finished block of {self.location}")

    def sql(self, query: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """The answer to one SELECT over the tables that ``logitstore inspect`` knows, as a pyarrow table."""
        from logitstore.store.query import run_query

        return run_query(self, query, parameters)

    def failures(self) -> list[tuple[int, str, str]]:
        """(clip, path, reason) of every clip that has no targets, by clip."""
        reasons = {c.first_clip + row: reason for c in self.commits for row, reason in c.failed}
        paths = self.clips["path"] if reasons else None
        return [(clip, paths[clip].as_py(), reasons[clip]) for clip in sorted(reasons)] if paths else []

    # what a block holds, for readers that go block by block

    def block_targets(self, commit: Commit) -> tuple[U16, F32]:
        """Classes uint16 and probabilities float32, each (R, V, k), of a block; zero in the rows that failed."""
        targets = self._decoded(commit, keep=False).targets
        probabilities = self._table[targets.codes]
        probabilities[~targets.readable] = 0
        return targets.classes, probabilities

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        """Draw columns of a block, each int64 (R, V)."""
        return layout.decode_draws(self.manifest.columns, self._array(commit, "draws"), commit.views)

    def block_members(self, commit: Commit) -> F32 | None:
        """Each member's probabilities at the ensemble's classes, float32 (M, R, V, k); None where none were kept."""
        if not self.manifest.keep_members:
            return None
        arrays = {name: self._array(commit, name) for name in ("classes", "views", "firsts", "residuals", "members")}
        targets = self._decoded(commit, keep=False).targets
        codes = layout.decode_members(arrays, targets, len(self.manifest.classes))
        probabilities = self._table[codes]
        probabilities[:, ~targets.readable] = 0
        return probabilities

    def block_classes(self, commit: Commit) -> tuple[layout.Entries, int]:
        """The entries of a block (see ``layout``) and its number of classes: enough to count classes, undecoded."""
        arrays = {name: self._array(commit, name) for name in ("classes", "views")}
        return layout.decode_entries(arrays, commit.views), len(self.manifest.classes)

    def size(self) -> int:
        """Bytes of everything in the store, scratch and claims aside."""
        return sum(
            self.storage.size(name) for name in self.storage.names() if name.split("/")[0] not in ("tmp", "claims")
        )

    def view_count(self) -> int:
        """Number of views that have targets, summed over clips."""
        return sum((commit.clips - len(commit.failed)) * commit.views for commit in self.commits)

    @functools.cached_property
    def _table(self) -> F32:
        return self.manifest.quantizer.table()

    def _commits_of(self, view: int) -> list[Commit]:
        found = [commit for commit in self.commits if commit.view_start <= view < commit.view_stop]
        if not self.views:
            raise UsageError(f"{self.location} has no finished block yet; run its build")
        if not found:
            raise UsageError(f"{self.location} has no view {view}; it has views 0 to {self.views - 1}")
        return found

    def _by_block(self, view: int, rows: I64) -> Iterator[tuple[Commit, I64, I64]]:
        """(block, positions in ``rows``, rows within the block) for the blocks that hold a view of some clips."""
        blocks = self._commits_of(view)
        firsts = np.array([commit.first_clip for commit in blocks])
        index = np.searchsorted(firsts, rows, side="right") - 1
        stops = firsts + np.array([commit.clips for commit in blocks])
        outside = (index < 0) | (rows >= stops[index])
        if outside.any():
            bad = int(rows[outside][0])
            raise UsageError(f"clip {bad} has no block with view {view} in {self.location}; its build is not finished "
                             "or there is no such clip")  # fmt: skip
        order = np.argsort(index, kind="stable")
        bounds = np.flatnonzero(np.diff(index[order])) + 1
        for where in np.split(order, bounds):
            if len(where):
                commit = blocks[index[where[0]]]
                yield commit, where, rows[where] - commit.first_clip

    def _decoded(self, commit: Commit, keep: bool = True) -> _Decoded:
        if commit.name in self._cache:
            self._cache.move_to_end(commit.name)
            return self._cache[commit.name]
        arrays = {name: self._array(commit, name) for name in ("classes", "views", "firsts", "residuals")}
        try:
            targets = layout.decode_targets(
                arrays, commit.clips, commit.views, self.manifest.topk, len(self.manifest.classes)
            )
        except ValueError as error:
            raise CorruptStoreError(
                f"{self.location}: block {commit.name}: {error}; delete its commit, build again"
            ) from error
        decoded = _Decoded(targets, self.block_draws(commit) if self.manifest.columns else {})
        if keep:
            self._cache[commit.name] = decoded
            self._cached_bytes += decoded.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= oldest.nbytes
        return decoded

    def _array(self, commit: Commit, name: str) -> npt.NDArray[np.uint8]:
        planes, length = array_shape(self._object(commit, f"{name}/zarr.json"))
        return decode_array(name, planes, length, lambda chunk: self._object(commit, chunk))

    def _object(self, commit: Commit, name: str) -> bytes:
        path = f"{commit.group}/{name}"
        try:
            content = self.storage.get(path)
        except FileNotFoundError as error:
            raise CorruptStoreError(f"{self.location}: {path} is missing; {_REPAIR.format(commit.name)}") from error
        if digest(content) != commit.objects.get(name):
            raise CorruptStoreError(
                f"{self.location}: {path} is not the object that was committed; {_REPAIR.format(commit.name)}"
            )
        return content


_REPAIR = "delete commits/{}.json and build again to make the block anew"


def open_store(path: str | Any) -> Store:
    """Open a store for reading. Neither torch nor zarr is imported.

    :param path: the store's folder.
    :raises NotAStoreError: there is no store there, or one of an unknown format version.
    """
    storage = LocalStorage(path)
    try:
        root = storage.get(ROOT)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStoreError(
            f"no store at {path}: there is no {ROOT} in it; give what `logitstore build` wrote"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; check the permissions") from error
    return Store(storage, decode_root(root, str(path)), digest(root))
