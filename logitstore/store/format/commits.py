"""Commits: what makes a block exist. Each is one JSON object, written last and atomically."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from logitstore.arrays import I64
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError
from logitstore.store.format.manifest import MOST_CLASSES, MOST_SHARD_CLIPS, MOST_VIEWS, ROOT, Manifest, to_json
from logitstore.store.format.quality import BITS
from logitstore.store.names import (
    COMMITS,
    commit_numbers,
    group_attempt,
    part_name,
    part_number,
    shown,
    strange_object,
)
from logitstore.store.names import block_name as block_name
from logitstore.store.storage import Storage
from logitstore.views.fingerprint import BANDS, Fingerprint

FOLDER = COMMITS
#: Targets that a block can have: clips times views times k.
MOST_TARGETS = 1 << 28
#: What to do about a damaged block, by its name.
REPAIR = "delete commits/{}.json and build again to make the block anew"
_MOST_SHARD, _MOST_CLIP = 1 << 31, 1 << 48


class KeptSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a block of a store with a quality keeps: the ``bits`` of its codes, the ``most`` classes of any of its
    views, and its ``loss``, the mean over its views in nats; see ``quality.py``."""

    bits: int
    most: int
    loss: float


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block: rows [first_clip, first_clip + clips) of the clip table, views [view_start, view_stop).

    ``objects`` holds the digest of every object of the group at ``group``, by its name within it; ``failed`` the rows
    of the shard that have no targets, with the reason; ``basis`` the digest of the store's basis, where it has one;
    ``kept`` what it keeps of its views, in a store with a quality; ``digest`` is of this commit with an empty
    ``digest``.
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
    kept: KeptSpec | msgspec.UnsetType = msgspec.UNSET
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
    def bits(self) -> int | None:
        """Bits of its codes, of a block of a store with a quality; None of others."""
        return None if self.kept is msgspec.UNSET else self.kept.bits

    @property
    def readable(self) -> I64:
        """The rows of the block, rising, that have targets: int64 (n,)."""
        return np.delete(np.arange(self.clips), [row for row, _ in self.failed])


def object_name(name: str) -> str:
    """Where the commit of a block lies."""
    return f"{FOLDER}/{name}.json"


def objects(storage: Storage, shard: int | None = None) -> Iterator[tuple[str, bytes | None]]:
    """The objects that hold commits, of one shard where it is given: name and content, by name.

    The content is None of one that has gone since it was listed. What else lies among them is no commit.
    """
    stem = "" if shard is None else f"{shard:06d}-"
    yield from storage.contents(FOLDER, stem, lambda name: commit_numbers(name) is not None)


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
        numbers = commit_numbers(name)
        if numbers is not None:
            span = Span(*numbers)
            found.setdefault(span.shard, []).append(span)
    return found


def encode(commit: Commit) -> bytes:
    """The commit's bytes, with its own digest filled in."""
    blank = msgspec.structs.replace(commit, digest="")
    return to_json(msgspec.structs.replace(commit, digest=digest(to_json(blank))))


def decode(content: bytes, name: str) -> Commit:
    """The commit in an object, checked against its own digest, and that nothing in it is impossible.

    What must fit the manifest and the clip table is left to :func:`require_fitting`.

    :raises CorruptStoreError: the object is not a commit that a builder wrote.
    """
    try:
        commit = msgspec.json.decode(content, type=Commit)
        right = encode(commit) == content
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError) as error:
        raise _damaged(name, " ".join(str(error).split())) from error
    if not right:
        raise _damaged(name, f"its digest is not {shown(commit.digest) if commit.digest else 'there'}")
    for problem in _problems(commit):
        raise _damaged(name, problem)
    if object_name(commit.name).rsplit("/", 1)[1] != name.rsplit("/", 1)[-1]:
        raise CorruptStoreError(f"{name} is the commit of another block, {commit.name}; remove it")
    return commit


