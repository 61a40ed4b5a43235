"""What a store says at a glance, counted in one pass over its blocks: ``logitstore look`` and notebooks show it.

A clip's **own answer** is the class of the highest mean probability over its views, as the question ``@survival`` has
it. A view **keeps** it where it says it first: the share that does not is what augmentation destroys.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from logitstore import notebook
from logitstore.arrays import F32, F64, I64, U16, Bool
from logitstore.store.format.commits import Commit
from logitstore.store.format.quality import addable
from logitstore.store.measures import jensen_shannon
from logitstore.store.pieces import Pieces
from logitstore.store.summary import Summary, summarise
from logitstore.views.ops import Op

_CLASSES, _ODD = 10, 3  # that are named
BINS = 20
_FINE = 1000  # bins that a histogram is counted in
_STEPS = 4  # of how much an op does, beside nothing
_THREADS = 4
_CELLS = 1 << 22  # of clips by classes that are added up at a time


@dataclass(frozen=True)
class ClassCount:
    """A class: the ``views`` that say it first, the ``clips`` whose own answer it is, and the mean ``probability`` that
    it has where it comes first."""

    name: str
    views: int
    clips: int
    probability: float


@dataclass(frozen=True)
class Histogram:
    """How values spread: ``counts`` of bins of equal width from ``low`` to ``high``, and their ``median``, to a
    thousandth of the greatest range; None without values."""

    low: float
    high: float
    counts: tuple[int, ...]
    median: float | None


@dataclass(frozen=True)
class OpSurvival:
    """How views survive an op, by how much it did to them: the share that keeps its clip's own answer, and how many
    ``views`` that is of, where it did nothing, up to a quarter, half, three quarters and all of the ``most`` that it
    can do, which has a ``unit``. A share of no views is None."""

    op: str
    most: float
    unit: str
    kept: tuple[float | None, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class Odd:
    """A clip that is odd by a ``value``: which it is, and what its views say first, its own answer first."""

    clip: int
    path: str
    start_s: float
    value: float
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A store at a glance.

    ``hours``: the length of its clips' own sound. ``commonest``: the classes that come first in most views, of the
    ``classes_first`` that do in any. ``top1``: the views' first probabilities; ``entropy``: their entropies in nats.
    ``kept``: the share of views that keep their clip's own answer, None where no clip has several views.
    ``survival``: the same by op, of the ops that say how much they do. ``uncertain``: the clips of the highest mean
    entropy; ``torn``: of the fewest views that keep the own answer, with their share; ``disputed``: of the largest
    Jensen-Shannon divergence of the members, mean over views, in nats, None where members were not kept.
    """

    summary: Summary
    hours: float
    commonest: tuple[ClassCount, ...]
    classes_first: int
    top1: Histogram
    entropy: Histogram
    kept: float | None
    survival: tuple[OpSurvival, ...]
    uncertain: tuple[Odd, ...]
    torn: tuple[Odd, ...]
    disputed: tuple[Odd, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: those of the summary, and the others."""
        found = asdict(replace(self, summary=None))  # type: ignore[arg-type]
        del found["summary"]
        return self.summary.to_dict() | found

    def _repr_html_(self) -> str:
        summary, parts = self.summary, [notebook.facts([*self.summary.lines(), ("sound", f"{self.hours:,.2f} hours")])]
        if self.commonest:
            most = self.commonest[0].views
            classes = [
                (each.name, each.views / most, [f"{each.views:,}", f"{each.clips:,}", f"{each.probability:.2f}"])
                for each in self.commonest
            ]
            header = ("class", "views that say it first", "views", "clips", "mean probability")
            parts.append(notebook.bars(classes, header))
            parts.append(
                notebook.beside(
                    (
                        f"first probability of a view, median {self.top1.median:.2f}",
                        notebook.histogram(self.top1.counts, "0", "1", "histogram of first probabilities"),
                    ),
                    (
                        f"entropy of a view, median {self.entropy.median:.2f} nats",
                        notebook.histogram(
                            self.entropy.counts, "0", f"{self.entropy.high:.3g} nats", "histogram of entropies"
                        ),
                    ),
                )
            )
        if self.kept is not None:
            parts.append(notebook.note(f"{100 * self.kept:.1f} % of views keep their clip's own answer"))
        odd = [("uncertain", each) for each in self.uncertain] + [("views disagree", each) for each in self.torn]
        odd += [("members differ", each) for each in self.disputed or ()]
        if odd:
            rows = [(why, each.clip, each.path, f"{each.value:.2f}", ", ".join(each.answers[:4])) for why, each in odd]
            parts.append(notebook.table(("odd clips", "clip", "path", "", "answers"), rows, left=5))
        return notebook.card(summary.location, *parts)


#: By what clips are odd, to the oddest of them, which come first: (rank, a second rank, clip, value, answers).
_Oddest: TypeAlias = dict[str, list[tuple[float, float, int, float, tuple[int, ...]]]]


@dataclass(frozen=True)
class _Shard:
    """What one shard adds."""

    first: I64  # (C,) views in which a class comes first
    own: I64  # (C,) clips whose own answer it is
    sure: F64  # (C,) sum of its probabilities where it comes first
    top1: I64  # (_FINE,)
    entropy: I64  # (_FINE,)
    kept: int  # of the views of clips that have several
    several: int  # views of those
    steps: I64  # (ops, 2, 5) views of those, and those that keep the answer, by how much each op did
    odd: _Oddest


def look(store: Pieces) -> Look:
    """Look at a store: one pass over its targets, and over members where they were kept.

    Memory does not grow with the number of clips.

    :raises CorruptStoreError: an object is not the one that was committed.
    """
    amounts = store.manifest.recipe.amounts(store.manifest.place)
    shards = [list(group) for _, group in groupby(store.commits, key=lambda commit: commit.shard)]
    total: _Shard | None = None
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "look") as pool:
        for said in pool.map(lambda commits: _of_shard(store, commits, amounts), shards):
            total = said if total is None else _sum(total, said)
    summary = summarise(store)
    total = total or _nothing(len(store.manifest.classes), len(amounts))
    order = np.lexsort((np.arange(len(total.first)), -total.first))[:_CLASSES]
    names = store.manifest.classes
    return Look(
        summary=summary,
        hours=summary.pcm_bytes / 2 / store.manifest.sample_rate / 3600,
        commonest=tuple(
            ClassCount(names[i], int(total.first[i]), int(total.own[i]), float(total.sure[i] / total.first[i]))
            for i in order.tolist()
            if total.first[i]
        ),
        classes_first=int(np.count_nonzero(total.first)),
        top1=_histogram(total.top1, 1.0, whole=True),
        entropy=_histogram(total.entropy, _most_entropy(store)),
        kept=total.kept / total.several if total.several else None,
        survival=_survival(amounts, total.steps),
        uncertain=_odd(store, total.odd["uncertain"]),
        torn=_odd(store, total.odd["torn"]),
        disputed=_odd(store, total.odd["disputed"]) if store.manifest.keep_members else None,
    )


def _nothing(classes: int, ops: int) -> _Shard:
    none, fine = np.zeros(classes, np.int64), np.zeros(_FINE, np.int64)
    odd: _Oddest = {"uncertain": [], "torn": [], "disputed": []}
    steps = np.zeros((ops, 2, _STEPS + 1), np.int64)
    return _Shard(none, none, none.astype(np.float64), fine, fine, 0, 0, steps, odd)


def _sum(one: _Shard, other: _Shard) -> _Shard:
    odd = {name: sorted(found + other.odd[name])[:_ODD] for name, found in one.odd.items()}
    added = {name: value + getattr(other, name) for name, value in vars(one).items() if name != "odd"}
    return _Shard(**added, odd=odd)


def _most_entropy(store: Pieces) -> float:
    """The highest entropy that a view can have, in nats."""
    k = store.manifest.topk if store.manifest.quality is None else len(store.manifest.classes)
    return float(k * np.log(2) if store.manifest.scores == "sigmoid" else np.log(k + 1))


def _of_shard(store: Pieces, commits: Sequence[Commit], amounts: Sequence[tuple[Op, float, str]]) -> _Shard:
    """Count one shard, whose blocks are given."""
    sigmoid, classes = store.manifest.scores == "sigmoid", len(store.manifest.classes)
    clip, first, sure, nats, apart, did, said_all = [], [], [], [], [], [], []
    for commit in commits:
        kept = commit.readable
        labels, probabilities = store.block_targets(commit)
        rests = None if store.manifest.quality is None else store.block_rests(commit)[kept]
        labels = addable(labels, classes)
        said_all.append((kept, labels[kept], probabilities[kept]))
        clip.append(np.repeat(kept, commit.views))
        first.append(labels[kept, :, 0].reshape(-1))
        sure.append(probabilities[kept, :, 0].reshape(-1))
        nats.append(_entropy(probabilities[kept], sigmoid, rests, classes).reshape(-1))
        if amounts:
            draws = {name: values[kept].reshape(-1) for name, values in store.block_draws(commit).items()}
            did.append(np.stack([_steps(op, most, draws, store) for op, most, _ in amounts]))
        members = store.block_members(commit)
        if members is not None:
            said = members[:, kept]
            said = np.where(_known(store, labels[kept]), said, np.float32("nan"))
            weights = [member.weight for member in store.manifest.teachers]
            apart.append(jensen_shannon(said, weights, store.manifest.scores).sum(axis=-1).reshape(-1))
    rows, answers = np.concatenate(clip), np.concatenate(first).astype(np.int64)
    top1, entropy = np.concatenate(sure).astype(np.float64), np.concatenate(nats)
    if not len(rows):
        return _nothing(classes, len(amounts))
    own_of = _own(said_all, commits[0].clips, classes)
    keeps = answers == own_of[rows]
    # the first answers of every clip, by how many of its views say each, and how surely
    keys, where = np.unique(rows * classes + answers, return_inverse=True)
    voters, voted = keys // classes, keys % classes
    order = np.lexsort((voted, -np.bincount(where, top1), -np.bincount(where), voters))
    heads = np.flatnonzero(np.diff(voters[order], prepend=-1))
    clips = voters[order[heads]]
    own, most, views = own_of[clips], np.bincount(rows, keeps)[clips], np.bincount(rows)[clips]
    ends = np.append(heads[1:], len(order))

    def oddest(values: F64, rank: F64, second: F64) -> list[tuple[float, float, int, float, tuple[int, ...]]]:
        """The clips of the lowest ranks, with what their views say first."""
        return [
            (
                float(rank[at]),
                float(second[at]),
                commits[0].first_clip + int(clips[at]),
                float(values[at]),
                tuple(dict.fromkeys([int(own[at]), *voted[order[heads[at] : ends[at]]].tolist()])),
            )
            for at in np.lexsort((clips, second, rank))[:_ODD].tolist()
        ]

    def mean(values: npt.NDArray[Any]) -> F64:
        return np.asarray(np.bincount(rows, values)[clips] / views)

    several, unsure, kept_share = views > 1, mean(entropy), most / views
    torn = oddest(kept_share, kept_share, -mean(top1))  # the surer its views are, the odder it is that they differ
    odd: _Oddest = {"uncertain": oddest(unsure, -unsure, kept_share), "torn": [], "disputed": []}
    odd["torn"] = [each for each in torn if each[3] < 1]
    if apart:
        disputed = mean(np.concatenate(apart))
        odd["disputed"] = oddest(disputed, -disputed, kept_share)
    steps = np.zeros((len(amounts), 2, _STEPS + 1), np.int64)
    if amounts:
        of_several = np.isin(rows, clips[several])
        for op, step in enumerate(np.concatenate(did, axis=1)):
            for row, where in enumerate((of_several, of_several & keeps)):
                steps[op, row] = np.bincount(step[where], minlength=_STEPS + 1)
    return _Shard(
        first=np.bincount(answers, minlength=classes),
        own=np.bincount(own, minlength=classes),
        sure=np.bincount(answers, top1, minlength=classes).astype(np.float64),
        top1=_fine(top1, 1.0),
        entropy=_fine(entropy, _most_entropy(store)),
        kept=int(most[several].sum()),
        several=int(views[several].sum()),
        steps=steps,
        odd=odd,
    )


def _own(said: Sequence[tuple[I64, U16, F32]], clips: int, classes: int) -> I64:
    """The own answers of the clips of a shard, int64 (clips,); of those without views they mean nothing.

    :param said: of each block its readable rows (n,), their classes (n, V, k) and probabilities.
    """
    found, step = np.zeros(clips, np.int64), max(1, _CELLS // classes)
    for start in range(0, clips, step):
        total = np.zeros(step * classes)
        for rows, labels, probabilities in said:
            here = slice(*np.searchsorted(rows, [start, start + step]))
            keys = (rows[here, None, None] - start) * classes + labels[here]
            total += np.bincount(keys.reshape(-1), probabilities[here].reshape(-1), minlength=len(total))
        best = total.reshape(step, classes).argmax(axis=1)
        found[start : start + step] = best[: clips - start]
    return found


def _steps(op: Op, most: float, draws: dict[str, I64], store: Pieces) -> I64:
    """How much an op did to n views: 0 for nothing, 1 to 4 for up to a quarter of the most and so on."""
    said = op.amount(draws, store.manifest.place)
    assert said is not None
    return np.clip(np.ceil(said[0] / most * _STEPS), 0, _STEPS).astype(np.int64)


def _survival(amounts: Sequence[tuple[Op, float, str]], steps: I64) -> tuple[OpSurvival, ...]:
    return tuple(
        OpSurvival(
            op.name,
            most,
            unit,
            tuple(kept / views if views else None for views, kept in zip(*counts.tolist(), strict=True)),
            tuple(counts[0].tolist()),
        )
        for (op, most, unit), counts in zip(amounts, steps, strict=True)
    )


def _entropy(p: F32, sigmoid: bool, rests: F32 | None, classes: int) -> F32:
    """Entropies in nats over the last axis, to about 1e-5 as SQL's (:mod:`logitstore.store.sql.tables`), but fast.

    :param rests: the probability of each class that a view does not have, of a store with a quality.
    """
    found = np.asarray(-_negative_entropy(p, sigmoid).sum(axis=-1))
    if rests is not None:
        found -= (classes - np.count_nonzero(p, axis=-1)) * _negative_entropy(rests, sigmoid)
    return found


def _negative_entropy(p: F32, sigmoid: bool) -> F32:
    terms = p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
    if sigmoid:
        other = 1 - p
        terms += other * np.log(other)
    return np.asarray(terms)


def _known(store: Pieces, labels: npt.NDArray[np.uint16]) -> Bool:
    """Which members know the classes of some views, bool (M, n, V, k)."""
    known = np.stack([member.known(len(store.manifest.classes)) for member in store.manifest.teachers])
    return np.asarray(known[:, labels])


def _fine(values: npt.NDArray[Any], most: float) -> I64:
    return np.bincount(np.clip(values / most * _FINE, 0, _FINE - 1).astype(np.int64), minlength=_FINE)


def _histogram(fine: I64, most: float, *, whole: bool = False) -> Histogram:
    """A histogram of 20 bins from 0 to the highest value there is, to ``most`` where it is ``whole``."""
    used = np.flatnonzero(fine)
    if not len(used):
        return Histogram(0.0, most, (0,) * BINS, None)
    step = _FINE // BINS if whole else -(-(int(used[-1]) + 1) // BINS)
    counts = np.pad(fine, (0, step * BINS))[: step * BINS].reshape(BINS, step).sum(axis=1)
    middle = int(np.searchsorted(np.cumsum(fine), fine.sum() / 2))
    high = most if whole else step * BINS * most / _FINE
    return Histogram(0.0, high, tuple(counts.tolist()), (middle + 0.5) * most / _FINE)


def _odd(store: Pieces, found: Sequence[tuple[float, float, int, float, tuple[int, ...]]]) -> tuple[Odd, ...]:
    """The clips that were found, with their paths."""
    rows = store.clip_rows([clip for _, _, clip, _, _ in found], ["path", "start", "rate"])
    names = store.manifest.classes
    return tuple(
        Odd(clip, str(row["path"]), row["start"] / max(row["rate"], 1), value, tuple(names[each] for each in said))
        for (_, _, clip, value, said), row in zip(found, rows, strict=True)
    )
