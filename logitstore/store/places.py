"""Which block holds a view of a clip, from the commits alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from logitstore.arrays import I64
from logitstore.errors import UsageError
from logitstore.store.format.commits import Commit


@dataclass(frozen=True)
class _View:
    """The blocks that hold a view, by first clip: ``numbers`` among all commits, first clips and one past the last
    clips, each int64 (n,); and the clips that failed in them, rising."""

    numbers: I64
    firsts: I64
    stops: I64
    failed: I64


class Places:
    """Where the views of clips lie, view by view as they are asked for.

    :param commits: of a store, by shard and first view. :param location: what a user calls it, for messages.
    """

    def __init__(self, commits: Sequence[Commit], location: str) -> None:
        self._commits, self._location = commits, location
        self._views: dict[int, _View] = {}

    def commits_of(self, view: int) -> list[Commit]:
        """The blocks that hold a view.

        :raises UsageError: there are none.
        """
        found = [commit for commit in self._commits if commit.view_start <= view < commit.view_stop]
        if not self._commits:
            raise UsageError(f"{self._location} has no finished block yet; run its build")
        if not found:
            last = max(commit.view_stop for commit in self._commits) - 1
            raise UsageError(f"{self._location} has no view {view}; it has views 0 to {last}")
        return found

    def blocks_of(self, view: int, clips: I64) -> I64:
        """The blocks that hold a view of some clips, int64 (n,), as positions in the commits.

        :raises UsageError: a clip is in no such block, or failed.
        """
        known, blocks = self._view(view), self.blocks_holding(view, clips)
        if len(known.failed):
            failed = np.isin(clips, known.failed)
            if failed.any():
                self._refuse_failed(view, int(clips[failed][0]))
        return blocks

    def blocks_holding(self, view: int, clips: I64) -> I64:
        """The same, of clips that may have failed.

        :raises UsageError: a clip is in no such block.
        """
        blocks: I64 = self._view(view).numbers[self._within(view, clips)]
        return blocks

    def by_block(self, view: int, clips: I64) -> Iterator[tuple[Commit, I64, I64]]:
        """(block, positions in ``clips``, rows within the block) for the blocks that hold a view of some clips.

        :raises UsageError: a clip is in no such block.
        """
        known = self._view(view)
        places = self._within(view, clips)
        order = np.argsort(places, kind="stable")
        bounds = np.flatnonzero(np.diff(places[order])) + 1
        for where in np.split(order, bounds):
            if len(where):
                commit = self._commits[int(known.numbers[places[where[0]]])]
                yield commit, where, clips[where] - commit.first_clip

    def _view(self, view: int) -> _View:
        known = self._views.get(view)
        if known is None:
            blocks = sorted(self.commits_of(view), key=lambda commit: commit.first_clip)
            numbers = {commit.name: number for number, commit in enumerate(self._commits)}
            failed = [commit.first_clip + row for commit in blocks for row, _ in commit.failed]
            known = self._views[view] = _View(
                np.array([numbers[commit.name] for commit in blocks], dtype=np.int64),
                np.array([commit.first_clip for commit in blocks], dtype=np.int64),
                np.array([commit.first_clip + commit.clips for commit in blocks], dtype=np.int64),
                np.array(sorted(failed), dtype=np.int64),
            )
        return known

    def _within(self, view: int, clips: I64) -> I64:
        """Which of the blocks that hold a view each of some clips is in."""
        known = self._view(view)
        places = known.firsts.searchsorted(clips, side="right") - 1
        outside = (places < 0) | (clips >= known.stops[places])
        if outside.any():
            bad = int(clips[outside][0])
            raise UsageError(f"clip {bad} has no block with view {view} in {self._location}; its build is not finished "
                             "or there is no such clip")  # fmt: skip
        return places

    def _refuse_failed(self, view: int, clip: int) -> NoReturn:
        commit = self._commits[int(self._view(view).numbers[self._within(view, np.array([clip]))[0]])]
        reason = dict(commit.failed)[clip - commit.first_clip]
        raise UsageError(f"clip {clip} has no targets, it failed: {reason}; use the clips of store.clips_of({view})")
