"""The distillation job: a store and its audio in, a student out. No labels, and no teacher."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import AudioError, MismatchError, QueryError, RunError
from logitstore.jobs.labelled import read_labelled
from logitstore.jobs.machine import pick_device, versions
from logitstore.store.combined import members
from logitstore.store.reader import Store, open_store
from logitstore.view.clips import joined_clips
from students import folder, losses
from students.batches import Batch, Replayer, epoch_steps
from students.data import CACHE_BYTES, check_audio, open_sources, stored_views
from students.fit import (
    FitOptions,
    FitProgress,
    FitResult,
    check_training,
    default_lr,
    fit,
    initialised,
    keep_freed_memory,
    order_generator,
)
from students.measure import Evaluator
from students.models import build
from students.models.tagger import Tagger

I64 = npt.NDArray[np.int64]

#: Without --epochs or --steps: at least so many steps, in whole passes over all views.
DEFAULT_STEPS = 600
#: Without --eval-every: metrics are taken so many times in a training, evenly, and at its end.
_EVALUATIONS = 10
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """What ``train-student`` was asked; None means the default that the store or the model suggests.

    The stores ``also`` are read as one with ``store``; ``audio_root`` is one for all, or one for each in their order.
    """

    store: str
    audio_root: str | Sequence[str]
    student: str
    out: str
    also: Sequence[str] = ()
    model_args: Mapping[str, Any] = field(default_factory=dict)
    where: str | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 32
    lr: float | None = None
    loss: str | None = None
    temperature: float = 1.0
    tail: str = "zero"
    inconsistent: bool = False
    eval_manifest: str | None = None
    eval_audio_root: str | None = None
    eval_where: str | None = None
    eval_every: int | None = None
    label_column: str | None = None
    seed: int = 0
    device: str = "auto"
    amp: bool = False
    workers: int | None = None
    cache_bytes: int = CACHE_BYTES


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, the model's name and number of parameters, the result; ``before``: it was there."""

    out: str
    model: str
    parameters: int
    result: FitResult
    before: bool = False
    notes: tuple[str, ...] = ()


