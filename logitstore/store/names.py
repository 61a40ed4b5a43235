"""Names of a store's objects: which there can be, and which are refused wherever they come from.

A store is untrusted input, and a name in it may lead anywhere. So names are derived (a block's group from its shard and
views, its objects from the arrays that the format has) and what a commit says is held against that; and no storage
takes a name that is not one below the store.
"""

from __future__ import annotations

import re

from logitstore.errors import CorruptStoreError

BLOCKS = "blocks"
CLIPS = "clips"
COMMITS = "commits"
CLAIMS = "claims"
#: What a store on a web server has besides: the names and sizes of its objects, which plain HTTP cannot list.
LISTING = "listing.json"
#: The arrays that a block can have.
ARRAYS = ("packed", "classes", "views", "firsts", "residuals", "members", "draws",
          "frame_norms", "frame_angles", "clip_scales", "clip_vectors", "frames")  # fmt: skip

_COMMIT = re.compile(rf"{COMMITS}/([0-9]{{6,}})-([0-9]+)-([0-9]+)\.json")
_PART = re.compile(rf"{CLIPS}/([0-9]{{5}})\.parquet")
_CLAIM = re.compile(rf"{CLAIMS}/([0-9]{{6,}})\.json")
_OBJECT = re.compile(rf"zarr\.json|(?:{'|'.join(ARRAYS)})/(?:zarr\.json|c/(?:0|[1-9][0-9]{{0,5}})/0)")
_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_MOST_NAME, _MOST_SEGMENT, _MOST_DIGITS = 1000, 200, 15
_SHOWN = 80
_MOST_BYTES = {BLOCKS: 1 << 30, CLIPS: 1 << 34, CLAIMS: 1 << 12}
_MOST_OTHER_BYTES = 1 << 27  # of the manifest, of a commit, of the basis
_objects: set[str] = set()  # names that were found to be right: those of all blocks are alike


def check_name(name: str, location: str) -> None:
    """Refuse what is no name of an object below a store: an absolute one, '..', a backslash, a control character.

    :raises CorruptStoreError: it is none.
    """
    parts = name.split("/")
    fine = len(name) <= _MOST_NAME and all(
        _SEGMENT.fullmatch(part) and part not in (".", "..") and len(part) <= _MOST_SEGMENT for part in parts
    )
    if not fine:
        raise CorruptStoreError(
            f"{location}: {shown(name)} is no name of an object of a store; names are relative, without '..'"
        )


def most_bytes(name: str) -> int:
    """Bytes that an object of this name can have; what claims more is not read."""
    return _MOST_BYTES.get(name.split("/", 1)[0], _MOST_OTHER_BYTES)


def shown(name: object) -> str:
    """A name or value of a store as a message shows it: quoted, and cut where it is long."""
    text = repr(name) if not isinstance(name, int) or abs(name) < 1 << 64 else "a number of more than 64 bits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def block_name(shard: int, view_start: int, view_stop: int) -> str:
    """The name of a block, which sorts by shard."""
    return f"{shard:06d}-{view_start}-{view_stop}"


def commit_numbers(name: str) -> tuple[int, int, int] | None:
    """Shard, first view and one past the last view from the name of a commit; None where it is none."""
    match = _COMMIT.fullmatch(name)
    if match is None or max(map(len, match.groups())) > _MOST_DIGITS:
        return None
    shard, start, stop = (int(number) for number in match.groups())
    return (shard, start, stop) if name == f"{COMMITS}/{block_name(shard, start, stop)}.json" else None


def group_name(block: str, attempt: int = 1) -> str:
    """Where the objects of a block lie; of one that was made again, by its attempt from 2."""
    return f"{BLOCKS}/{block}" + (f".r{attempt}" if attempt > 1 else "")


def group_attempt(group: str, block: str) -> int | None:
    """Which attempt at a block a group is, from 1; None where it is no group of that block."""
    base, _, attempt = group.partition(".r")
    number = int(attempt) if attempt.isascii() and attempt.isdecimal() and len(attempt) <= _MOST_DIGITS else 1
    return number if group == group_name(block, number) and base == group_name(block) else None


def strange_object(names: set[str]) -> str | None:
    """One of some names, relative to a block's group, that no object of a block has; None where there is none."""
    for name in sorted(names - _objects):
        if not _OBJECT.fullmatch(name):
            return name
        _objects.add(name)
    return None


def part_name(number: int) -> str:
    """Where the number-th part of the clip table lies, from 0."""
    return f"{CLIPS}/{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """The number of a part from its name; None where it is no part's name."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def claimed_shard(name: str) -> int | None:
    """The shard that a claim of this name is of; None where it is no claim's name."""
    match = _CLAIM.fullmatch(name)
    return int(match[1]) if match and len(match[1]) <= _MOST_DIGITS else None
