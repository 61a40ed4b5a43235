"""Shards and views as numbers: how many clips a shard has, and what of a store is not there yet. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from logitstore.store.format import commits
from logitstore.store.format.commits import Commit

MOST_SHARD_CLIPS = 4096
LEAST_SHARD_CLIPS = 64
_BLOCKS_WANTED = 16


def default_shard_clips(clips: int) -> int:
    """Clips of a shard: a power of two from 64 to 4,096, of which there are some 16 where there are clips enough."""
    wanted = max(1, clips // _BLOCKS_WANTED)
    return min(MOST_SHARD_CLIPS, max(LEAST_SHARD_CLIPS, 1 << (wanted - 1).bit_length()))


def number_ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in words: "0 to 4, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{low} to {high}" if high > low else str(low) for low, high in runs)


def unfinished_shards(committed: Iterable[Commit], shards: int, views: int) -> list[int]:
    """The shards of a store of so many, rising, that lack some of the first ``views`` views."""
    by_shard: dict[int, list[Commit]] = {}
    for commit in committed:
        by_shard.setdefault(commit.shard, []).append(commit)
    return [shard for shard in range(shards) if missing_views(by_shard.get(shard, ()), views)]


def missing_views(found: Sequence[Commit | commits.Span], views: int) -> list[tuple[int, int]]:
    """The ranges of views in [0, views) that no commit of a shard covers."""
    ranges, position = [], 0
    for commit in sorted(found, key=lambda c: c.view_start):
        if commit.view_start > position:
            ranges.append((position, min(commit.view_start, views)))
        position = max(position, commit.view_stop)
    if position < views:
        ranges.append((position, views))
    return [(start, stop) for start, stop in ranges if start < stop]
