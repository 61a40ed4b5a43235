"""Commits: what makes a block exist. Each is one JSON object, written last and atomically."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from logitstore.arrays import I64
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError
from logitstore.store.format.manifest import ROOT, to_json
from logitstore.store.storage import Storage
from logitstore.views.fingerprint import Fingerprint

FOLDER = "commits"
#: What to do about a damaged block, by its name.
REPAIR = "delete commits/{}.json and build again to make the block anew"
_NAME = re.compile(rf"{FOLDER}/(\d{{6,}})-(\d+)-(\d+)\.json")


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block: rows [first_clip, first_clip + clips) of the clip table, views [view_start, view_stop).

    ``objects`` holds the digest of every object of the group at ``group``, by its name within it; ``failed`` the rows
    of the shard that have no targets, with the reason; ``basis`` the digest of the store's basis, where it has one;
    ``digest`` is of this commit with an empty ``digest``.
    """

    shard: int
    first_clip: int
    clips: int
    view_start: int
    view_stop: int
    group: str
    objects: dict[str, str]
    clip_table: str
    clip_table_digest: str
    manifest_digest: str
    failed: tuple[tuple[int, str], ...]
    fingerprints: tuple[Fingerprint, ...]
    basis: str | msgspec.UnsetType = msgspec.UNSET
    digest: str = ""

    @property
    def name(self) -> str:
        """``<shard>-<first view>-<one past the last view>``."""
        return block_name(self.shard, self.view_start, self.view_stop)

    @property
    def views(self) -> int:
        """Number of views of the block."""
        return self.view_stop - self.view_start

    @property
    def stored_views(self) -> int:
        """Number of views that have targets, summed over clips."""
        return (self.clips - len(self.failed)) * self.views

    @property
    def readable(self) -> I64:
        """The rows of the block, rising, that have targets: int64 (n,)."""
        return np.delete(np.arange(self.clips), [row for row, _ in self.failed])


def block_name(shard: int, view_start: int, view_stop: int) -> str:
    """The name of a block, which sorts by shard."""
    return f"{shard:06d}-{view_start}-{view_stop}"


def object_name(name: str) -> str:
    """Where the commit of a block lies."""
    return f"{FOLDER}/{name}.json"


def objects(storage: Storage, shard: int | None = None) -> Iterator[tuple[str, bytes | None]]:
    """The objects that hold commits, of one shard where it is given: name and content, by name.

    The content is None of one that has gone since it was listed.
    """
    names = list(storage.names(FOLDER, "" if shard is None else f"{shard:06d}-"))
    yield from zip(names, storage.get_many(names), strict=True)


def read_all(
    storage: Storage, shard: int | None = None, *, root_digest: str | None = None, whole: bool = False
) -> tuple[Commit, ...]:
    """Every commit of a store that is there at this moment, by shard and first view.

    :param shard: only those of this shard.
    :param root_digest: of the manifest that they must have been committed under.
    :param whole: whether it is an error if one goes while they are read; builders may make a block anew meanwhile.
    :raises CorruptStoreError: one of them is damaged, or was committed under another manifest.
    """
    found = []
    for name, content in objects(storage, shard):
        if content is None:
            if whole:
                raise CorruptStoreError(f"{storage.location}: {name} has gone while it was read; try again")
            continue
        commit = decode(content, name)
        if root_digest is not None and commit.manifest_digest != root_digest:
            raise CorruptStoreError(
                f"{storage.location}: {name} was committed under another manifest; restore {ROOT} from a copy"
            )
        found.append(commit)
    return tuple(sorted(found, key=lambda commit: (commit.shard, commit.view_start)))


class Span(NamedTuple):
    """What the name of a commit says: the views of which shard it holds."""

    shard: int
    view_start: int
    view_stop: int


def spans(storage: Storage, shard: int | None = None) -> dict[int, list[Span]]:
    """What is committed, by shard, from one listing and no more; of one shard where it is given."""
    found: dict[int, list[Span]] = {}
    for name in storage.names(FOLDER, "" if shard is None else f"{shard:06d}-"):
        match = _NAME.fullmatch(name)
        if match:
            span = Span(*(int(number) for number in match.groups()))
            found.setdefault(span.shard, []).append(span)
    return found


def encode(commit: Commit) -> bytes:
    """The commit's bytes, with its own digest filled in."""
    blank = msgspec.structs.replace(commit, digest="")
    return to_json(msgspec.structs.replace(commit, digest=digest(to_json(blank))))


def decode(content: bytes, name: str) -> Commit:
    """The commit in an object, checked against its own digest.

    :raises CorruptStoreError: the object is not the commit that was written.
    """
    try:
        commit = msgspec.json.decode(content, type=Commit)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(name, str(error)) from error
    if encode(commit) != content:
        raise _damaged(name, f"its digest is not {commit.digest or 'there'}")
    return commit


def _damaged(name: str, why: Any) -> CorruptStoreError:
    return CorruptStoreError(f"{name} is damaged ({why}); delete that file and build again to make its block anew")