def _problems(commit: Commit) -> Iterator[str]:
    """What no builder writes, whatever the manifest and the clips; nothing outside of the block is named."""
    whole = (
        0 <= commit.shard <= _MOST_SHARD
        and 0 <= commit.first_clip <= _MOST_CLIP
        and 0 <= commit.clips <= MOST_SHARD_CLIPS
        and 0 <= commit.view_start <= commit.view_stop <= MOST_VIEWS
    )
    if not whole:
        numbers = ("shard", "first_clip", "clips", "view_start", "view_stop")
        said = ", ".join(f"{name} {shown(getattr(commit, name))}" for name in numbers)
        yield f"its numbers are {said}, which no block has"
        return
    if not commit.clips:
        yield "it has no clips"
    if commit.view_start >= commit.view_stop:
        yield f"it has the views {commit.view_start}:{commit.view_stop}"
    if group_attempt(commit.group, commit.name) is None:
        yield f"group is {shown(commit.group)}, and must be blocks/{commit.name}, or that and .r2, .r3, …"
    if part_number(commit.clip_table) is None:
        yield f"clip_table is {shown(commit.clip_table)}, and must be as {part_name(0)}"
    strange = strange_object(set(commit.objects))
    if strange is not None:
        yield f"{shown(strange)} is no object of a block"
    before = -1
    for row, _ in commit.failed:
        if not before < row < commit.clips:
            yield f"the failed rows are not rising rows of {commit.clips}, with row {shown(row)}"
            break
        before = row
    kept = commit.kept
    if kept is not msgspec.UNSET:
        sound = kept.bits in BITS and 1 <= kept.most < MOST_CLASSES and math.isfinite(kept.loss) and kept.loss >= 0
        if not sound:
            said = f"up to {shown(kept.most)} classes of {shown(kept.bits)} bits, and lose {kept.loss} nats"
            yield f"its views keep {said}, which no block does"
    failed = {row for row, _ in commit.failed} if commit.fingerprints else set()
    for each in commit.fingerprints:
        inside = 0 <= each.row < commit.clips and commit.view_start <= each.view < commit.view_stop
        sound = len(each.bands) == BANDS and all(map(math.isfinite, each.bands))
        if not inside or not sound or each.row in failed:
            yield f"the fingerprint of row {shown(each.row)}, view {shown(each.view)} is of no view that it holds"
            break


def require_fitting(found: Sequence[Commit], manifest: Manifest, part_clips: Sequence[int], location: str) -> None:
    """Refuse commits that do not fit the manifest and the clip table: other clips, views twice, more than can be.

    :param found: by shard and first view. :param part_clips: number of clips of every part of the clip table.
    :raises CorruptStoreError: one does not; it is named.
    """
    for problem in misfits(found, manifest, part_clips):
        raise CorruptStoreError(f"{location}: {problem}")


def misfits(found: Sequence[Commit], manifest: Manifest, part_clips: Sequence[int]) -> Iterator[str]:
    """What :func:`require_fitting` refuses, one line each."""
    size = manifest.shard_clips
    first_clips, first_shards = [0], [0]
    for clips in part_clips:
        first_clips.append(first_clips[-1] + clips)
        first_shards.append(first_shards[-1] - (-clips // size))
    last = (-1, 0)
    for commit in found:
        name = object_name(commit.name)
        part = bisect.bisect_right(first_shards, commit.shard) - 1
        if part >= len(part_clips):
            yield f"{name} is of a shard that the clip table does not have"
            continue
        start = first_clips[part] + (commit.shard - first_shards[part]) * size
        clips = min(size, first_clips[part + 1] - start)
        if (commit.clip_table, commit.first_clip, commit.clips) != (part_name(part), start, clips):
            yield (
                f"{name} is of the clips {commit.first_clip} to {commit.first_clip + commit.clips - 1} of "
                f"{commit.clip_table}; its shard has {start} to {start + clips - 1} of {part_name(part)}"
            )
        elif (commit.clips - len(commit.failed)) * commit.views * manifest.topk > MOST_TARGETS:
            yield f"{name} claims more than {MOST_TARGETS:,} targets"
        elif (manifest.quality is None) != (commit.kept is msgspec.UNSET):
            asked = "no quality" if manifest.quality is None else f"a quality of {manifest.quality:g} nats"
            yield f"{name} {'lacks' if commit.kept is msgspec.UNSET else 'has'} kept, and the store has {asked}"
        elif commit.kept is not msgspec.UNSET and commit.kept.most > manifest.topk:
            yield f"{name} claims {commit.kept.most} classes of a view, of at most {manifest.topk}"
        elif last[0] == commit.shard and commit.view_start < last[1]:
            yield f"{name} holds views that another commit of its shard holds too"
        last = (commit.shard, max(commit.view_stop, last[1] if last[0] == commit.shard else 0))


def _damaged(name: str, why: Any) -> CorruptStoreError:
    return CorruptStoreError(f"{name} is damaged ({why}); delete that file and build again to make its block anew")
