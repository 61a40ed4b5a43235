"""Writing a store: the root and the clip table once, then block by block, each made real by its commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, MismatchError, NotAStoreError, UsageError
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.basis import BASIS, Basis, decode_basis, encode_basis
from logitstore.store.format.commits import Commit, KeptSpec
from logitstore.store.format.frames import Runs
from logitstore.store.format.frames import to_arrays as frame_arrays
from logitstore.store.format.layout import BY_CLASS, Targets, encode_draws, encode_targets
from logitstore.store.format.manifest import ROOT, Manifest, decode_root, encode_root, problems, require_same
from logitstore.store.format.objects import FRAMES, PACKED, encode_group
from logitstore.store.format.parts import (
    Part,
    encode_clips,
    next_part,
    part_names,
    parts_of_source,
    plan_extension,
    read_parts,
)
from logitstore.store.format.relations import to_arrays
from logitstore.store.names import BLOCKS, CLIPS, group_attempt, group_name, part_name
from logitstore.store.storage import SCRATCH, Storage
from logitstore.views.fingerprint import Fingerprint
from logitstore.views.recipe import Draws

_OF_SHARD = re.compile(rf"(?P<group>({BLOCKS}|{claims.FOLDER})/(?P<shard>\d{{6,}})[^/]*)")


@dataclass(frozen=True)
class BlockContent:
    """What a block holds, decoded.

    ``targets`` in codes; ``members`` uint16 codes (M, R, V, k) or None; ``draws`` int64 columns (R, V); ``failed`` the
    reasons by row; ``fingerprints`` of a sample of views; ``relations`` uint8 codes (R, V, width) or None, zero in the
    rows that failed; ``frames`` the runs of every view, by row and then by view, or None, none in the rows that failed.
    """

    targets: Targets
    members: npt.NDArray[np.uint16] | None
    draws: Draws
    failed: dict[int, str]
    fingerprints: Sequence[Fingerprint]
    relations: npt.NDArray[np.uint8] | None = None
    frames: Runs | None = None


class StoreWriter:
    """A store being built. What is committed is never touched, except that a retry replaces a block as a whole."""

    def __init__(
        self, storage: Storage, manifest: Manifest, root: bytes, parts: Sequence[Part], own: Sequence[Part]
    ) -> None:
        self.storage = storage
        self.manifest = manifest
        self.parts = tuple(parts)
        self.own = tuple(own)
        self.root_digest = digest(root)
        self._basis_digest: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def open(cls, storage: Storage, manifest: Manifest, clip_table: pa.Table) -> StoreWriter:
        """Begin a store, or go on with one that the same manifest and clips began; ``own`` are the parts of the clips.

        :param clip_table: columns path, start, length, rate and the user's; row i is clip i. Of a store that has been
            extended, the clips of some of its parts.
        :raises NotAStoreError: there is something else at that place.
        :raises CorruptStoreError: the manifest or the clip table is not the one that blocks were committed under.
        :raises MismatchError: the store was made otherwise or from other clips; the difference is shown.
        """
        manifest, root, committed = cls._begin(storage, manifest)
        if not part_names(storage):
            content = encode_clips(clip_table)
            if storage.create(part_name(0), content):  # otherwise another builder was first
                part = next_part((), clip_table, digest(content), manifest.shard_clips)
                return cls(storage, manifest, root, (part,), (part,))
        parts = read_parts(storage, manifest.shard_clips)
        _require_fitting(storage, manifest, committed, parts)
        return cls(storage, manifest, root, parts, parts_of_source(parts, clip_table, storage.location))

    @classmethod
    def open_like(
        cls, storage: Storage, manifest: Manifest, contents: Sequence[bytes], own: Collection[str] | None = None
    ) -> StoreWriter:
        """Begin a store with the clip table of another one, or go on with one that was begun so.

        :param contents: the files of the other's clip table; those that are missing here are added.
        :param own: names of the parts that are to be built, all of them by default.
        :raises NotAStoreError, CorruptStoreError, MismatchError: as :meth:`open`.
        """
        manifest, root, committed = cls._begin(storage, manifest)
        for number, content in enumerate(contents):
            if not storage.create(part_name(number), content) and storage.get(part_name(number)) != content:
                raise MismatchError(
                    f"{part_name(number)} of {storage.location} holds other clips than the store that it is to be "
                    "like; give the store that it was begun like, or another --out"
                )
        parts = read_parts(storage, manifest.shard_clips)
        _require_fitting(storage, manifest, committed, parts)
        chosen = [part for part in parts[: len(contents)] if own is None or part.name in own]
        return cls(storage, manifest, root, parts, chosen)

    @classmethod
    def _begin(cls, storage: Storage, manifest: Manifest) -> tuple[Manifest, bytes, Sequence[Commit]]:
        """Write the manifest, unless it is there: the stored one, its bytes, and what was committed under it."""
        for problem in problems(manifest):
            raise UsageError(f"this cannot be stored: {problem}")
        root = encode_root(manifest)
        committed: Sequence[Commit] = ()
        try:
            stored_root: bytes | None = storage.get(ROOT)
        except FileNotFoundError:
            stored_root = None
        except NotADirectoryError as error:
            raise NotAStoreError(f"{storage.location} is a file, not a store; choose another --out") from error
        if stored_root is None:
            strangers = [name for name in storage.names() if name.split("/")[0] not in (SCRATCH, claims.FOLDER, CLIPS)]
            begun = ROOT in strangers  # by another builder, this very moment
            if strangers and not begun:
                raise NotAStoreError(
                    f"{storage.location} exists and is not a store (it holds {strangers[0]}); choose another --out, "
                    "or empty that folder"
                )
            if begun or not storage.create(ROOT, root):
                stored_root = storage.get(ROOT)
        if stored_root is not None:
            stored = decode_root(stored_root, storage.location)
            require_same(stored, manifest, storage.location)
            manifest, root = stored, stored_root
            committed = _require_committed(storage, root)
        return manifest, root, committed

    @classmethod
    def extend(
        cls, storage: Storage, manifest: Manifest, clip_table: pa.Table, skip_known: bool = False
    ) -> StoreWriter:
        """Add clips to a store as a new part of its clip table, or go on with the part that they began.

        :param manifest: what the store's must be. :param skip_known: leave out clips that the store has.
        :raises NotAStoreError: there is no store.
        :raises UsageError: its build has yet to fit the basis of its clips' vectors.
        :raises MismatchError: the store was made otherwise; or, without ``skip_known``, it has some of these clips.
        """
        try:
            root = storage.get(ROOT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotAStoreError(f"no store at {storage.location}; build one first") from error
        stored = decode_root(root, storage.location)
        require_same(stored, manifest, storage.location)
        committed = _require_committed(storage, root)
        kept = stored.relations
        if kept is not None and kept.clips is not None and next(iter(storage.get_many([BASIS]))) is None:
            raise UsageError(
                f"{storage.location} has no basis for its clips' vectors yet, which its build fits; run that first"
            )
        while True:
            parts = read_parts(storage, stored.shard_clips)
            if not parts:
                raise NotAStoreError(f"{storage.location} has no clips yet; run its build first")
            _require_fitting(storage, stored, committed, parts)
            own, fresh = plan_extension(parts, clip_table, storage.location, skip_known)
            if fresh is None:
                return cls(storage, stored, root, parts, own)
            content = encode_clips(fresh)
            part = next_part(parts, fresh, digest(content), stored.shard_clips)
            if storage.create(part.name, content):  # otherwise another builder was first: look again
                return cls(storage, stored, root, (*parts, part), (*own, part))

    @property
    def shards(self) -> int:
        """Number of shards of the clip table, through all parts."""
        return self.parts[-1].shards(self.manifest.shard_clips).stop

    @property
    def clips(self) -> pa.Table:
        """The clips of all parts: path, start, length and rate."""
        return pa.concat_tables([part.table.select(["path", "start", "length", "rate"]) for part in self.parts])

    def part_of(self, shard: int) -> Part:
        """The part that a shard lies in."""
        return next(part for part in self.parts if shard in part.shards(self.manifest.shard_clips))

    def shards_of(self, parts: Sequence[Part]) -> list[int]:
        """The shards of some parts."""
        return [shard for part in parts for shard in part.shards(self.manifest.shard_clips)]

    def clips_of(self, shard: int) -> range:
        """The clips of a shard."""
        return self.part_of(shard).clips_of(shard, self.manifest.shard_clips)

    def basis(self) -> Basis | None:
        """The basis of the clips' vectors; None where the store has none yet.

        :raises CorruptStoreError: it is damaged.
        """
        (content,) = self.storage.get_many([BASIS])
        if content is None:
            return None
        self._basis_digest = digest(content)
        return decode_basis(content, self.storage.location)

    def put_basis(self, basis: Basis) -> Basis:
        """Write the basis, in one step and once: the one to use is another's where another builder was first."""
        self.storage.create(BASIS, encode_basis(basis))
        stored = self.basis()
        if stored is None:
            raise CorruptStoreError(f"{self.storage.location}: {BASIS} has gone since it was written; build again")
        return stored

    def write_block(
        self,
        shard: int,
        view_start: int,
        view_stop: int,
        content: BlockContent,
        group: str,
        *,
        keep: Callable[[], bool] = lambda: True,
        anew: bool = False,
    ) -> Commit | None:
        """Write a block's objects, then its commit.

        What another builder has left there is taken where it is the same, and never written over where it is not: that
        builder may only stand still, just before its commit. The block then has its objects in the next group.

        :param keep: whether the shard is still claimed; asked before the commit. None is returned where it is not.
        :param anew: whether the block has a commit, which this one takes the place of.
        :raises UsageError: it would have more targets than a block can have.
        """
        named, commit = self.encode_block(shard, view_start, view_stop, content, group)
        while not self._written(named):
            if not keep():
                return None
            group = group_name(commit.name, (group_attempt(group, commit.name) or 1) + 1)
            named, commit = self.encode_block(shard, view_start, view_stop, content, group)
        where, encoded = commits.object_name(commit.name), commits.encode(commit)
        if not keep():
            return None
        if anew:
            return commit if self.storage.put(where, encoded, keep) else None
        if not self.storage.create(where, encoded, keep):  # another was first, or the claim was lost between two tries
            (found,) = self.storage.get_many([where])
            return None if found is None else commits.decode(found, where)
        return commit

    def _written(self, named: dict[str, bytes]) -> bool:
        """Create objects; whether all of them are then there, with these bytes."""
        there = self.storage.create_many(named)
        return all(found == named[name] for name, found in zip(there, self.storage.get_many(there), strict=True))

    def encode_block(
        self, shard: int, view_start: int, view_stop: int, content: BlockContent, group: str
    ) -> tuple[dict[str, bytes], Commit]:
        """A block's objects by their names in the store, and its commit."""
        manifest = self.manifest
        if content.targets.classes.size > commits.MOST_TARGETS:
            raise UsageError(
                f"a block of {content.targets.classes.size:,} targets is too large, at most {commits.MOST_TARGETS:,} "
                "are allowed; give fewer --shard-clips"
            )
        version = manifest.format_version
        arrays = encode_targets(
            content.targets, len(manifest.classes), manifest.quantizer.code_bytes, content.members, version=version
        )
        if manifest.columns:
            arrays["draws"] = encode_draws(manifest.columns, content.draws.columns)
        relations: dict[str, npt.NDArray[np.uint8]] = {}
        if manifest.relations is not None and content.relations is not None:
            relations = to_arrays(manifest.relations, content.relations)
        alone, packed = (relations, {PACKED: arrays}) if version >= BY_CLASS else (arrays | relations, {})
        if manifest.frames is not None and content.frames is not None:
            packed[FRAMES] = frame_arrays(content.frames)
        objects = encode_group(alone, {}, packed)
        rows, part = self.clips_of(shard), self.part_of(shard)
        kept = content.targets.kept
        most = 0 if kept is None else max(1, int(kept.counts.max(initial=0)))
        commit = Commit(
            shard=shard,
            first_clip=rows.start,
            clips=len(rows),
            view_start=view_start,
            view_stop=view_stop,
            group=group,
            objects={name: digest(data) for name, data in objects.items()},
            clip_table=part.name,
            clip_table_digest=part.digest,
            manifest_digest=self.root_digest,
            failed=tuple(sorted(content.failed.items())),
            fingerprints=tuple(content.fingerprints),
            basis=self._basis_digest,
            kept=msgspec.UNSET if kept is None else KeptSpec(bits=kept.bits, most=most, loss=kept.loss),
        )
        return {f"{group}/{name}": data for name, data in objects.items()}, commit

    def drop_group(self, group: str, keep: Callable[[], bool]) -> None:
        """Remove the objects of a group that no commit names any more, while the claim holds; else a sweep does it."""
        for name in list(self.storage.names(group)):
            if not keep():
                return
            self.storage.delete(name)

    def sweep(self, committed: Sequence[Commit]) -> None:
        """Remove what interrupted builders left: scratch files, their claims, and block groups that no commit names.

        For a finished build. What is of a shard goes under a claim of it, so that nothing is taken from a builder that
        has begun meanwhile.
        """
        self.storage.sweep_scratch()
        kept = {commit.group for commit in committed}
        left: dict[int, list[str]] = {}
        for name in [*self.storage.names(claims.FOLDER), *self.storage.names(BLOCKS)]:
            match = _OF_SHARD.match(name)
            if match and match["group"] not in kept:
                left.setdefault(int(match["shard"]), []).append(name)
        with claims.Claimer(self.storage) as claimer:
            for shard, names in left.items():
                if not claimer.take(shard):
                    continue
                try:
                    kept = {commit.group for commit in commits.read_all(self.storage, shard)}
                    for name in names:
                        match = _OF_SHARD.match(name)
                        if match and match["group"].startswith(BLOCKS) and match["group"] not in kept:
                            if not claimer.keep(shard):
                                break
                            self.storage.delete(name)
                finally:
                    claimer.drop(shard)


def _require_fitting(storage: Storage, manifest: Manifest, committed: Sequence[Commit], parts: Sequence[Part]) -> None:
    commits.require_fitting(committed, manifest, [part.table.num_rows for part in parts], storage.location)


def _require_committed(storage: Storage, root: bytes) -> Sequence[Commit]:
    """The commits; refuses to go on under another manifest, clip table or basis than they were committed under.

    :raises CorruptStoreError: the object is not what it was or is gone, or a commit is damaged.
    """
    tables: dict[str, str] = {}
    committed = commits.read_all(storage, root_digest=digest(root))
    for commit in committed:
        tables[commit.clip_table] = commit.clip_table_digest
        if isinstance(commit.basis, str):
            tables[BASIS] = commit.basis
    for name, content in zip(tables, storage.get_many(list(tables)), strict=True):
        if content is None or digest(content) != tables[name]:
            found = "is missing" if content is None else "is not the file that was committed"
            raise CorruptStoreError(f"{storage.location}: {name} {found}; restore it from a copy")
    return committed
