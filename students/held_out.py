"""Clips of the store whose targets are not learned, so that a student is measured without any labels.

Unless told otherwise, a training holds out the share :data:`students.options.DEFAULT_HOLD_OUT` of the files, at most
some :data:`MOST_CLIPS` clips, and nothing of a store of fewer than :data:`LEAST_FILES` files. Of a store of more than
:data:`LOOKED_THROUGH` clips these are not looked for among all files, see :func:`_of_many`.

Under a recipe with mixup one can still be heard in training, as the partner of another.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from logitstore.arrays import F32, I64, Bool
from logitstore.digests import derived_seed
from logitstore.errors import MismatchError, ModelOutputError
from logitstore.evaluation.agreement import Place, agree
from logitstore.models.tagger import Tagger, probabilities
from logitstore.notes import doing, note
from logitstore.store.format.quality import dense
from logitstore.store.reader import Store
from logitstore.training.batches import Replayer
from logitstore.views.recipe import Masks
from students.data import stored_views
from students.objective import Objective
from students.options import DEFAULT_HOLD_OUT

#: Clips that are held out by default at most, and files that a store must have.
MOST_CLIPS, LEAST_FILES = 500, 20
#: So many views are compared where there are as many; a clip in several of its views where there are fewer clips.
COMPARED = 500
#: In a store of more clips, few files to hold out are sought in some places, not among all.
LOOKED_THROUGH = 1 << 20
_GROUPS, _SOUGHT = 16, 512
_MOST_OF_CLIPS = 0.2  # more of them, as of one long file among short ones, are not held out by default
_FEW = 4096  # clips taken out of a view's, up to which the others are joined slice by slice
_FAR = 1.25  # times the share that was asked for, or a part of it: said


def held_out(paths: Sequence[str], share: float) -> Bool:
    """Which clips are held out: all clips of a file, or none.

    They are the files of the lowest BLAKE2b hashes of their paths, so the same at every time; more files or a larger
    share move the bound among the hashes, and nothing else. At least one file is.

    :param paths: of n clips. :param share: of the files, in (0, 1).
    :returns: bool (n,).
    """
    files = dict.fromkeys(paths)
    apart = _lowest(files, round(share * len(files)))
    return np.array([path in apart for path in paths], dtype=bool)


def _lowest(files: Iterable[str], count: int) -> set[str]:
    """The files, ``count`` of them and at least one, of the lowest hashes."""
    hashed = ((derived_seed("held out", path), path) for path in files)
    return {path for _, path in heapq.nsmallest(max(1, count), hashed)}


@dataclass(frozen=True)
class Apart:
    """Clips held out, rising: all clips of ``files`` files, of ``of_files`` in all, about."""

    clips: I64
    files: int
    of_files: int


def _apart(store: Store, clips: I64, share: float) -> Apart:
    """The clips that a share holds out, of some, rising."""
    if len(clips) > LOOKED_THROUGH and share * len(clips) <= MOST_CLIPS + 0.5:
        found = _of_many(store, clips, share)
        if found is not None:
            return found
    names = store.clips["path"].take(clips).to_pylist()
    chosen = held_out(names, share)
    files_apart = len({name for name, out in zip(names, chosen.tolist(), strict=True) if out})
    return Apart(clips[chosen], files_apart, len(set(names)))


def _of_many(store: Store, clips: I64, share: float) -> Apart | None:
    """Few files of a store of many, without a look at every path; None where too few files are met.

    They are sought among :data:`_SOUGHT` neighbours in each of some groups of rows of the clip table, chosen by hashes
    of their numbers. How many files there are in all is told from these groups.
    """
    keys, groups = store.keys, store.keys.groups
    numbers = sorted(range(len(groups)), key=lambda number: derived_seed("held out", number))[:_GROUPS]
    candidates: set[str] = set()
    rows = files = 0
    for number in numbers:
        of_group, start = groups[number].clips, groups[number].clips.start
        paths = keys.of_group(number).paths  # kept, for files of them are looked for and heard afterwards
        rows, files = rows + len(paths), files + _different(paths)
        low, high = np.searchsorted(clips, (start, of_group.stop))
        middle = low + max(0, (high - low - _SOUGHT) // 2)
        own = clips[middle : min(high, middle + _SOUGHT)] - start
        candidates |= set(paths.take(own).to_pylist())
    count = round(share * len(clips) * files / rows)
    if len(candidates) < max(2 * count, LEAST_FILES):
        return None
    apart = sorted(_lowest(candidates, count))
    found = []
    for number, group in enumerate(groups):
        if group.may_hold(apart):
            held = pc.is_in(keys.paths(number), value_set=pa.array(apart, pa.string()))
            found.append(group.clips.start + np.flatnonzero(held.to_numpy()))
    chosen = np.concatenate(found)
    at = np.minimum(np.searchsorted(clips, chosen), len(clips) - 1)
    return Apart(chosen[clips[at] == chosen], len(apart), round(len(clips) * files / rows))


def _different(paths: pa.ChunkedArray) -> int:
    """How many different paths there are; where they rise, as those of a folder do, neighbours tell."""
    before, after = paths.slice(0, len(paths) - 1), paths.slice(1)
    if pc.all(pc.less_equal(before, after)).as_py():
        return len(paths) - int(pc.sum(pc.equal(before, after)).as_py())
    return int(pc.count_distinct(paths).as_py())


def default_share(store: Store, by_view: list[I64]) -> tuple[float, Apart | None]:
    """The share of files to hold out of a store where none was asked for, and the clips that it holds out.

    The share is 0 where none should be, and why is said.
    """
    clips = _union(by_view)
    share = min(DEFAULT_HOLD_OUT, MOST_CLIPS / len(clips))
    apart = _apart(store, clips, share)
    measure = "nothing is held out: measure the student with `logitstore compare`, or give --hold-out"
    if apart.of_files < LEAST_FILES:
        files = apart.of_files
        note(f"{store.location} has {files} file{'s' * (files > 1)}, too few to do without some, so {measure}")
        return 0.0, None
    found = len(apart.clips) / len(clips)
    if found > _MOST_OF_CLIPS:
        note(f"the files to hold out have {found:.0%} of the clips of {store.location}, so {measure}")
        return 0.0, None
    return share, apart


def split(store: Store, by_view: list[I64], share: float, chosen: Apart | None = None) -> tuple[list[I64], list[I64]]:
    """The clips of each view to learn from, and those held out; a share that is far from the one asked for is said.

    :param chosen: the clips that the share holds out, where they are known already.
    :raises MismatchError: no clip is left to learn from in some view.
    """
    clips = _union(by_view)
    found = chosen or _apart(store, clips, share)
    apart, files = found.clips, found.of_files
    if found.files == files:
        raise MismatchError(
            f"--hold-out {share:g} leaves nothing to learn from: it holds out {found.files} of {files} files of "
            f"{store.location}, all {len(clips)} clips (a file's clips stay together); "
            + ("hold out less" if files > 1 else "leave it out, for there is one file")
        )
    part = len(apart) / len(clips)
    if not share / _FAR <= part <= share * _FAR:
        note(
            f"--hold-out {share:g} holds out {found.files} of {files} files, {len(apart)} of {len(clips)} clips "
            f"({part:.0%} of the clips, {share:.0%} was asked for): a file's clips stay together"
        )
    learned: list[I64] = []
    held: list[I64] = []
    for view, rows in enumerate(by_view):
        if view and rows is by_view[view - 1]:
            learned.append(learned[-1])
            held.append(held[-1])
            continue
        at = np.searchsorted(rows, apart)
        at = at[(at < len(rows)) & (rows[np.minimum(at, len(rows) - 1)] == apart)]
        if len(at) > _FEW:
            learned.append(np.delete(rows, at))
        else:  # in half the time
            parts = zip([0, *(at + 1).tolist()], [*at.tolist(), len(rows)], strict=True)
            learned.append(np.concatenate([rows[start:stop] for start, stop in parts]))
        held.append(rows[at])
    for view, rows in enumerate(learned):
        if not len(rows):
            raise MismatchError(
                f"--hold-out {share:g} leaves nothing to learn from in view {view} of {store.location}: it holds out "
                f"{len(apart)} of {len(clips)} clips (a file's clips stay together); hold out less"
            )
    return learned, held


def _union(by_view: list[I64]) -> I64:
    """The clips of all views, rising."""
    if all(rows is by_view[0] for rows in by_view):
        return by_view[0]
    return np.unique(np.concatenate(by_view))


class HeldOutLoss:
    """The distillation loss of held-out clips: the i-th in view i mod V, as its teachers heard it.

    :param by_view: the clips held out, of each view. :param objective: of the targets alone.
    """

    def __init__(
        self,
        store: Store,
        replayer: Replayer,
        by_view: list[I64],
        objective: Objective,
        tail: str | None,
        batch_size: int,
    ) -> None:
        self.replayer, self.objective = replayer, objective
        clips = np.unique(np.concatenate(by_view))
        own = [clips[view :: len(by_view)] for view in range(len(by_view))]
        chosen = [rows[np.isin(rows, by_view[view])] for view, rows in enumerate(own)]
        if not any(map(len, chosen)):  # few clips in a store whose views hold different ones
            chosen = by_view
        self.parts = [
            (stored_views(store, view, rows, tail=tail), len(rows)) for view, rows in enumerate(chosen) if len(rows)
        ]
        self.count = sum(count for _, count in self.parts)
        self.batch_size = batch_size

    def __call__(self, model: Tagger) -> dict[str, Any]:
        """``held_out_loss``, the mean over the clips, and ``held_out_clips``, their number.

        :raises ModelOutputError: the loss is not finite.
        """
        device = next(model.parameters()).device
        total = 0.0
        with torch.inference_mode():
            for views, count in self.parts:
                for start in range(0, count, self.batch_size):
                    positions = np.arange(start, min(start + self.batch_size, count))
                    batch = self.replayer.batch(views, positions).to(device)
                    loss = self.objective(model(batch.waveforms, batch.masks), None, batch).total
                    total += float(loss) * len(positions)
        mean = total / self.count
        if not np.isfinite(mean):
            raise ModelOutputError(f"the loss of held-out clips is {mean}; lower --lr, or use --precision float32")
        return {"held_out_loss": mean, "held_out_clips": self.count}


@dataclass(frozen=True)
class Replayed:
    """n views that were heard again: what the store says of them, float32 (n, C), 0 where it does not say, and bool
    (n, C), where it does; what each listener said, float32 (n, C'); where they are from."""

    targets: F32
    known: Bool
    said: tuple[F32, ...]
    places: list[Place]


#: Probabilities (B, C) of waveforms float32 (B, S), under B masks or none.
Listener = Callable[[torch.Tensor, Masks | None], torch.Tensor]


class HeldOutViews:
    """Views of some clips, replayed for listeners as their teachers heard them.

    At least :data:`COMPARED` views where there are as many, and every clip: the i-th in the views i, i + 1, … mod V.

    :param by_view: the clips, of each view.
    """

    def __init__(self, store: Store, by_view: list[I64], batch_size: int) -> None:
        self.store, self.batch_size = store, batch_size
        clips = np.unique(np.concatenate(by_view))
        chosen: list[list[I64]] = [[] for _ in by_view]
        count = 0
        for more in range(len(by_view)):
            for view, rows in enumerate(by_view):
                own = clips[(np.arange(len(clips)) + more) % len(by_view) == view]
                chosen[view].append(own[np.isin(own, rows)])
                count += len(chosen[view][-1])
            if count >= COMPARED:
                break
        joined = [np.concatenate(rows) for rows in chosen]
        self.views = [(view, np.sort(rows)) for view, rows in enumerate(joined) if len(rows)]

    def __len__(self) -> int:
        return sum(len(clips) for _, clips in self.views)

    def heard(
        self,
        replayer: Replayer | None,
        listeners: Sequence[Listener] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Replayed:
        """What the store and the listeners say of the views.

        :param replayer: makes them; None without listeners. :param progress: told (views done, views).
        """
        targets, known, places = [], [], []
        said: list[list[F32]] = [[] for _ in listeners]
        keys, classes, done = self.store.keys, len(self.store.manifest.classes), 0
        for view, clips in self.views:
            at, values = self.store.targets(view, clips)
            rests = None if self.store.manifest.quality is None else self.store.rests(view, clips)
            targets.append(dense(at, values, classes, rests))
            known.append(dense(at, (values > 0).astype(np.float32), classes, None) > 0)
            for path, (start, _, rate) in map(keys.__getitem__, clips.tolist()):
                places.append(Place(path, start / rate if rate else 0.0, view))
            if replayer is None:
                continue
            views = stored_views(self.store, view, clips)
            for start in range(0, len(clips), self.batch_size):
                positions = np.arange(start, min(start + self.batch_size, len(clips)))
                batch = replayer.batch(views, positions)
                for listener, answers in zip(listeners, said, strict=True):
                    answers.append(listener(batch.waveforms, batch.masks).float().cpu().numpy())
                done += len(positions)
                (progress or partial(doing, "measuring on held-out clips"))(done, len(self))
        return Replayed(np.concatenate(targets), np.concatenate(known), tuple(map(np.concatenate, said)), places)


class HeldOutAgreement:
    """How far a student agrees with the targets of held-out clips.

    :param by_view: the clips held out, of each view.
    """

    def __init__(self, store: Store, replayer: Replayer, by_view: list[I64], batch_size: int) -> None:
        self.replayer, self.views = replayer, HeldOutViews(store, by_view, batch_size)
        self.classes = store.manifest.classes

    def __call__(self, model: Tagger) -> dict[str, Any]:
        """The agreement as JSON values; see :class:`logitstore.evaluation.agreement.Agreement`."""
        device = next(model.parameters()).device

        @torch.inference_mode()
        def listener(waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
            return probabilities(model(waveforms.to(device), None if masks is None else masks.to(device)), model.scores)

        found = self.views.heard(self.replayer, [listener])
        return agree(
            found.targets, found.said[0], self.classes, found.places, scores=model.scores, known=found.known
        ).to_dict()


def held_out_clips(store: Store, by_view: list[I64], share: float) -> I64:
    """The clips that :func:`split` holds out, rising."""
    return _apart(store, _union(by_view), share).clips
