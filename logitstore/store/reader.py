"""Reading a store: every object is checked against its commit before it is decoded, and loaded only when used."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import CorruptStoreError, NotAStoreError, StoreError, UsageError
from logitstore.store import commits, layout
from logitstore.store.commits import REPAIR, Commit
from logitstore.store.decoded import DecodedTargets, content_key, pack, unpack
from logitstore.store.manifest import ROOT, Manifest, decode_root, digest
from logitstore.store.objects import array_shape, decode_array
from logitstore.store.places import Places
from logitstore.store.related import Related, require_relations
from logitstore.store.relations import Relations, RelationSpec
from logitstore.store.storage import Storage, open_storage
from logitstore.view.lengths import samples_at
from logitstore.view.recipe import Draws

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.sql.limits import Limits
    from logitstore.store.basis import Basis

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]

#: Bytes of draws to keep, as they are stored, the most recently used blocks.
DRAWS_BYTES = 1 << 28


class Store:
    """A store, read-only. Open one with :func:`open_store`."""

    def __init__(self, storage: Storage, manifest: Manifest, root_digest: str) -> None:
        self.storage = storage
        self.manifest = manifest
        self.root_digest = root_digest
        #: Size of the file of decoded targets at most; see :mod:`logitstore.store.decoded`.
        self.decoded_bytes: int | None = None
        self._draws: OrderedDict[str, U8] = OrderedDict()
        #: Files of the clip table that were read from a URL, by name.
        self.clip_contents: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A store is handed to another process as where it lies; what is decoded is shared all the same."""
        if self.commits:
            self._decoded.share()
            if self.manifest.relations is not None:
                self._related.share()
        return _opened, (self.storage, self.manifest, self.root_digest, self.decoded_bytes)

    @property
    def location(self) -> str:
        """What a user calls the store."""
        return self.storage.location

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """The commits, by shard and first view; read once, when first used."""
        found = []
        names = list(self.storage.names(commits.FOLDER))
        for name, content in zip(names, self.storage.get_many(names), strict=True):
            if content is None:
                raise CorruptStoreError(f"{self.location}: {name} has gone while it was read; try again")
            commit = commits.decode(content, name)
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
            except (pa.ArrowException, OSError) as error:
                raise CorruptStoreError(
                    f"{self.location}: {name} is damaged ({' '.join(str(error).split())}); restore it"
                ) from error
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
        from logitstore.store.clip_files import clip_files

        parts = [file.read(columns=["length", "rate"], use_threads=False) for file in clip_files(self).values()]
        length, rate = (
            np.concatenate([part[name].to_numpy().astype(np.int64) for part in parts]) for name in ("length", "rate")
        )
        return length, rate

    def rows(self, view: int) -> I64:
        """The clips, rising, that have targets for a view."""
        parts = []
        for commit in self._places.commits_of(view):
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
        taken = self._decoded.take(view, wanted, self._places.blocks_of(view, wanted), self._packed)
        classes, codes = unpack(taken, self.manifest.topk)
        return classes, self._table.take(codes)

    def relations(self, view: int, rows: Any) -> Relations:
        """What the store keeps of the teachers' features of one view of some clips.

        :param view: in [0, V). :param rows: integers (n,), clips in any order, repeats allowed.
        :raises MismatchError: a store without relations.
        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        self.require_relations()
        wanted = np.asarray(rows, dtype=np.int64)
        return self._related.take(view, wanted, self._places.blocks_of(view, wanted))

    @property
    def basis(self) -> Basis:
        """The basis of the clips' vectors, of a store that has them.

        :raises MismatchError: a store without them.
        :raises CorruptStoreError: it is missing, or not the one that blocks were committed with.
        """
        self.require_relations(clips=True)
        return self._related.basis

    def block_relations(self, commit: Commit) -> Relations:
        """The relations of a block, by row and then by view: (R * V, …); those of rows that failed mean nothing.

        :raises MismatchError: a store without relations.
        """
        self.require_relations()
        return self._related.block(commit)

    def require_relations(self, *, frames: bool = False, clips: bool = False) -> RelationSpec:
        """What relations there are.

        :param frames: whether those of IUSP are needed. :param clips: whether those of SP are.
        :raises MismatchError: the store has none, or not those; it says how to build them.
        """
        return require_relations(self.manifest.relations, self.location, frames, clips)

    def draws(self, view: int, rows: Any = None) -> Draws:
        """The draws of one view of some clips, by default of all that have targets; int64 (n,) a column."""
        wanted = self.rows(view) if rows is None else np.asarray(rows, dtype=np.int64)
        columns = {column.name: np.zeros(len(wanted), np.int64) for column in self.manifest.columns}
        if not columns:
            return Draws({})
        for commit, where, local in self._places.by_block(view, wanted):
            planes = self._drawn(commit)[:, local * commit.views + (view - commit.view_start)]
            for name, drawn in layout.decode_draws(self.manifest.columns, planes, 1).items():
                columns[name][where] = drawn[:, 0]
        return Draws(columns)

    def partner_clip(self, clip: int, partner: int) -> int:
        """The clip that a draw's ``mixup_partner``, a row of the clip's own shard, stands for."""
        for commit in self.commits:
            if commit.first_clip <= clip < commit.first_clip + commit.clips:
                return commit.first_clip + partner
        raise UsageError(f"clip {clip} is in no finished block of {self.location}")

    def sql(self, query: str, parameters: dict[str, Any] | None = None, limits: Limits | None = None) -> pa.Table:
        """The answer to one SELECT over the tables that ``logitstore inspect`` knows, as a pyarrow table.

        :param limits: what the query may take, a ``logitstore.sql.limits.Limits``; None for the defaults.
        """
        from logitstore.store.query import run_query

        return run_query(self, query, parameters, limits)

    def failures(self) -> list[tuple[int, str, str]]:
        """(clip, path, reason) of every clip that has no targets, by clip."""
        reasons = {c.first_clip + row: reason for c in self.commits for row, reason in c.failed}
        paths = self.clips["path"] if reasons else None
        return [(clip, paths[clip].as_py(), reasons[clip]) for clip in sorted(reasons)] if paths else []

    # what a block holds, for readers that go block by block

    def block_targets(self, commit: Commit) -> tuple[U16, F32]:
        """Classes uint16 and probabilities float32, each (R, V, k), of a block; zero in the rows that failed."""
        targets, _ = self._decode(commit)
        probabilities = self._table[targets.codes]
        probabilities[~targets.readable] = 0
        return targets.classes, probabilities

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        """Draw columns of a block, each int64 (R, V)."""
        return layout.decode_draws(self.manifest.columns, self.arrays(commit, "draws")["draws"], commit.views)

    def block_members(self, commit: Commit) -> F32 | None:
        """Each member's probabilities at the ensemble's classes, float32 (M, R, V, k); None where none were kept."""
        if not self.manifest.keep_members:
            return None
        targets, codes = self._decode(commit, "members")
        probabilities = self._table[codes]
        probabilities[:, ~targets.readable] = 0
        return probabilities

    def block_classes(self, commit: Commit) -> tuple[layout.Entries, int]:
        """The entries of a block (see ``layout``) and its number of classes: enough to count classes, undecoded."""
        arrays = self.arrays(commit, "classes", "views")
        return layout.decode_entries(arrays, commit.views), len(self.manifest.classes)

    def size(self) -> int:
        """Bytes of everything in the store, scratch and claims aside."""
        sizes = self.storage.sizes()
        return sum(size for name, size in sizes.items() if name.split("/")[0] not in ("tmp", "claims"))

    def view_count(self) -> int:
        """Number of views that have targets, summed over clips."""
        return sum((commit.clips - len(commit.failed)) * commit.views for commit in self.commits)

    @functools.cached_property
    def _table(self) -> F32:
        return self.manifest.quantizer.table()

    @functools.cached_property
    def _places(self) -> Places:
        return Places(self.commits, self.location)

    @functools.cached_property
    def _decoded(self) -> DecodedTargets:
        width = self.manifest.topk * (2 + self.manifest.quantizer.code_bytes)
        return DecodedTargets(content_key(self.storage, self.commits), self.commits, width, self.decoded_bytes)

    @functools.cached_property
    def _related(self) -> Related:
        return Related(self, self.require_relations())

    def _packed(self, commit: Commit) -> U8:
        targets, _ = self._decode(commit)
        return pack(targets.classes, targets.codes, self.manifest.quantizer.code_bytes)

    def _decode(self, commit: Commit, *more: str) -> tuple[layout.Targets, U16 | None]:
        """The targets of a block, and with ``"members"`` its members' codes (M, R, V, k)."""
        arrays = self.arrays(commit, "classes", "views", "firsts", "residuals", *more)
        try:
            targets, members = layout.decode_block(
                arrays, commit.clips, commit.views, self.manifest.topk, len(self.manifest.classes)
            )
        except (ValueError, IndexError) as error:
            raise CorruptStoreError(
                f"{self.location}: block {commit.name}: {error}; {REPAIR.format(commit.name)}"
            ) from error
        if np.flatnonzero(~targets.readable).tolist() != sorted(row for row, _ in commit.failed):
            raise CorruptStoreError(
                f"{self.location}: block {commit.name}: the rows without targets are not those that failed; "
                f"{REPAIR.format(commit.name)}"
            )
        return targets, members

    def _drawn(self, commit: Commit) -> U8:
        """The draws of a block as they are stored, uint8 (planes, R * V)."""
        if commit.name in self._draws:
            self._draws.move_to_end(commit.name)
            return self._draws[commit.name]
        planes = self._draws[commit.name] = self.arrays(commit, "draws")["draws"]
        while len(self._draws) > 1 and sum(kept.nbytes for kept in self._draws.values()) > DRAWS_BYTES:
            self._draws.popitem(last=False)
        return planes

    def arrays(self, commit: Commit, *names: str) -> dict[str, npt.NDArray[np.uint8]]:
        """Arrays of a block, by name; their objects are read at once where that helps, and checked."""
        wanted = [name for name in commit.objects if name.split("/", 1)[0] in names]
        contents = self.storage.get_many([f"{commit.group}/{name}" for name in wanted])
        found = {name: self._checked(commit, name, content) for name, content in zip(wanted, contents, strict=True)}

        def get(name: str) -> bytes:
            return found[name] if name in found else self._checked(commit, name, None)

        arrays = {}
        for name in names:
            planes, length = array_shape(get(f"{name}/zarr.json"))
            arrays[name] = decode_array(name, planes, length, get)
        return arrays

    def _checked(self, commit: Commit, name: str, content: bytes | None) -> bytes:
        path = f"{commit.group}/{name}"
        if content is None:
            raise CorruptStoreError(f"{self.location}: {path} is missing; {REPAIR.format(commit.name)}")
        if digest(content) != commit.objects.get(name):
            raise CorruptStoreError(
                f"{self.location}: {path} is not the object that was committed; {REPAIR.format(commit.name)}"
            )
        return content


def _opened(storage: Storage, manifest: Manifest, root_digest: str, decoded_bytes: int | None) -> Store:
    store = Store(storage, manifest, root_digest)
    store.decoded_bytes = decoded_bytes
    return store


def open_store(path: str | Any) -> Store:
    """Open a store for reading. Neither torch nor zarr is imported.

    :param path: the store's folder, or its URL as a string; see ``docs/cloud.md``. A list of several is read as one
        store, of the views that all of them have; see ``combined.py``.
    :raises NotAStoreError: there is no store there, or one of an unknown format version.
    :raises MismatchError: of several, two that do not fit; the reason is named.
    """
    if isinstance(path, list | tuple):
        from logitstore.store.combined import combine

        return combine([open_store(each) for each in path])
    storage = open_storage(path)
    try:
        root = storage.get(ROOT)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStoreError(
            f"no store at {path}: there is no {ROOT} in it; give what `logitstore build` wrote"
        ) from error
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; check the permissions") from error
    return Store(storage, decode_root(root, str(path)), digest(root))
