"""Commits: what makes a block exist. Each is one JSON object, written last and atomically."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from logitstore.digests import digest
from logitstore.errors import CorruptStoreError
from logitstore.store.format.manifest import to_json
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


def block_name(shard: int, view_start: int, view_stop: int) -> str:
    """The name of a block, which sorts by shard."""
    return f"{shard:06d}-{view_start}-{view_stop}"


def object_name(name: str) -> str:
    """Where the commit of a block lies."""
    return f"{FOLDER}/{name}.json"


def read_all(storage: Storage) -> list[Commit]:
    """Every commit of a store that is there at this moment, by name.

    :raises CorruptStoreError: one of them is damaged.
    """
    names = list(storage.names(FOLDER))
    contents = zip(names, storage.get_many(names), strict=True)
    return [decode(content, name) for name, content in contents if content is not None]


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
