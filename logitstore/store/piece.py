"""One piece of a store: one artefact in a folder or on an object store, read-only.

Every object is checked against its commit before it is decoded, and loaded only when it is used. Clips, shards and
views have the piece's own numbers here; ``pieces.py`` reads one or several pieces under the numbers of a store.
"""

from __future__ import annotations

import functools
import threading
import weakref
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from logitstore.arrays import F32, I64, U8, U16
from logitstore.audio.lengths import samples_at
from logitstore.digests import digest, file_digest
from logitstore.errors import CorruptStoreError, MismatchError, NotAStoreError
from logitstore.store import claims
from logitstore.store.decoded import DecodedTargets, content_key, pack, unpack
from logitstore.store.format import commits, frames, layout, relations
from logitstore.store.format.basis import BASIS, Basis, decode_basis
from logitstore.store.format.blocks import decode_arrays, held_in
from logitstore.store.format.commits import REPAIR, Commit
from logitstore.store.format.frames import FrameSpec, Runs
from logitstore.store.format.manifest import IMPORTED, ROOT, Manifest, decode_root
from logitstore.store.format.quality import REST
from logitstore.store.format.relations import Relations, RelationSpec
from logitstore.store.names import BLOCKS, part_name
from logitstore.store.places import Places
from logitstore.store.storage import SCRATCH, LocalStorage, Storage, open_storage
from logitstore.views.recipe import Draws

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from logitstore.store.keys import StoredKeys

#: Bytes of draws to keep, as they are stored, the most recently used blocks.
DRAWS_BYTES = 1 << 28
#: Bytes of objects of blocks to keep that were read from a URL, the newest: targets and draws lie in the same ones.
READ_BYTES = 1 << 27
#: Bytes of runs to keep, decoded, of the most recently used blocks.
RUNS_BYTES = 1 << 30


def _last_view(spans: Iterable[Commit | commits.Span]) -> int:
    return max((span.view_stop for span in spans), default=0)


def open_piece(path: str | Any) -> Piece:
    """Open one piece for reading.

    :param path: its folder, or its URL as a string.
    :raises NotAStoreError: there is no store there, or one of an unknown format version.
    """
    storage = open_storage(path)
    try:
        root = storage.get(ROOT)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStoreError(
            f"no store at {path}: there is no {ROOT} in it; give what `logitstore build` wrote"
        ) from error
    return Piece(storage, decode_root(root, str(path)), digest(root))


