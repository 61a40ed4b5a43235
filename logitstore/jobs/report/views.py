"""The views of a store in one pass: a range of clips at a time, each block decoded once, whatever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from logitstore.arrays import F32, F64, I64, U16, Bool
from logitstore.store.format.commits import Commit
from logitstore.store.format.quality import addable
from logitstore.store.measures import entropy, jensen_shannon
from logitstore.store.reader import Store

_MOST_CELLS = 1 << 22  # of clips x classes, and of views x k, that are looked at together


@dataclass(frozen=True)
class Views:
    """All stored views of the clips ``first`` to ``first + clips``, R of them, by clip and then by view.

    ``clip`` int64 (R,), counted from ``first``; ``view`` int64 (R,); ``classes`` uint16 and ``probabilities`` float32,
    (R, k), falling, a place that a view does not use having the probability 0; ``rests`` float32 (R,), that of each
    class that a view does not keep, None where the store does not know; ``draws`` int64 (R,) a column; ``members``
    float32 (M, R, k), NaN where one does not know a class, None where they were not kept, and their ``weights``;
    ``seconds`` float64 (clips,), the clips' own lengths.
    """

    first: int
    clips: int
    class_count: int
    scores: str
    clip: I64
    view: I64
    classes: U16
    probabilities: F32
    rests: F32 | None
    draws: dict[str, I64]
    members: F32 | None
    weights: tuple[float, ...]
    seconds: F64

    def __len__(self) -> int:
        return len(self.clip)

    @cached_property
    def entropy(self) -> F64:
        """Of every view in nats, as SQL has it: float64 (R,)."""
        return entropy(self.probabilities, self.scores, self.rests, self.class_count)

    @cached_property
    def used(self) -> Bool:
        """Which places hold a class: bool (R, k)."""
        return np.asarray(self.probabilities > 0)

    @cached_property
    def counts(self) -> I64:
        """Views of every clip: int64 (clips,)."""
        return np.bincount(self.clip, minlength=self.clips)

    @cached_property
    def cells(self) -> I64:
        """Clip and class of every stored probability as one number: int64 (R, k)."""
        return self.clip[:, None] * self.class_count + self.classes

    @cached_property
    def means(self) -> F64:
        """Mean probability of every class in the views of every clip, 0 where it is not stored: (clips, C)."""
        size = self.clips * self.class_count
        total = np.bincount(self.cells.reshape(-1), self.probabilities.reshape(-1), minlength=size)
        return np.asarray(total.reshape(self.clips, self.class_count) / np.maximum(self.counts, 1)[:, None])

    @cached_property
    def own(self) -> I64:
        """The own answer of every clip: the class of the highest mean probability over its views, -1 where it has none;
        int64 (clips,)."""
        return np.where(self.counts > 0, self.means.argmax(axis=1), -1)

    @cached_property
    def kept(self) -> Bool:
        """Whether the first class of a view is its clip's own answer: bool (R,)."""
        return np.asarray(self.classes[:, 0] == self.own[self.clip])

    @cached_property
    def disagreement(self) -> F64:
        """How far the members are apart about each class, in nats: float64 (R, k); only where they were kept."""
        assert self.members is not None
        return jensen_shannon(self.members, self.weights, self.scores)

    def by_clip(self, values: F64) -> F64:
        """The mean over the views of every clip of values (R,): (clips,), 0 where it has none."""
        return np.asarray(np.bincount(self.clip, values, self.clips) / np.maximum(self.counts, 1))


def ranges(store: Store, progress: Callable[[int, int], None] | None = None) -> Iterator[Views]:
    """All views of a store, by ranges of clips. Memory is that of the blocks of one shard.

    :param progress: told (views done, views).
    :raises CorruptStoreError: a block is damaged.
    """
    shards: dict[int, list[Commit]] = {}
    for commit in store.commits:
        shards.setdefault(commit.first_clip, []).append(commit)
    done, total = 0, store.view_count()
    for first in sorted(shards):
        for views in _shard(store, shards[first]):
            yield views
            done += len(views)
            if progress is not None:
                progress(done, total)


def _shard(store: Store, commits: list[Commit]) -> Iterator[Views]:
    manifest = store.manifest
    clips = max(commit.clips for commit in commits)
    first = commits[0].first_clip
    lengths = store.lengths(np.arange(first, first + clips)) / manifest.sample_rate
    decoded = [_Block.of(store, commit) for commit in commits]
    most = max(len(manifest.classes), store.k * max(1, sum(commit.views for commit in commits)))
    step = max(1, _MOST_CELLS // most)
    for start in range(0, clips, step):
        stop = min(start + step, clips)
        parts = [block.rows(start, stop) for block in decoded]
        clip = np.concatenate([part[0] for part in parts])
        order = np.lexsort((np.concatenate([part[1] for part in parts]), clip))
        views, classes, probabilities = (np.concatenate([part[at] for part in parts])[order] for at in (1, 2, 3))
        rests = [part[6] for part in parts if part[6] is not None]
        names = parts[0][4]
        said = [part[5] for part in parts if part[5] is not None]
        yield Views(
            first=first + start,
            clips=stop - start,
            class_count=len(manifest.classes),
            scores=manifest.scores,
            clip=clip[order],
            view=views,
            classes=classes,
            probabilities=probabilities,
            rests=np.concatenate(rests)[order] if rests else None,
            draws={name: np.concatenate([part[4][name] for part in parts])[order] for name in names},
            members=np.concatenate(said, axis=1)[:, order] if said else None,
            weights=tuple(member.weight for member in manifest.teachers),
            seconds=lengths[start:stop],
        )


@dataclass(frozen=True)
class _Block:
    commit: Commit
    classes: U16
    probabilities: F32
    rests: F32 | None
    draws: dict[str, I64]
    members: F32 | None

    @classmethod
    def of(cls, store: Store, commit: Commit) -> _Block:
        classes, probabilities = store.block_targets(commit)
        classes = addable(classes, len(store.manifest.classes))
        rests = None if store.manifest.quality is None else store.block_rests(commit)
        draws = store.block_draws(commit) if store.manifest.recipe.columns else {}
        members = store.block_members(commit)
        known = np.stack([each.known(len(store.manifest.classes)) for each in store.manifest.teachers])
        if members is not None and not known.all():
            members = np.where(known[:, classes], members, np.float32("nan"))
        return cls(commit, classes, probabilities, rests, draws, members)

    def rows(self, start: int, stop: int) -> tuple[I64, I64, U16, F32, dict[str, I64], F32 | None, F32 | None]:
        """What readable clips in a range of the shard have: clip counted from its start, view, and the rest."""
        commit = self.commit
        readable = commit.readable
        readable = readable[(readable >= start) & (readable < stop)]
        k = self.classes.shape[2]
        return (
            np.repeat(readable - start, commit.views),
            np.tile(np.arange(commit.view_start, commit.view_stop), len(readable)),
            self.classes[readable].reshape(-1, k),
            self.probabilities[readable].reshape(-1, k),
            {name: values[readable].reshape(-1) for name, values in self.draws.items()},
            None if self.members is None else self.members[:, readable].reshape(len(self.members), -1, k),
            None if self.rests is None else self.rests[readable].reshape(-1),
        )
