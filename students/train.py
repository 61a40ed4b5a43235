"""The distillation job: a store and its audio in, a student out. No teacher, and no labels unless asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F64, I64
from logitstore.audio.cache import AudioCache, open_cache
from logitstore.audio.source import Source
from logitstore.digests import hasher
from logitstore.documents import load_json
from logitstore.errors import AudioError, MismatchError, QueryError, RunError
from logitstore.evaluation.labelled import read_labelled
from logitstore.evaluation.scores import Evaluator
from logitstore.evaluation.sonyc import WhileTraining, read_truth
from logitstore.launched import processes
from logitstore.models.registry import build, initialised
from logitstore.models.tagger import Tagger
from logitstore.notes import note
from logitstore.store.audio import clip_keys, open_sources
from logitstore.store.reader import Store, open_store
from logitstore.store.subset import Subset, read_subset
from logitstore.training.batches import Replayer
from logitstore.training.loop import Epoch, FitProgress
from logitstore.training.options import LoopOptions, check_processes, steps_of
from logitstore.training.runs import MOST_BYTES, MOST_VALUES
from logitstore.training.sampling import order_generator, plan
from logitstore.training.train import (
    OPTIONS_NAME,
    Measure,
    Trained,
    Training,
    identity,
    resolve,
    train,
    workplace,
)
from students.data import check_audio, open_replayer, stored_views
from students.held_out import Apart, HeldOutAgreement, HeldOutLoss, default_share, split
from students.init import InitReport, load_init
from students.labels import ClipLabels, clip_labels
from students.objective import Objective
from students.options import DEFAULT_HOLD_OUT, NOTHING_TO_EVALUATE, StudentOptions, check_student, needs_held_out
from students.presets import find as find_preset
from students.presets import replaced
from students.sampling import balanced, weighted_by
from students.targets import loss_for, tail_of
from students.terms import TARGET, Setting, weighed

__all__ = ["StudentOptions", "Trained", "train_student"]


#: Without --epochs or --steps: at least so many steps, in whole passes over all views.
DEFAULT_STEPS = 600
#: Without --eval-every: measures are taken so many times in a training, evenly, and at its end.
_EVALUATIONS = 10
_MOST_NAMED = 3
#: So many clips' files are looked for before the first step; of more, runs of neighbours.
_MOST_FILES, _RUNS, _RUN = 1 << 16, 8, 512
_PLACES = ("store", "also", "store_weights", "audio_root", "clips", "verdicts", "out")  # what is there, digests say


def train_student(options: StudentOptions, progress: FitProgress | None = None) -> Trained:
    """Train a student from a store: epoch e replays view e mod V of every clip and learns what was stored of it.

    Where ``torchrun`` started several processes, all of them call this, and train together.

    :raises RunError: options that cannot be right, an unknown model or argument, a folder of another run.
    :raises MismatchError: the audio is not what the teachers heard, or the store has nothing to learn from, or
        lacks the relations that a term needs.
    """
    check_student(options)
    _say_preset(options)
    check_processes(options.batch_size, processes())
    store = open_store(options.stores, weights=options.store_weights)
    manifest = store.manifest
    make = partial(build, options.student, len(manifest.classes), scores=_scores(manifest.scores), **options.model_args)
    model = initialised(make, options.seed)
    setting, objective = _objective(options, store, model)
    labels = None
    column = options.column(manifest.classes)
    if objective.needs_labels and column is not None:
        masked = options.labels == "sonyc" and column == "fine"
        labels = clip_labels(store, column, options.label_separator, options.verdicts, masked=masked)
    init = None
    if options.init is not None:
        init = load_init(model, options.init, options.new_head, tuple(manifest.classes))
    subset = None if options.clips is None else read_subset(store, options.clips)
    by_view = clips_by_view(store, options.where, subset)
    if subset is not None:
        note(_chosen(store, by_view, subset, options.where))
    share, chosen = _share(options, store, by_view)
    if not share and options.eval_every is not None and options.eval_manifest is None:
        raise RunError(NOTHING_TO_EVALUATE)
    by_view, apart = split(store, by_view, share, chosen) if share else (by_view, None)
    counts = [len(clips) for clips in by_view]
    resolved = resolve(
        options,
        options.student,
        _steps(options, counts),
        loss=setting.loss,
        tail=tail_of(store, options.tail),
        hold_out=share,
        average_best=_average_best(options),
    )
    weights = _Weights(store, by_view, options)
    check_processes(min(_smallest(count, options) for count in counts), processes())
    total = _epochs(_steps(options, counts), counts, options)
    with workplace(resolved) as (pool, group):
        heard_at = model.front_end.sample_rate
        disk = open_cache(options)
        replayer = _replayer(resolved, store, by_view + (apart or []), heard_at, pool, disk)
        measures: list[Measure] = []
        final = None
        if group.first and apart is not None:
            final = HeldOutAgreement(store, replayer, apart, options.batch_size)
        if group.first and apart is not None:
            target = Objective({TARGET: 1.0}, setting)
            measures.append(HeldOutLoss(store, replayer, apart, target, resolved.tail, options.batch_size))
        if group.first and options.eval_manifest is not None:
            measures.append(_evaluator(resolved, store, heard_at, pool, disk))
        training = Training(
            options=resolved,
            out=options.out,
            model=model,
            model_name=options.student,
            model_args=options.model_args,
            classes=manifest.classes,
            about=_identity(resolved, store, init, group.size, subset, labels),
            epochs=partial(_epoch, resolved, store, by_view, objective, labels, weights, replayer),
            objective=objective,
            loop={
                "mixup": options.mixup,
                "by_frame": bool(objective.by_frame),
                "patience": options.patience,
                "average_best": resolved.average_best or 0,
                "select_by": options.select_by,
            },
            measures=measures,
            every=options.eval_every or (max(1, -(-total // _EVALUATIONS)) if _followed(options) else total),
            final=final,
            more={} if init is None else {"init": init.to_dict()},
            notes=lambda: (
                *(() if disk is None else (disk.summary(),)),
                *(() if init is None else init.lines()),
                *_notes(store, total, len(by_view)),
            ),
        )
        return train(training, progress or FitProgress(), group)


def _say_preset(options: StudentOptions) -> None:
    """Say in what a training is another one than its preset."""
    if options.preset is None:
        return
    preset = find_preset(options.preset)
    if preset.start is not None and options.init is None:
        note(
            f"preset {options.preset}: its students start from {preset.start}, and this one from random weights, from "
            f"which they come out worse; give {preset.init}"
        )
    if others := replaced(options):
        note(f"preset {options.preset}, but for {', '.join(others)}")


def _objective(options: StudentOptions, store: Store, model: Tagger) -> tuple[Setting, Objective]:
    """What is minimised; store and student are asked whether they have what that needs."""
    manifest = store.manifest
    setting = Setting(
        loss_for(manifest.scores, options.loss, options.temperature),
        options.temperature,
        None if manifest.relations is None else manifest.relations.pooled,
        view_seconds=manifest.clip_seconds,
        target_seconds=None if manifest.frames is None else manifest.frames.hop,
        frame_centers=getattr(model, "frame_centers", None),
    )
    objective = Objective(options.weights, setting, mixup=options.mixup, accumulate=options.accumulate)
    if objective.relations:
        store.require_relations(frames="frames" in objective.relations, clips="clips" in objective.relations)
    if objective.by_frame:
        store.require_frames()
        _require_frame_outputs(options.student, model, objective.by_frame)
    return setting, objective


def _require_frame_outputs(name: str, model: Tagger, terms: Sequence[str]) -> None:
    """Refuse a student that says nothing of single frames, or not when they are.

    :raises RunError: naming it, and what to do.
    """
    wanted = f"--term {', '.join(terms)} needs a student that says something of every frame, and {name!r} does not"
    for method in ("answers_by_frame", "frame_centers"):
        if not callable(getattr(model, method, None)):
            raise RunError(f"{wanted}: it has no method {method}, as logitstore.models.tagger.Tagger has")
    try:
        with torch.no_grad():
            model.eval().answers_by_frame(model.frame_features(torch.zeros(1, model.front_end.sample_rate)))
    except RunError as error:
        raise RunError(f"{wanted}: {error}; give it --pool mean (or max, attention, cnn14-attention)") from error
    model.train()


def _average_best(options: StudentOptions) -> int | None:
    """How many of the best evaluations to average: with early stopping at least the best one is kept."""
    return 1 if options.average_best is None and options.patience is not None else options.average_best


def _share(options: StudentOptions, store: Store, by_view: list[I64]) -> tuple[float | None, Apart | None]:
    """The share of files to hold out, and the clips of it where they are known.

    The share is None for a run that was begun when none were unless that was asked for.
    """
    if options.hold_out is not None:
        return options.hold_out, None
    if needs_held_out(options):
        return DEFAULT_HOLD_OUT, None
    return (None, None) if _begun_without(options.out) else default_share(store, by_view)


def _begun_without(out: str) -> bool:
    """Whether a run folder is of an earlier release, which held nothing out; what it records then is null."""
    try:
        there = load_json(Path(out) / OPTIONS_NAME, MOST_BYTES, MOST_VALUES, nan=True)
        return bool(there["options"].get("hold_out", None) is None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # none, or one that is refused later


def _followed(options: StudentOptions) -> bool:
    """Whether it was asked for to be measured on the way, and not only at the end."""
    return options.eval_manifest is not None or options.hold_out is not None or needs_held_out(options)


class _Weights:
    """Sampling weights of the clips of each view, float64, or None for each clip once; made when first asked for.

    Those of view 0 are made at once, so that weights that cannot be right are refused before any work.
    """

    def __init__(self, store: Store, by_view: list[I64], options: StudentOptions) -> None:
        self.store, self.by_view, self.options = store, by_view, options
        self.known: dict[int, F64] = {}
        self(0)

    def __call__(self, view: int) -> F64 | None:
        sql = self.options.weight_by
        if sql is None and not self.options.balance:
            return None
        if view not in self.known:
            rows = self.by_view[view]
            self.known[view] = (
                balanced(self.store, view, rows) if sql is None else weighted_by(self.store, view, rows, sql)
            )
        return self.known[view]


def _epoch(
    options: StudentOptions,
    store: Store,
    by_view: list[I64],
    objective: Objective,
    labels: ClipLabels | None,
    weights: _Weights,
    replayer: Replayer,
    epoch: int,
) -> Epoch:
    """An epoch: view e mod V of the clips, in an order of its own."""
    view = epoch % len(by_view)
    views = stored_views(
        store,
        view,
        by_view[view],
        tail=options.tail,
        fresh=(options.seed, epoch) if options.inconsistent else None,
        relations=objective.relations,
        labels=labels,
        frame_targets=bool(objective.by_frame),
    )
    batches = plan(
        len(views),
        options.batch_size,
        order_generator(options.seed, epoch),
        weights=weights(view),
        steps=options.epoch_steps,
    )
    return Epoch(batches, partial(replayer.batch, views), {"view": view})


def _replayer(
    options: StudentOptions,
    store: Store,
    by_view: list[I64],
    heard_at: int,
    pool: ThreadPoolExecutor,
    disk: AudioCache | None,
) -> Replayer:
    """What replays the store's views, its audio checked."""
    sources = open_sources(store, options.audio_root)
    replayer = open_replayer(store, sources, options.cache_bytes, disk=disk, heard_at=heard_at, pool=pool)
    roots = options.audio_roots
    _check_files(store, sources, by_view, roots if len(roots) == len(sources) else [roots[0]] * len(sources))
    check_audio(store, replayer.audio)
    return replayer