class Piece:
    """One artefact of manifest, clip table, commits and blocks. Open one with :func:`open_piece`.

    :param root_digest: of the object that holds the manifest.
    :param decoded_bytes: size of the file of decoded targets at most; see :mod:`logitstore.store.decoded`.
    """

    def __init__(
        self, storage: Storage, manifest: Manifest, root_digest: str, decoded_bytes: int | None = None
    ) -> None:
        self.storage = storage
        self.manifest = manifest
        self.root_digest = root_digest
        self.decoded_bytes = decoded_bytes
        self._draws: OrderedDict[str, U8] = OrderedDict()
        self._runs: OrderedDict[str, Runs] = OrderedDict()
        self._clips_of: tuple[list[Commit], weakref.ref[I64]] | None = None  # of the last blocks asked for
        self._read: OrderedDict[str, bytes] = OrderedDict()  # objects of blocks by their paths
        self._read_bytes, self._reading = 0, threading.Lock()
        self._part_contents: dict[str, bytes] = {}  # of the clip table, where it was read from a URL

    def __reduce__(self) -> tuple[Any, ...]:
        """A piece is handed to another process as where it lies; what is decoded is shared all the same."""
        if self.commits:
            self._decoded.share()
            if self._many_draws:
                self._decoded_draws.share()
            if self.manifest.relations is not None:
                self._decoded_relations.share()
        return Piece, (self.storage, self.manifest, self.root_digest, self.decoded_bytes)

    @property
    def parts(self) -> Sequence[Piece]:
        """What it is read from: itself, or several that are one ensemble."""
        return (self,)

    @property
    def location(self) -> str:
        """What a user calls the piece."""
        return self.storage.location

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """The commits, by shard and first view; read once, when first used, and held against manifest and clip table.

        :raises CorruptStoreError: one is damaged, or says what cannot be.
        """
        found = commits.read_all(self.storage, root_digest=self.root_digest, whole=True)
        if found:
            commits.require_fitting(found, self.manifest, [*self._part_rows.values()], self.location)
        return found

    @property
    def views(self) -> int:
        """Number of views V: one more than the highest view of any block; from a listing, until commits are read."""
        return self._listed_views if "commits" not in vars(self) else _last_view(self.commits)

    @functools.cached_property
    def _listed_views(self) -> int:
        return _last_view(span for of_shard in commits.spans(self.storage).values() for span in of_shard)

    # the clip table

    def clip_files(self) -> dict[str, pq.ParquetFile]:
        """The files of the clip table by name, in the order of their clips; opened, not read.

        :raises CorruptStoreError: one is missing or damaged, or is not the one that was committed.
        """
        return {name: self.clip_file(name) for name in self._part_names}

    @functools.cached_property
    def _part_names(self) -> tuple[str, ...]:
        """The files of the clip table, checked against the commits; once, when first used."""
        known = {commit.clip_table: commit.clip_table_digest for commit in self.commits}
        for name in self._part_rows:
            if name in known and self._part_digest(name) != known[name]:
                raise CorruptStoreError(f"{self.location}: {name} is not the file that was committed; restore it")
        return tuple(self._part_rows)

    @functools.cached_property
    def _part_rows(self) -> dict[str, int]:
        """Number of clips that each file of the clip table claims, in their order."""
        from logitstore.store.format.parts import part_names

        names = part_names(self.storage)
        if not names:
            raise CorruptStoreError(f"{self.location}: {part_name(0)} is missing; restore it")
        rows = {}
        for name in names:
            with self.clip_file(name) as file:
                rows[name] = int(file.metadata.num_rows)
        return rows

    def clip_file(self, name: str) -> pq.ParquetFile:
        """One file of the clip table, its digest unchecked."""
        from logitstore.store.format.parts import open_part

        return open_part(self.storage, name, self._known_content(name))

    def clip_group(self, name: str, file: pq.ParquetFile, columns: Sequence[str] | None, group: int) -> pa.Table:
        """Some columns of a group of rows of one file of the clip table."""
        from logitstore.store.format.parts import read_columns

        return read_columns(self.storage, name, file, columns, content=self._known_content(name), group=group)

    def _known_content(self, name: str) -> bytes | None:
        return None if isinstance(self.storage, LocalStorage) else self._content(name)

    def _part_digest(self, name: str) -> str:
        if isinstance(self.storage, LocalStorage):
            return file_digest(self.storage.file(name))
        return digest(self._content(name))

    def _content(self, name: str) -> bytes:
        if name not in self._part_contents:
            self._part_contents[name] = self.storage.get(name)
        return self._part_contents[name]

    def read_clips(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of the clip table, all by default, one row a clip."""
        import pyarrow as pa

        from logitstore.store.format.parts import read_columns

        tables = [
            read_columns(self.storage, name, file, columns, content=self._known_content(name))
            for name, file in self.clip_files().items()
        ]
        return pa.concat_tables(tables, promote_options="default")

    def clip_rows(self, clips: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of some clips, rising: only the groups of rows that hold them are read."""
        found: list[dict[str, Any]] = []
        first = 0
        for name, file in self.clip_files().items():
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                here = [clip - first for clip in clips[bisect_left(clips, first) : bisect_left(clips, stop)]]
                if here:
                    rows = self.clip_group(name, file, columns, group)
                    found += rows.take(here).to_pylist()
                first = stop
        return found

    @functools.cached_property
    def clips(self) -> pa.Table:
        """The clip table: clip (int64, its number), path, start, length (frames), rate (Hz), the user's columns.

        :raises CorruptStoreError: a file of the table is not the one that the commits name.
        """
        import pyarrow as pa

        table = self.read_clips()
        return table.add_column(0, "clip", pa.array(np.arange(table.num_rows)))

    @functools.cached_property
    def keys(self) -> StoredKeys:
        """Path, start, length and rate of each clip, read where they are asked for."""
        from logitstore.store.keys import StoredKeys

        return StoredKeys([self])

    @property
    def part_clips(self) -> tuple[int, ...]:
        """Number of clips that every file of the clip table claims."""
        return tuple(self._part_rows.values())

    @property
    def shards(self) -> int:
        """Number of shards of the clip table; none spans two files of it."""
        return sum(-(-clips // self.manifest.shard_clips) for clips in self.part_clips)

    def lengths(self, clips: I64) -> I64:
        """The clips' own lengths in samples at the store's rate, before padding: int64 (n,)."""
        length, rate = self._numbers
        own = samples_at(length[clips], np.maximum(rate[clips], 1), self.manifest.sample_rate)
        return np.minimum(np.asarray(own, dtype=np.int64), self.manifest.clip_samples)

    @functools.cached_property
    def _numbers(self) -> tuple[I64, I64]:
        table = self.read_clips(["length", "rate"])
        length, rate = (table[name].to_numpy().astype(np.int64) for name in ("length", "rate"))
        return length, rate

    # views, in any order of clips

    def clips_of(self, view: int) -> I64:
        """The clips, rising, that have targets for a view."""
        blocks, last = self._places.commits_of(view), self._clips_of
        if last is not None and blocks == last[0]:  # as of a build's views, which lie in one block
            found = last[1]()
            if found is not None:
                return found
        clips = np.empty(sum(each.clips - len(each.failed) for each in blocks), np.int64)
        at = 0
        for each in blocks:
            rows = each.readable
            np.add(rows, each.first_clip, out=clips[at : at + len(rows)])
            at += len(rows)
        self._clips_of = blocks, weakref.ref(clips)
        return clips

    def targets(self, view: int, clips: I64) -> tuple[U16, F32]:
        """What the ensemble said of one view of some clips: classes uint16 (n, k), probabilities float32 (n, k).

        Places that a view of a store with a quality does not use have the class C and the probability 0.

        :raises UsageError: a clip has no targets for this view.
        :raises CorruptStoreError: an object is not the one that was committed.
        """
        taken = self._decoded.take(view, clips, self._places.blocks_of(view, clips), self._packed)
        classes, codes = unpack(taken, self.k, self.manifest.quantizer.code_bytes)
        return classes, self._probabilities(classes, self._table.take(codes))

    def require_targets(self, view: int, clips: I64) -> None:
        """Refuse what cannot be read of a view of some clips: the objects of their blocks are read, and not decoded.

        :raises UsageError: a clip has no targets for this view.
        :raises CorruptStoreError: an object is not the one that was committed.
        """
        for number in np.unique(self._places.blocks_of(view, clips)):
            commit = self.commits[int(number)]
            self._objects(commit, list(commit.objects))

    def rests(self, view: int, clips: I64) -> F32:
        """The probability of each class that a view does not keep, of one view of some clips: float32 (n,).

        :raises MismatchError: a store without a quality, which does not know it.
        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        self.require_rests()
        taken = self._decoded.take(view, clips, self._places.blocks_of(view, clips), self._packed)
        return REST.table().take(taken[:, -1])

    def require_rests(self) -> None:
        """:raises MismatchError: the store knows nothing of the classes that a view does not keep."""
        if self.manifest.quality is None:
            raise MismatchError(
                f"{self.location} keeps {self.manifest.topk} classes of every view, and nothing of the others; build a "
                "store with --quality for that"
            )

    def relations(self, view: int, clips: I64) -> Relations:
        """The relations of one view of some clips.

        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        blocks = self._places.blocks_of(view, clips)
        return self._relations(self._decoded_relations.take(view, clips, blocks, self._relation_codes))

    def frames(self, view: int, clips: I64) -> Runs:
        """The runs of one view of some clips, in their order.

        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        self._places.blocks_of(view, clips)  # refuses those that failed
        found, order = [], []
        for commit, where, rows in self._places.by_block(view, clips):
            found.append(self.block_frames(commit).take(rows * commit.views + (view - commit.view_start)))
            order.append(where)
        return Runs.joined(found).take(np.argsort(np.concatenate(order or [np.zeros(0, np.int64)])))

    def draws(self, view: int, clips: I64) -> dict[str, I64]:
        """The draw columns of one view of some clips, each int64 (n,)."""
        columns = {column.name: np.zeros(len(clips), np.int64) for column in self.manifest.columns}
        if not columns:
            return columns
        if self._many_draws:
            blocks = self._places.blocks_holding(view, clips)
            taken = self._decoded_draws.take(view, clips, blocks, self._draw_rows)
            by_name = layout.decode_draws(self.manifest.columns, taken.T, 1)
            return {name: values[:, 0] for name, values in by_name.items()}
        for commit, where, rows in self._places.by_block(view, clips):
            planes = self._drawn(commit)[:, rows * commit.views + (view - commit.view_start)]
            for name, drawn in layout.decode_draws(self.manifest.columns, planes, 1).items():
                columns[name][where] = drawn[:, 0]
        return columns

    @functools.cached_property
    def basis(self) -> Basis:
        """The basis of the clips' vectors.

        :raises CorruptStoreError: it is missing, or not the one that blocks were committed with.
        """
        (content,) = self.storage.get_many([BASIS])
        if content is None:
            raise CorruptStoreError(f"{self.location}: {BASIS} is missing; restore it from a copy")
        for commit in self.commits:
            if commit.basis != digest(content):
                raise CorruptStoreError(
                    f"{self.location}: {BASIS} is not the object that block {commit.name} was committed with; restore "
                    "it from a copy"
                )
        return decode_basis(content, self.location)

    @property
    def basis_digest(self) -> str | None:
        """Digest of the basis; None where there is none, or no block yet."""
        return next((commit.basis for commit in self.commits if isinstance(commit.basis, str)), None)

    # block by block

    def block_targets(self, commit: Commit) -> tuple[U16, F32]:
        """Classes uint16 and probabilities float32, each (R, V, k), of a block; zero in the rows that failed.

        Unused places are as those of :meth:`targets`.
        """
        targets, _ = self._decode(commit)
        probabilities = self._probabilities(targets.classes, self._table[targets.codes])
        probabilities[~targets.readable] = 0
        return targets.classes, probabilities

    def block_rests(self, commit: Commit) -> F32:
        """The probability of each class that a view does not keep, float32 (R, V), of a block; 0 in rows that failed.

        :raises MismatchError: a store without a quality, which does not know it.
        """
        self.require_rests()
        targets, _ = self._decode(commit)
        assert targets.kept is not None
        rests = REST.table()[targets.kept.rests]
        rests[~targets.readable] = 0
        return rests

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        """Draw columns of a block, each int64 (R, V)."""
        return layout.decode_draws(self.manifest.columns, self._draw_planes(commit), commit.views)

    def block_members(self, commit: Commit) -> F32:
        """Each member's probabilities at the ensemble's classes, float32 (M, R, V, k); NaN in places not used.

        :raises CorruptStoreError: the block holds none.
        """
        targets, codes = self._decode(commit, "members")
        if codes is None:
            raise CorruptStoreError(f"{self.location}: block {commit.name} holds no members; restore it")
        probabilities = self._table[codes]
        probabilities[:, targets.classes == len(self.manifest.classes)] = np.nan
        probabilities[:, ~targets.readable] = 0
        return probabilities

    def block_classes(self, commit: Commit) -> layout.Entries:
        """The entries of a block (see ``layout``): enough to count classes, undecoded."""
        try:
            entries = layout.decode_entries(
                self._arrays(commit, "classes", "views", *([] if commit.bits is None else ["firsts"])),
                commit.clips,
                commit.views,
                len(self.manifest.classes),
                self.manifest.format_version,
                commit.bits,
            )
        except (ValueError, IndexError) as error:
            raise self._damaged(commit, error) from error
        self._check_entries(commit, entries)
        return entries

    def block_relations(self, commit: Commit) -> Relations:
        """The relations of a block, by row and then by view: (R * V, …); those of rows that failed mean nothing."""
        return self._relations(self._relation_codes(commit).reshape(-1, self._relation_spec.width))

    def block_frames(self, commit: Commit) -> Runs:
        """The runs of a block, by row and then by view; none of rows that failed."""
        if commit.name in self._runs:
            self._runs.move_to_end(commit.name)
            return self._runs[commit.name]
        runs = self._runs[commit.name] = self._decoded_frames(commit)
        while len(self._runs) > 1 and sum(kept.nbytes for kept in self._runs.values()) > RUNS_BYTES:
            self._runs.popitem(last=False)
        return runs

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by name, scratch and claims aside."""
        aside = (SCRATCH, claims.FOLDER)
        return {name: size for name, size in self.storage.sizes().items() if name.split("/")[0] not in aside}

    def block_bytes(self) -> dict[str, int]:
        """Bytes of the objects of each block, by its name.

        :raises CorruptStoreError: one is missing.
        """
        sizes = self.storage.sizes(BLOCKS)
        found = {}
        for commit in self.commits:
            try:
                found[commit.name] = sum(sizes[f"{commit.group}/{name}"] for name in commit.objects)
            except KeyError as error:
                raise CorruptStoreError(
                    f"{self.location}: an object of block {commit.name} is missing; {REPAIR.format(commit.name)}"
                ) from error
        return found

    # how it is decoded

    @functools.cached_property
    def _table(self) -> F32:
        return self.manifest.quantizer.table()

    @functools.cached_property
    def _places(self) -> Places:
        return Places(self.commits, self.location)

    @functools.cached_property
    def k(self) -> int:
        """Classes that a view has places for: ``topk``, or the most that any view of a store with a quality keeps."""
        if self.manifest.quality is None:
            return self.manifest.topk
        return max((each.kept.most for each in self.commits if each.kept is not msgspec.UNSET), default=1)

    def _probabilities(self, classes: U16, of_codes: F32) -> F32:
        """Probabilities, 0 in the places that a view does not use; those of codes are changed."""
        if self.manifest.quality is not None:
            of_codes[classes == len(self.manifest.classes)] = 0
        return of_codes

    @functools.cached_property
    def _decoded(self) -> DecodedTargets:
        width = self.k * (2 + self.manifest.quantizer.code_bytes) + (self.manifest.quality is not None)
        return DecodedTargets(self._content_key, self.commits, width, self.decoded_bytes)

    @functools.cached_property
    def _decoded_relations(self) -> DecodedTargets:
        key = f"{self._content_key} relations"
        return DecodedTargets(key, self.commits, self._relation_spec.width, self.decoded_bytes)

    @functools.cached_property
    def _content_key(self) -> str:
        return content_key(self.storage, self.commits)

    @functools.cached_property
    def _decoded_draws(self) -> DecodedTargets:
        """Draws as rows of bytes: of a store of so many that blocks in memory would be decoded over and over."""
        return DecodedTargets(f"{self._content_key} draws", self.commits, self._planes, self.decoded_bytes)

    @property
    def _planes(self) -> int:
        return sum(column.planes for column in self.manifest.columns)

    @functools.cached_property
    def _many_draws(self) -> bool:
        return sum(commit.clips * commit.views for commit in self.commits) * self._planes > DRAWS_BYTES

    @functools.cached_property
    def _relation_spec(self) -> RelationSpec:
        if self.manifest.relations is None:
            raise MismatchError(f"{self.location} has no relations; build a store with --relations")
        return self.manifest.relations

    @functools.cached_property
    def _frame_spec(self) -> FrameSpec:
        if self.manifest.frames is None:
            raise MismatchError(f"{self.location} does not say when; build a store with --frames")
        return self.manifest.frames

    def _decoded_frames(self, commit: Commit) -> Runs:
        spec = self._frame_spec
        try:
            runs = frames.from_arrays(
                spec, self._arrays(commit, *frames.ARRAYS), commit.clips * commit.views, len(self.manifest.classes)
            )
        except ValueError as error:
            raise self._damaged(commit, error) from error
        failed = [row for row, _ in commit.failed]
        if failed and runs.counts.reshape(commit.clips, commit.views)[failed].any():
            raise self._damaged(commit, "a clip that failed has frames")
        return runs

    def _relation_codes(self, commit: Commit) -> U8:
        spec = self._relation_spec
        try:
            return relations.from_arrays(spec, self._arrays(commit, *spec.lengths), commit.clips, commit.views)
        except ValueError as error:
            raise self._damaged(commit, error) from error

    def _relations(self, codes: U8) -> Relations:
        spec = self._relation_spec
        return relations.decode(spec, codes, None if spec.clips is None else self.basis.mean)

    def _packed(self, commit: Commit) -> U8:
        targets, _ = self._decode(commit)
        if self.manifest.columns and not isinstance(self.storage, LocalStorage) and not self._many_draws:
            self._drawn(commit)  # they lie in objects that were just read, and need not be read again
        rests = None if targets.kept is None else targets.kept.rests
        return pack(targets.classes, targets.codes, self.manifest.quantizer.code_bytes, rests)

    def _decode(self, commit: Commit, *more: str) -> tuple[layout.Targets, U16 | None]:
        """The targets of a block, of k places a view, and with ``"members"`` its members' codes (M, R, V, k)."""
        version, class_count = self.manifest.format_version, len(self.manifest.classes)
        lowest = ["lowest"] if version >= layout.BY_CLASS else []
        rests = [] if commit.kept is msgspec.UNSET else ["rests"]
        most = self.manifest.topk if commit.kept is msgspec.UNSET else commit.kept.most
        arrays = self._arrays(commit, "classes", "views", *lowest, *rests, "firsts", "residuals", *more)
        try:
            targets, members = layout.decode_block(
                arrays, commit.clips, commit.views, most, class_count, version, commit.bits
            )
        except (ValueError, IndexError) as error:
            raise self._damaged(commit, error) from error
        if np.flatnonzero(~targets.readable).tolist() != [row for row, _ in commit.failed]:
            raise self._damaged(commit, "the rows without targets are not those that failed")
        low, high = self.manifest.quantizer.allowed
        for codes in [targets.codes[targets.readable]] + ([] if members is None else [members[:, targets.readable]]):
            if codes.size and not low <= int(codes.min()) <= int(codes.max()) <= high:
                raise self._damaged(commit, "a code is no probability in (0, 1)")
        if most < self.k:
            targets, members = layout.widened(targets, members, self.k, class_count)
        return targets, members

    def _check_entries(self, commit: Commit, entries: layout.Entries) -> None:
        """Refuse entries of more or less views than the block has."""
        if commit.kept is not msgspec.UNSET:
            held = np.zeros((commit.clips, commit.views), dtype=np.int64)
            np.add.at(held, entries.numbers // len(self.manifest.classes), entries.present)
            held = held[commit.readable]
            if held.size and not 1 <= int(held.min()) <= int(held.max()) <= commit.kept.most:
                raise self._damaged(commit, f"it does not hold 1 to {commit.kept.most} classes of every view")
        elif int(np.count_nonzero(entries.present)) != commit.stored_views * self.manifest.topk:
            raise self._damaged(commit, f"it does not hold {self.manifest.topk} classes of every view")

    def _draw_planes(self, commit: Commit) -> U8:
        """The draws of a block as they are stored, uint8 (planes, R * V); every one is in its range."""
        manifest = self.manifest
        planes = self._arrays(commit, "draws")["draws"]
        if planes.shape[1] != commit.clips * commit.views:
            raise self._damaged(commit, f"draws has {planes.shape[1]} columns, not {commit.clips * commit.views}")
        drawn = Draws(layout.decode_draws(manifest.columns, planes, commit.views))
        imported = manifest.device_kind == IMPORTED
        rows = np.arange(commit.clips)[:, None]
        wrong = manifest.recipe.impossible(drawn, rows, commit.clips, manifest.place, imported=imported)
        for name, bad in wrong.items():
            if bad.any():
                raise self._damaged(commit, f"{name} {int(drawn.columns[name][bad][0])} is outside of its range")
        return planes

    def _damaged(self, commit: Commit, what: object) -> CorruptStoreError:
        return CorruptStoreError(f"{self.location}: block {commit.name}: {what}; {REPAIR.format(commit.name)}")

    def _drawn(self, commit: Commit) -> U8:
        """The draws of a block as they are stored, uint8 (planes, R * V)."""
        if commit.name in self._draws:
            self._draws.move_to_end(commit.name)
            return self._draws[commit.name]
        planes = self._draws[commit.name] = self._draw_planes(commit)
        while len(self._draws) > 1 and sum(kept.nbytes for kept in self._draws.values()) > DRAWS_BYTES:
            self._draws.popitem(last=False)
        return planes

    def _draw_rows(self, commit: Commit) -> U8:
        return np.ascontiguousarray(self._draw_planes(commit).T).reshape(commit.clips, commit.views, -1)

    def _arrays(self, commit: Commit, *names: str) -> dict[str, U8]:
        """Arrays of a block, by name; their objects are read at once where that helps, and checked."""
        holders = held_in(self.manifest, names)
        wanted = [name for name in commit.objects if name.split("/", 1)[0] in holders]
        found = self._objects(commit, wanted)

        def get(name: str) -> bytes:
            return found[name] if name in found else self._checked(commit, name, None)

        try:
            return decode_arrays(self.manifest, commit, get, names, sum(map(len, found.values())))
        except ValueError as error:
            raise self._damaged(commit, error) from error

    def _objects(self, commit: Commit, names: Sequence[str]) -> dict[str, bytes]:
        """Objects of a block by name, checked; from a URL each is read once while there is room to keep it."""
        kept = {name: self._read.get(f"{commit.group}/{name}") for name in names}
        found = {name: content for name, content in kept.items() if content is not None}
        missing = [name for name in names if name not in found]
        contents = self.storage.get_many([f"{commit.group}/{name}" for name in missing])
        read = {name: self._checked(commit, name, content) for name, content in zip(missing, contents, strict=True)}
        if not isinstance(self.storage, LocalStorage):
            with self._reading:
                for name, content in read.items():
                    before = self._read.pop(f"{commit.group}/{name}", b"")
                    self._read[f"{commit.group}/{name}"] = content
                    self._read_bytes += len(content) - len(before)
                while self._read_bytes > READ_BYTES:
                    self._read_bytes -= len(self._read.popitem(last=False)[1])
        return found | read

    def _checked(self, commit: Commit, name: str, content: bytes | None) -> bytes:
        path = f"{commit.group}/{name}"
        if content is None:
            raise CorruptStoreError(f"{self.location}: {path} is missing; {REPAIR.format(commit.name)}")
        if digest(content) != commit.objects.get(name):
            raise CorruptStoreError(
                f"{self.location}: {path} is not the object that was committed; {REPAIR.format(commit.name)}"
            )
        return content
