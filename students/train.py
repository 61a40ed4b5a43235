"""The distillation job: a store and its audio in, a student out. No teacher, and no labels unless asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F64, I64
from logitstore.audio.clips import joined_clips
from logitstore.errors import AudioError, MismatchError, QueryError
from logitstore.evaluation.evaluator import Evaluator
from logitstore.evaluation.labelled import read_labelled
from logitstore.models.machine import pick_device, versions
from logitstore.models.registry import build
from logitstore.models.tagger import Tagger
from logitstore.store.reader import Store, open_store
from logitstore.training.batches import Replayer
from logitstore.training.fit import Epoch, FitProgress, initialised, order_generator
from logitstore.training.job import Job, Trained
from logitstore.training.options import INDIFFERENT, LoopOptions, check_processes, steps_of, warm_up_of
from logitstore.training.precision import pass_dtype
from logitstore.training.processes import joined, own_device, processes
from logitstore.training.sampling import plan
from logitstore.training.schedule import default_lr
from students import losses
from students.data import check_audio, open_sources, stored_views
from students.held_out import HeldOutLoss, both, split
from students.init import InitReport, load_init
from students.labels import ClipLabels, clip_labels
from students.objective import SIMILARITIES, Objective
from students.options import StudentOptions, check_student, held_out_share
from students.sampling import balanced, weighted_by

__all__ = ["StudentOptions", "Trained", "train_student"]


#: Without --epochs or --steps: at least so many steps, in whole passes over all views.
DEFAULT_STEPS = 600
#: Without --eval-every: measures are taken so many times in a training, evenly, and at its end.
_EVALUATIONS = 10
_MOST_NAMED = 3
_PLACES = ("store", "also", "audio_root", "out")


def train_student(options: StudentOptions, progress: FitProgress | None = None) -> Trained:
    """Train a student from a store: epoch e replays view e mod V of every clip and learns what was stored of it.

    Where ``torchrun`` started several processes, all of them call this, and train together.

    :raises RunError: options that cannot be right, an unknown model or argument, a folder of another run.
    :raises MismatchError: the audio is not what the teachers heard, or the store has nothing to learn from, or
        lacks the relations that a similarity needs.
    """
    check_student(options)
    check_processes(options.batch_size, processes())
    store = open_store([options.store, *options.also])
    manifest = store.manifest
    objective = _objective(options, store)
    labels = clip_labels(store, options.label_column) if options.label_weight and options.label_column else None
    device = pick_device(options.device)
    here = own_device(device)
    pass_dtype(options.precision, torch.device(here))
    make = partial(build, options.student, len(manifest.classes), scores=_scores(manifest.scores), **options.model_args)
    model = initialised(make, options.seed)
    init = None
    if options.init is not None:
        init = load_init(model, options.init, options.new_head, tuple(manifest.classes))
    by_view = _clips_by_view(store, options.where)
    share = held_out_share(options)
    by_view, apart = (by_view, None) if share is None else split(store, by_view, share)
    counts = [len(clips) for clips in by_view]
    steps = _steps(options, counts)
    resolved = replace(
        options,
        loss=objective.loss,
        lr=default_lr(options.student) if options.lr is None else options.lr,
        warm_up=warm_up_of(options, steps),
        epochs=None,
        steps=steps,
        hold_out=share,
        average_best=_average_best(options),
        device=device,
    )
    weights = _Weights(store, by_view, options)
    check_processes(min(_smallest(count, options) for count in counts), processes())
    with ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "decode") as pool, joined(here) as group:
        replayer = _replayer(resolved, store, by_view, apart, model.front_end.sample_rate, pool)
        measures: list[Callable[[Tagger], dict[str, Any]] | None] = []
        if group.first:
            target = Objective(objective.loss, options.temperature)
            if apart is not None:
                measures.append(HeldOutLoss(store, replayer, apart, target, options.tail, options.batch_size))
            measures.append(_evaluator(resolved, manifest.classes, store, model.front_end.sample_rate, pool))
        total = _epochs(steps, counts, options)
        job = Job(
            options=resolved,
            out=options.out,
            model=model,
            model_name=options.student,
            model_args=options.model_args,
            classes=tuple(manifest.classes),
            training=_training(resolved, store, init, group.size),
            loop=replace(
                resolved.fitting(
                    mixup=options.mixup,
                    patience=options.patience,
                    average_best=resolved.average_best or 0,
                    select_by=options.select_by,
                ),
                device=here,
            ),
            epochs=partial(_epoch, resolved, store, by_view, objective, labels, weights, replayer),
            objective=objective,
            measure=both(*measures),
            every=options.eval_every or max(1, -(-total // _EVALUATIONS)),
            more={} if init is None else {"init": init.to_dict()},
            notes=lambda: (*(() if init is None else init.lines()), *_notes(store, total, len(by_view))),
        )
        return job.run(progress or FitProgress(), group)


def _objective(options: StudentOptions, store: Store) -> Objective:
    """What is minimised; the store is asked first whether it has what that needs."""
    manifest = store.manifest
    loss = losses.loss_for(manifest.scores, options.loss, options.temperature)
    objective = Objective(
        loss,
        options.temperature,
        similarity=options.similarity,
        similarity_weight=options.similarity_weight,
        label_weight=options.label_weight,
        frames=None if manifest.relations is None else manifest.relations.pooled,
        mixup=options.mixup,
    )
    if options.similarity is not None:
        needed = SIMILARITIES[options.similarity]
        store.require_relations(frames="frames" in needed, clips="clips" in needed)
    return objective


def _average_best(options: StudentOptions) -> int | None:
    """How many of the best evaluations to average: with early stopping at least the best one is kept."""
    return 1 if options.average_best is None and options.patience is not None else options.average_best


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
    apart: list[I64] | None,
    heard_at: int,
    pool: ThreadPoolExecutor,
) -> Replayer:
    """What replays the store's views, its audio checked."""
    manifest = store.manifest
    sources = open_sources(store, options.audio_root)
    tables = [store.clips] if len(sources) == 1 else [piece.clips for piece in store.pieces]
    audio = joined_clips(sources, tables, manifest.sample_rate, options.cache_bytes)
    _check_files(store, sources, tables, by_view + (apart or []))
    check_audio(store, audio)
    names = store.clips["path"]
    return Replayer(
        audio,
        lambda clip: str(names[clip].as_py()),
        manifest.recipe,
        manifest.clip_samples,
        manifest.sample_rate,
        heard_at=heard_at,
        pool=pool,
    )