def train_student(options: StudentOptions, progress: FitProgress | None = None) -> Trained:
    """Train a student from a store: epoch e replays view e mod V of every clip and learns what was stored of it.

    :raises RunError: options that cannot be right, an unknown model or argument, a folder of another run.
    :raises MismatchError: the audio is not what the teachers heard, or the store has nothing to learn from.
    """
    _check(options)
    report = progress or FitProgress()
    store = open_store([options.store, *options.also])
    manifest = store.manifest
    loss_name = losses.loss_for(manifest.scores, options.loss, options.temperature)
    make = partial(build, options.student, len(manifest.classes), scores=_scores(manifest.scores), **options.model_args)
    model = initialised(make, options.seed)
    rate = model.front_end.sample_rate
    by_view = _clips_by_view(store, options.where)
    steps = _steps(options, [len(clips) for clips in by_view])
    lr = default_lr(options.student) if options.lr is None else options.lr
    device = pick_device(options.device)
    sources = open_sources(store, options.audio_root)
    tables = [store.clips] if len(sources) == 1 else [each.clips for each in members(store)]
    audio = joined_clips(sources, tables, manifest.sample_rate, options.cache_bytes)
    _check_files(store, sources, tables, by_view)
    check_audio(store, audio)
    workers = options.workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, "decode") as pool:
        evaluate = _evaluator(options, manifest.classes, store, rate, pool, workers)
        training = _training(options, store, loss_name, lr, steps, device)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        finished = folder.begin(options.out, training)
        if finished is not None:
            return Trained(options.out, options.student, parameters, finished, before=True)
        names = store.clips["path"]
        replayer = Replayer(
            audio,
            lambda clip: str(names[clip].as_py()),
            manifest.recipe,
            manifest.clip_samples,
            manifest.sample_rate,
            heard_at=rate,
            pool=pool,
        )

        def epoch_batches(epoch: int) -> Iterator[Batch]:
            view = epoch % len(by_view)
            fresh = (options.seed, epoch) if options.inconsistent else None
            views = stored_views(store, view, by_view[view], tail=options.tail, fresh=fresh)
            return replayer.epoch(views, options.batch_size, order_generator(options.seed, epoch))

        total = _epochs(steps, [len(clips) for clips in by_view], options.batch_size)
        every = options.eval_every or max(1, -(-total // _EVALUATIONS))

        def metrics(trained: Tagger, epoch: int, last: bool) -> dict[str, Any]:
            return evaluate(trained) if evaluate is not None and (last or (epoch + 1) % every == 0) else {}

        keep_freed_memory()
        result = fit(
            model,
            FitOptions(steps=steps, lr=lr, seed=options.seed, device=device, amp=options.amp),
            epoch_batches,
            _loss(loss_name, options.temperature),
            folder.log_path(options.out),
            describe=lambda epoch: {"view": epoch % len(by_view)},
            evaluate=metrics,
            progress=report,
        )
    folder.finish(
        options.out, training, result, model, options.student, dict(options.model_args), tuple(manifest.classes)
    )
    return Trained(options.out, options.student, parameters, result, notes=_notes(store, total, len(by_view)))


def _check(options: StudentOptions) -> None:
    check_training(
        options.batch_size,
        options.lr,
        options.seed,
        epochs=options.epochs,
        steps=options.steps,
        eval_every=options.eval_every,
        workers=options.workers,
    )
    if options.epochs is not None and options.steps is not None:
        raise RunError("--epochs and --steps are both given; give one of them")
    if options.tail not in losses.TAILS:
        raise RunError(f"--tail is {options.tail!r}; allowed are {', '.join(losses.TAILS)}")
    if options.eval_manifest is None:
        for name in ("eval_where", "eval_audio_root", "eval_every", "label_column"):
            if getattr(options, name) is not None:
                raise RunError(f"--{name.replace('_', '-')} says how to evaluate, and there is no --eval MANIFEST")
    elif options.eval_audio_root is None and len(_audio_roots(options)) > 1:
        raise RunError("--eval is given with several audio roots; say with --eval-audio-root which is its own")
    elif options.label_column is None:
        raise RunError("--eval is given without --label-column; name the manifest's column of labels")


def _audio_roots(options: StudentOptions) -> list[str]:
    return [options.audio_root] if isinstance(options.audio_root, str) else list(options.audio_root)


def _scores(scores: str) -> Any:
    return scores


def _clips_by_view(store: Store, where: str | None) -> list[I64]:
    """The clips to learn from in each view.

    :raises MismatchError: a view has none.
    """
    if not store.commits:
        raise MismatchError(f"{store.location} has no finished block, so no view to learn from; run its build first")
    by_view = [store.rows(view) for view in range(store.views)]
    if where is not None:
        try:
            chosen = store.sql(f"SELECT clip FROM clips WHERE ({where})")["clip"].to_numpy()
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
    by_view = [epoch_steps(count, options.batch_size) for count in clips]
    epochs = options.epochs or len(clips) * -(-DEFAULT_STEPS // sum(by_view))
    whole, rest = divmod(epochs, len(clips))
    return whole * sum(by_view) + sum(by_view[:rest])


def _epochs(steps: int, clips: list[int], batch_size: int) -> int:
    """Number of epochs, the last perhaps cut short."""
    by_view = [epoch_steps(count, batch_size) for count in clips]
    whole, rest = divmod(steps, sum(by_view))
    reached = np.cumsum([0, *by_view])
    return whole * len(clips) + int(np.searchsorted(reached, rest))


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
    options: StudentOptions, classes: Any, store: Store, heard_at: int, pool: ThreadPoolExecutor, workers: int
) -> Evaluator | None:
    if options.eval_manifest is None or options.label_column is None:
        return None
    labelled = read_labelled(
        options.eval_manifest,
        _audio_roots(options)[0] if options.eval_audio_root is None else options.eval_audio_root,
        options.label_column,
        where=options.eval_where,
        clip_seconds=store.manifest.clip_seconds,
        workers=workers,
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


def _loss(name: str, temperature: float) -> Any:
    return losses.bce if name == "bce" else partial(losses.kl, temperature=temperature)


def _training(options: StudentOptions, store: Store, loss: str, lr: float, steps: int, device: str) -> dict[str, Any]:
    """What makes this training what it is: resolved options, the store's fingerprint, versions."""
    content = hashlib.blake2b(digest_size=16)
    for commit in store.commits:
        content.update(commit.digest.encode())
    resolved = asdict(options) | {
        "loss": loss,
        "lr": lr,
        "steps": steps,
        "device": device,
        "model_args": dict(options.model_args),
    }
    places = {name: resolved.pop(name) for name in ("store", "also", "audio_root", "out")}
    for name in ("workers", "cache_bytes"):
        resolved.pop(name)  # they change nothing in what is learned
    return {
        "command": "train-student",
        "options": resolved,
        "places": places,
        "store": {
            "manifest_digest": store.root_digest,
            "content_digest": content.hexdigest(),
            "clips": store.clips.num_rows,
            "views": store.views,
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