def _scores(scores: str) -> Any:
    return scores


def clips_by_view(store: Store, where: str | None, subset: Subset | None = None) -> list[I64]:
    """The clips to learn from in each view: those for which ``where`` holds, of the subset.

    :raises MismatchError: a view has none.
    """
    if not store.commits:
        raise MismatchError(f"{store.location} has no finished block, so no view to learn from; run its build first")
    by_view: list[I64] = []
    for view in range(store.views):
        clips = store.clips_of(view)
        same = view and (clips is by_view[-1] or np.array_equal(clips, by_view[-1]))
        by_view.append(by_view[-1] if same else clips)
    if where is not None:
        try:
            chosen = store.sql(f"SELECT clip FROM clips WHERE ({where}\n)")["clip"].to_numpy()
        except QueryError as error:
            raise QueryError(f"--where {where!r}: {error}") from error
        by_view = _among(by_view, chosen, len(store))
    if subset is not None:
        by_view = _among(by_view, subset.clips, len(store))
    for view, clips in enumerate(by_view):
        if not len(clips):
            asked = f" for which --where {where!r} holds" if where is not None else ""
            asked += f" among the {len(subset.clips):,} of --clips {subset.file}" if subset is not None else ""
            raise MismatchError(
                f"{store.location} has no clip with targets in view {view}{asked}; nothing to learn from"
            )
    return by_view


