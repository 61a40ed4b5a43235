"""Writing a store: the root and the clip table once, then block by block, each made real by its commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from logitstore.errors import MismatchError, NotAStoreError
from logitstore.store import claims, commits
from logitstore.store.commits import Commit
from logitstore.store.layout import Targets, encode_draws, encode_targets
from logitstore.store.manifest import ROOT, Manifest, decode_root, digest, encode_root, require_same
from logitstore.store.objects import encode_group
from logitstore.store.storage import SCRATCH, Storage
from logitstore.view.fingerprint import Fingerprint
from logitstore.view.recipe import Draws

CLIPS = "clips"
_SOME = 3  # how many examples an error shows


@dataclass(frozen=True)
class Part:
    """One file of the clip table, and where its rows and shards start."""

    name: str
    digest: str
    table: pa.Table
    first_clip: int
    first_shard: int


@dataclass(frozen=True)
class BlockContent:
    """What a block holds, decoded.

    ``targets`` in codes; ``members`` uint16 codes (M, R, V, k) or None; ``draws`` int64 columns (R, V); ``failed`` the
    reasons by row; ``fingerprints`` of a sample of views.
    """

    targets: Targets
    members: npt.NDArray[np.uint16] | None
    draws: Draws
    failed: dict[int, str]
    fingerprints: Sequence[Fingerprint]


class StoreWriter:
    """A store being built. What is committed is never touched, except that a retry replaces a block as a whole."""

    def __init__(self, storage: Storage, manifest: Manifest, root: bytes, part: Part) -> None:
        self.storage = storage
        self.manifest = manifest
        self.part = part
        self._root_digest = digest(root)

    @classmethod
    def open(cls, storage: Storage, manifest: Manifest, clip_table: pa.Table) -> StoreWriter:
        """Begin a store, or go on with one that the same manifest and clips began.

        :param clip_table: columns path, start, length, rate and the user's; row i is clip i.
        :raises NotAStoreError: there is something else at that place.
        :raises MismatchError: the store was made otherwise or from other clips; the difference is shown.
        """
        root = encode_root(manifest)
        try:
            stored_root: bytes | None = storage.get(ROOT)
        except FileNotFoundError:
            stored_root = None
        except NotADirectoryError as error:
            raise NotAStoreError(f"{storage.location} is a file, not a store; choose another --out") from error
        if stored_root is None:
            strangers = [name for name in storage.names() if name.split("/")[0] not in (SCRATCH, claims.FOLDER, CLIPS)]
            if strangers:
                raise NotAStoreError(
                    f"{storage.location} exists and is not a store (it holds {strangers[0]}); choose another --out, "
                    "or empty that folder"
                )
            if not storage.create(ROOT, root):
                stored_root = storage.get(ROOT)
        if stored_root is not None:
            stored = decode_root(stored_root, storage.location)
            require_same(stored, manifest, storage.location)
            manifest, root = stored, stored_root
        name = f"{CLIPS}/00000.parquet"
        content = encode_clips(clip_table)
        if storage.create(name, content):
            table = clip_table
        else:
            content = storage.get(name)
            table = pq.read_table(pa.BufferReader(content))
            require_same_clips(table, clip_table, storage.location)
        return cls(storage, manifest, root, Part(name, digest(content), table, 0, 0))

    @property
    def shards(self) -> int:
        """Number of shards of the clip table."""
        return -(-int(self.part.table.num_rows) // self.manifest.shard_clips)

    def shard_rows(self, shard: int) -> range:
        """The clips of a shard."""
        start = (shard - self.part.first_shard) * self.manifest.shard_clips
        stop = min(start + self.manifest.shard_clips, self.part.table.num_rows)
        return range(self.part.first_clip + start, self.part.first_clip + stop)

    def write_block(self, shard: int, view_start: int, view_stop: int, content: BlockContent, group: str) -> Commit:
        """Write a block's objects, then its commit."""
        manifest = self.manifest
        arrays = encode_targets(
            content.targets, len(manifest.classes), manifest.quantizer.code_bytes, content.members
        )  # fmt: skip
        if manifest.columns:
            arrays["draws"] = encode_draws(manifest.columns, content.draws.columns)
        objects = encode_group(arrays, {})
        for name, data in objects.items():
            self.storage.put(f"{group}/{name}", data)
        rows = self.shard_rows(shard)
        commit = Commit(
            shard=shard,
            first_clip=rows.start,
            clips=len(rows),
            view_start=view_start,
            view_stop=view_stop,
            group=group,
            objects={name: digest(data) for name, data in objects.items()},
            clip_table=self.part.name,
            clip_table_digest=self.part.digest,
            manifest_digest=self._root_digest,
            failed=tuple(sorted(content.failed.items())),
            fingerprints=tuple(content.fingerprints),
        )
        self.storage.put(commits.object_name(commit.name), commits.encode(commit))
        return commit

    def drop_group(self, group: str) -> None:
        """Remove the objects of a group that no commit names any more."""
        for name in list(self.storage.names(group)):
            self.storage.delete(name)

    def sweep(self, committed: Sequence[Commit]) -> None:
        """Remove what interrupted builders left: scratch files, and block groups that no commit names.

        Only for a finished build: the caller has seen that no shard is missing and none is claimed.
        """
        kept = {commit.group for commit in committed}
        self.storage.sweep_scratch()
        for name in list(self.storage.names(claims.FOLDER)):
            self.storage.delete(name)
        for name in list(self.storage.names("blocks")):
            if "/".join(name.split("/")[:2]) not in kept:
                self.storage.delete(name)


def encode_clips(table: pa.Table) -> bytes:
    """A part of the clip table as Parquet bytes, a function of the table alone."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, row_group_size=1 << 17, write_statistics=True
    )  # fmt: skip
    return bytes(sink.getvalue().to_pybytes())


def require_same_clips(stored: pa.Table, scanned: pa.Table, location: str) -> None:
    """Refuse clips other than the store's. A clip that has since gone is no difference: it fails when it is decoded.

    :raises MismatchError: naming the first clips or columns that differ.
    """
    if stored.column_names != scanned.column_names:
        raise MismatchError(
            f"the clips of {location} have the columns {', '.join(stored.column_names)}, the source now gives "
            f"{', '.join(scanned.column_names)}; give the source that the store was made from, or another --out"
        )
    if stored.equals(scanned.cast(stored.schema)):
        return
    key_names = ["path", "start", "length"]
    old = set(zip(*(stored[name].to_pylist() for name in key_names), strict=True))
    new = set(zip(*(scanned[name].to_pylist() for name in key_names), strict=True))
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
        raise MismatchError(
            f"the clips of {location} are the same and their other columns differ; give the manifest that the store "
            "was made from, or another --out"
        )
