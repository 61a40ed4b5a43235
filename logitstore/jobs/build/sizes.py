"""What a store will take, before it is built: bytes, objects, requests. ``--dry-run`` and ``plan`` say the same."""

from __future__ import annotations

#: Bytes of targets that a view of a store with a quality takes, about, of ten classes and of hundreds of them: how many
#: classes it keeps is known when the teachers have spoken.
BYTES_OF_QUALITY = 8.0
#: Bytes of the metadata and the commit of a block; this and what follows: docs/benchmarks.md.
BLOCK_BYTES = 1_830
#: Bytes of a clip in the clip table, a short path among them.
CLIP_BYTES = 9
_ENTRY_BITS = 2.0  # that the class of a target costs beside its value, of YAMNet under the recipe gentle
_VALUE_SHARE = 0.75  # of a value's bits, after compression
_PLANE_SHARE = 0.63  # of a byte of the draws
#: Objects of a block: its targets and draws, metadata of both levels, and its commit. A store has two more.
BLOCK_OBJECTS, STORE_OBJECTS = 4, 2
#: Requests of a build on an object store for a shard and beside shards, and of reading all of it to verify it; listings
#: are counted apart. docs/cloud.md says which, and tests/store/test_requests.py counts.
SHARD_REQUESTS, BUILD_REQUESTS = 9, 13
SHARD_READS, VERIFY_REQUESTS = 4, 6
PAGE = 1_000  # names of a listing


def view_bytes(topk: int, value_bits: int, planes: int, quality: float | None = None) -> float:
    """Bytes of the targets and the draws of a view.

    :param planes: bytes of its draws before compression.
    """
    targets = topk * (value_bits * _VALUE_SHARE + _ENTRY_BITS) / 8
    if quality is not None:
        targets = min(targets, BYTES_OF_QUALITY)
    return targets + planes * _PLANE_SHARE


def store_bytes(clips: int, views: int, blocks: int, each: float) -> float:
    """Bytes of a store's blocks, commits and clip table.

    :param each: bytes of a view, of :func:`view_bytes`.
    """
    return each * clips * views + blocks * BLOCK_BYTES + CLIP_BYTES * clips


def build_requests(shards: int) -> int:
    """Requests of a build on an object store by one builder, undisturbed, but for claims that it renews."""
    commits, blocks = shards, (BLOCK_OBJECTS - 1) * shards
    listed = (commits, blocks, commits + blocks + STORE_OBJECTS)
    return SHARD_REQUESTS * shards + BUILD_REQUESTS + sum(map(_pages, listed))


def verify_requests(shards: int) -> int:
    """Requests of ``logitstore verify``, which reads every object once."""
    return SHARD_READS * shards + VERIFY_REQUESTS + _pages(shards) + _pages(BLOCK_OBJECTS * shards + STORE_OBJECTS)


def open_requests(shards: int) -> int:
    """Requests of opening a store to train from: its manifest, clip table, and a listing and reading of its commits."""
    return 2 + shards + _pages(shards)


def _pages(names: int) -> int:
    return -(-names // PAGE)


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 3 * 86_400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86_400:,.1f} days"