def _among(by_view: list[I64], chosen: I64, count: int) -> list[I64]:
    """The clips of each view that were chosen, of ``count`` in all."""
    among = np.zeros(count, dtype=bool)
    among[chosen] = True
    found: list[I64] = []
    for view, clips in enumerate(by_view):
        found.append(found[-1] if view and clips is by_view[view - 1] else clips[among[clips]])
    return found


def _chosen(store: Store, by_view: list[I64], subset: Subset, where: str | None) -> str:
    """How many clips a subset leaves to learn from, and why not all of it."""
    left = np.unique(np.concatenate(by_view))
    targets = np.unique(np.concatenate([store.clips_of(view) for view in range(store.views)]))
    lacking = int((~np.isin(subset.clips, targets)).sum())
    others = len(subset.clips) - lacking - len(left)
    why = [
        *([f"{lacking:,} that it names have no targets"] if lacking else []),
        *([f"--where {where!r} leaves out {others:,}"] if others else []),
    ]
    return (
        f"--clips {subset.file}: {len(left):,} of the {len(targets):,} clips with targets of {store.location} are "
        f"learnt from{''.join(f'; {each}' for each in why)}"
    )


def _steps(options: StudentOptions, clips: list[int]) -> int:
    """Number of steps: as asked, or whole passes over all views with at least :data:`DEFAULT_STEPS` steps."""
    if options.steps is not None:
        return options.steps
    by_view = [steps_of(count, options) for count in clips]
    epochs = options.epochs or len(clips) * -(-DEFAULT_STEPS // sum(by_view))
    whole, rest = divmod(epochs, len(clips))
    return whole * sum(by_view) + sum(by_view[:rest])


def _epochs(steps: int, clips: list[int], options: LoopOptions) -> int:
    """Number of epochs, the last perhaps cut short."""
    by_view = [steps_of(count, options) for count in clips]
    whole, rest = divmod(steps, sum(by_view))
    reached = np.cumsum([0, *by_view])
    return whole * len(clips) + int(np.searchsorted(reached, rest))


def _smallest(views: int, options: LoopOptions) -> int:
    """Clips of the smallest batch of an epoch."""
    return options.batch_size if options.epoch_steps is not None else views // steps_of(views, options)


def _check_files(store: Store, sources: Sequence[Source], by_view: list[I64], roots: Sequence[str]) -> None:
    """Refuse a folder that lacks files of the store's clips, before hours of training meet the first of them.

    Of more than :data:`_MOST_FILES` clips, runs of neighbours from all over the store are looked for, which is said.
    """
    distinct = {id(rows): rows for rows in by_view}.values()
    if max(map(len, distinct)) <= _MOST_FILES:
        clips = np.unique(np.concatenate(list(distinct)))
    else:
        firsts = ((rows, np.linspace(0, max(0, len(rows) - _RUN), _RUNS).astype(int)) for rows in distinct)
        clips = np.unique(np.concatenate([rows[at : at + _RUN] for rows, starts in firsts for at in starts]))
        note(f"the files of {len(clips):,} of the {len(store):,} clips of {store.location} were looked for, not all")
    first = 0
    for source, keys, root in zip(sources, clip_keys(store, sources), roots, strict=True):
        own = clips[(clips >= first) & (clips < first + len(keys))] - first
        first += len(keys)
        if source.kind != "folder":
            continue
        paths = dict.fromkeys(keys[clip][0] for clip in own.tolist())
        missing = [path for path in paths if not _is_file(source, path)]
        if missing:
            more = ", …" if len(missing) > _MOST_NAMED else ""
            raise MismatchError(
                f"{len(missing)} of {len(paths)} files of {store.location} are not under the audio root: "
                f"{', '.join(missing[:_MOST_NAMED])}{more}; give the audio root that the store was built from, "
                f"not {root}"
            )


def _is_file(source: Source, path: str) -> bool:
    try:
        piece = source.read(path)
    except AudioError:
        return False
    return not isinstance(piece, Path) or piece.is_file()


def _evaluator(
    options: StudentOptions, store: Store, heard_at: int, pool: ThreadPoolExecutor, disk: AudioCache | None
) -> Evaluator:
    official = None
    where, split = options.eval_where, options.eval_split or "validate"
    if options.eval_measure is not None:
        where = f"split = '{split}'"
        truth = read_truth(str(options.eval_manifest), split, told=False)
        official = WhileTraining(truth, tuple(store.manifest.classes), options.level or "coarse")
    labelled = read_labelled(
        str(options.eval_manifest),
        options.audio_roots[0] if options.eval_audio_root is None else options.eval_audio_root,
        str(options.column(store.manifest.classes)),
        where=where,
        where_option="--eval-where" if official is None else "--eval-split",
        label_separator=options.label_separator,
        classes=store.manifest.classes,
        clip_seconds=store.manifest.clip_seconds,
        workers=options.workers or os.cpu_count() or 1,
    )
    if official is not None:
        found = np.zeros(len(labelled), dtype=np.bool_)
        found[labelled.row_of[labelled.table["rate"].to_numpy() > 0]] = True  # 0 where a file cannot be opened
        official.require(labelled.files(found))
    return Evaluator(
        labelled,
        tuple(store.manifest.classes),
        whose=f"the store {store.location}",
        sample_rate=store.manifest.sample_rate,
        heard_at=heard_at,
        batch_size=options.batch_size,
        pool=pool,
        cache_bytes=options.cache_bytes,
        official=official,
        disk=disk,
    )


def content_digest(store: Store) -> str:
    """BLAKE2b-128, hex, of all that a store holds."""
    content = hasher()
    for commit in store.commits:
        content.update(commit.digest.encode())
    return content.hexdigest()


def _identity(
    options: StudentOptions,
    store: Store,
    init: InitReport | None,
    size: int,
    subset: Subset | None,
    labels: ClipLabels | None,
) -> dict[str, Any]:
    """What makes this training what it is: resolved options, digests of the store and its clips, versions."""
    chosen: dict[str, Any] = {}
    if subset is not None:
        chosen["subset"] = {"digest": subset.digest, "clips": len(subset.clips)}
    if options.verdicts is not None and labels is not None:
        chosen["corrected_labels"] = labels.digest
    about = identity(
        "train-student",
        options,
        _PLACES,
        size,
        init=None if init is None else init.digest,
        store={
            "manifest_digest": store.root_digest,
            "content_digest": content_digest(store),
            "clips": len(store),
            "views": store.views,
            "clip_seconds": store.manifest.clip_seconds,
        },
        **chosen,
    )
    about["options"]["terms"] = weighed(options.terms)
    if not options.terms:  # runs that were begun before there was this option go on
        del about["options"]["terms"]
    preset = about["options"].pop("preset")  # whose values the options have
    return about if preset is None else about | {"preset": preset}


def _notes(store: Store, epochs: int, views: int) -> tuple[str, ...]:
    notes = []
    committed = sum({commit.first_clip: commit.clips for commit in store.commits}.values())
    if committed < len(store):
        notes.append(f"the store is not finished: {committed} of {len(store)} clips have targets")
    if epochs % views:
        notes.append(
            f"{epochs} epochs are no multiple of the store's {views} views: some views were used once more often"
        )
    return tuple(notes)