def _scores(scores: str) -> Any:
    return scores


def _clips_by_view(store: Store, where: str | None) -> list[I64]:
    """The clips to learn from in each view.

    :raises MismatchError: a view has none.
    """
    if not store.commits:
        raise MismatchError(f"{store.location} has no finished block, so no view to learn from; run its build first")
    by_view = [store.clips_of(view) for view in range(store.views)]
    if where is not None:
        try:
            chosen = store.sql(f"SELECT clip FROM clips WHERE ({where}\n)")["clip"].to_numpy()
        except QueryError as error:
            raise QueryError(f"--where {where!r}: {error}") from error
        by_view = [clips[np.isin(clips, chosen)] for clips in by_view]
    for view, clips in enumerate(by_view):
        if not len(clips):
            asked = f" for which --where {where!r} holds" if where is not None else ""
            raise MismatchError(
                f"{store.location} has no clip with targets in view {view}{asked}; nothing to learn from"
            )
    return by_view


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


def _check_files(store: Store, sources: list[Any], tables: list[Any], by_view: list[I64]) -> None:
    """Refuse a folder that lacks files of the store's clips, before hours of training meet the first of them."""
    clips = np.unique(np.concatenate(by_view))
    first = 0
    for source, table in zip(sources, tables, strict=True):
        own = clips[(clips >= first) & (clips < first + table.num_rows)] - first
        first += table.num_rows
        if source.kind != "folder":
            continue
        paths = dict.fromkeys(table["path"].take(own).to_pylist())
        missing = [path for path in paths if not _is_file(source, path)]
        if missing:
            more = ", …" if len(missing) > _MOST_NAMED else ""
            raise MismatchError(
                f"{len(missing)} of {len(paths)} files of {store.location} are not under the audio root: "
                f"{', '.join(missing[:_MOST_NAMED])}{more}; give the audio root that the store was built from"
            )


def _is_file(source: Any, path: str) -> bool:
    try:
        piece = source.read(path)
    except AudioError:
        return False
    return not isinstance(piece, Path) or piece.is_file()


def _evaluator(
    options: StudentOptions, classes: Any, store: Store, heard_at: int, pool: ThreadPoolExecutor
) -> Evaluator | None:
    if options.eval_manifest is None or options.label_column is None:
        return None
    labelled = read_labelled(
        options.eval_manifest,
        options.audio_roots[0] if options.eval_audio_root is None else options.eval_audio_root,
        options.label_column,
        where=options.eval_where,
        where_option="--eval-where",
        clip_seconds=store.manifest.clip_seconds,
        workers=options.workers or os.cpu_count() or 1,
    )
    return Evaluator(
        labelled,
        tuple(classes),
        whose=f"the store {store.location}",
        sample_rate=store.manifest.sample_rate,
        heard_at=heard_at,
        batch_size=options.batch_size,
        pool=pool,
        cache_bytes=options.cache_bytes,
    )


def _training(options: StudentOptions, store: Store, init: InitReport | None, size: int) -> dict[str, Any]:
    """What makes this training what it is: resolved options, the store's fingerprint, versions."""
    content = hashlib.blake2b(digest_size=16)
    for commit in store.commits:
        content.update(commit.digest.encode())
    resolved = asdict(options) | {"model_args": dict(options.model_args)}
    places = {name: resolved.pop(name) for name in _PLACES}
    for name in INDIFFERENT:
        resolved.pop(name)
    return {
        "command": "train-student",
        "options": resolved,
        "processes": size,
        "places": places,
        "init": None if init is None else init.digest,
        "store": {
            "manifest_digest": store.root_digest,
            "content_digest": content.hexdigest(),
            "clips": store.clips.num_rows,
            "views": store.views,
            "clip_seconds": store.manifest.clip_seconds,
        },
        "versions": versions(),
    }


def _notes(store: Store, epochs: int, views: int) -> tuple[str, ...]:
    notes = []
    committed = sum({commit.first_clip: commit.clips for commit in store.commits}.values())
    if committed < store.clips.num_rows:
        notes.append(f"the store is not finished: {committed} of {store.clips.num_rows} clips have targets")
    if epochs % views:
        notes.append(
            f"{epochs} epochs are no multiple of the store's {views} views: some views were used once more often"
        )
    return tuple(notes)
