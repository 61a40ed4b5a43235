"""Supervised training of a teacher, for people whose domain has no published one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.cache import open_cache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples, samples_at
from logitstore.audio.sonyc import COARSE, FINE
from logitstore.audio.source import ColumnNames
from logitstore.classes import read_classes
from logitstore.digests import derived_seed
from logitstore.errors import AudioError, RunError, SourceError
from logitstore.evaluation.labelled import Labelled, classes_from, label_matrix, read_labelled
from logitstore.evaluation.scores import Evaluator
from logitstore.evaluation.sonyc import unknown
from logitstore.launched import processes
from logitstore.models.losses import bce, kl, known_bce
from logitstore.models.registry import build, initialised
from logitstore.models.registry import names as nets
from logitstore.notes import note
from logitstore.options import label_column_of
from logitstore.training.batches import Batch, Replayer, Views
from logitstore.training.loop import Epoch, FitProgress, Loss
from logitstore.training.options import check_loop, steps_of
from logitstore.training.runs import Run, load_run
from logitstore.training.sampling import order_generator, plan
from logitstore.training.train import Trained, Training, identity, resolve, train, workplace
from logitstore.views.ops import Place
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.gain import Gain
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe, draw, load_recipe
from teachers.options import TeacherOptions

#: Without --epochs or --steps: at least so many steps, and at least so many epochs.
DEFAULT_STEPS, DEFAULT_EPOCHS = 400, 10
_EVALUATIONS = 5
_MOST_NAMED = 3
#: The argument of a net that is made of a trained one: the run folder of that.
OF = "of"


def train_teacher(options: TeacherOptions, progress: FitProgress | None = None) -> Trained:
    """Train a model on labelled clips, under fresh draws of a recipe in every epoch.

    :raises RunError: options that cannot be right, an unknown model or argument, a folder of another run.
    :raises SourceError: no labelled clips.
    :raises AudioError: not one of them can be decoded.
    :raises TeacherError: labels that are none of the classes.
    """
    _check(options)
    workers = options.workers or os.cpu_count() or 1
    column = label_column_of(options)
    around = _around(options)
    named = None if options.classes is None else read_classes(options.classes)
    if around is not None:
        named = _classes_of(around, options, named)
    if options.labels == "sonyc" and named is None:
        named = FINE if column == "fine" else COARSE
    read = partial(
        read_labelled, options.manifest, options.audio_root, column,
        label_separator=options.label_separator, clip_seconds=options.clip_seconds, workers=workers,
        columns=ColumnNames.of(options),
    )  # fmt: skip
    labelled = read(where=options.where, classes=named)
    classes = classes_from(labelled.labels, options.manifest) if named is None else named
    if not classes:
        raise SourceError(f"no row of {options.manifest} has a label in the column {column!r}")
    labels = label_matrix(labelled.labels, classes, whose=options.classes or options.manifest, source=options.manifest)
    if options.scores == "softmax":
        _require_single(labelled, column)
    model_args = options.model_args if around is None else _args_around(around, options.model_args)
    model = initialised(partial(build, options.model, len(classes), scores=options.scores, **model_args), options.seed)
    if around is not None:
        begin: Callable[[Mapping[str, torch.Tensor]], None] = getattr(model, "begin")  # noqa: B009 of all TEACHERS
        begin(around.model.state_dict())
    made_of: dict[str, Any] = {} if around is None else {"around": around.digest}
    rate = model.front_end.sample_rate
    place = Place(max(1, clip_samples(labelled.clip_seconds, rate)), rate, labelled.table.num_rows)
    recipe = default_recipe(place) if options.recipe is None else load_recipe(options.recipe).fitted(place)
    recipe.check(place)
    per_epoch = steps_of(labelled.table.num_rows, options)
    steps = options.steps or per_epoch * (options.epochs or max(DEFAULT_EPOCHS, -(-DEFAULT_STEPS // per_epoch)))
    resolved = resolve(options, options.model, steps, clip_seconds=labelled.clip_seconds)
    disk = open_cache(options)
    with workplace(resolved) as (pool, group):
        measures = []
        if options.eval_where is not None:
            measured = read(where=options.eval_where, where_option="--eval-where", classes=classes)
            _say_shared(labelled, measured)
            measures.append(
                Evaluator(
                    measured, classes,
                    whose=f"the rows with {options.where or 'any label'}",
                    sample_rate=rate, heard_at=rate, batch_size=options.batch_size, pool=pool,
                    cache_bytes=options.cache_bytes, disk=disk,
                )
            )  # fmt: skip
        audio = ClipAudio(labelled.source, labelled.table, rate, options.cache_bytes, disk)
        replayer = Replayer(audio, labelled.name, recipe, place.clip_samples, rate, strict=False, pool=pool)
        clips = _Clips(labelled, labels.astype(np.float32), recipe, place, options.seed)
        partly = options.labels == "sonyc" and column == "fine"
        if partly:
            clips.leave_out(unknown(labelled.table["uncertain"].to_pylist(), classes))

        def epoch_of(epoch: int) -> Epoch:
            views = clips.views(epoch)
            orders = order_generator(options.seed, epoch)
            batches = plan(len(views), options.batch_size, orders, steps=options.epoch_steps)
            return Epoch(batches, partial(replayer.batch, views))

        def left_out() -> tuple[str, ...]:
            return tuple(
                f"left out, cannot be decoded: {audio.place(clip)}: {reason}"
                for clip, reason in sorted(replayer.failures.items())
            )

        training = Training(
            options=resolved,
            out=options.out,
            model=model,
            model_name=options.model,
            model_args=model_args,
            classes=classes,
            about=identity(
                "train-teacher",
                resolved,
                ("manifest", "audio_root", "out"),
                classes=list(classes),
                recipe=recipe.to_dict(),
                clips={"count": labelled.table.num_rows, "digest": labelled.digest()},
                **made_of,
            ),
            epochs=epoch_of,
            objective=_supervised(known_bce if partly else bce if options.scores == "sigmoid" else kl),
            measures=measures,
            every=options.eval_every or max(1, -(-steps // per_epoch // _EVALUATIONS)),
            notes=lambda: (*left_out(), *(() if disk is None else (disk.summary(),))),
        )
        try:
            return train(training, progress or FitProgress(), group)
        except RunError as error:
            if len(replayer.failures) < len(audio):
                raise
            raise AudioError(f"{error} ({'; '.join(left_out()[:_MOST_NAMED])})") from error


def _supervised(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., Loss]:
    """What is minimised: the mean loss of the batch's clips against their labels."""

    def objective(logits: torch.Tensor, frames: torch.Tensor | None, batch: Batch, **_: Any) -> Loss:
        value = loss(logits, batch.targets).mean()
        return Loss(value, {"target": value.detach()})

    return objective


def default_recipe(place: Place) -> Recipe:
    """What a teacher hears in training unless told otherwise: roll, gain, and masks like CED's in width.

    The time mask is at most 1.92 s, and at most two fifths of a view.
    """
    ticks = min(192, 2 * place.ticks // 5)
    time_mask = (TimeMask(max_seconds=ticks / 100),) if ticks else ()
    return Recipe(
        "teacher",
        (
            Roll(probability=0.5, max_fraction=0.5),
            Gain(min_db=-6.0, max_db=6.0),
            *time_mask,
            FrequencyMask(max_steps=24, min_hz=0.0, max_hz=min(8000.0, place.sample_rate / 2)),
        ),
    )


class _Clips:
    """Labelled clips as the views of an epoch."""

    def __init__(self, labelled: Labelled, labels: F32, recipe: Recipe, place: Place, seed: int) -> None:
        table = labelled.table
        self.paths = table["path"].to_pylist()
        self.starts, self.frames, rates = (
            table[name].to_numpy().astype(np.int64) for name in ("start", "length", "rate")
        )
        own = np.asarray(samples_at(self.frames, np.maximum(rates, 1), place.sample_rate), dtype=np.int64)
        self.lengths = np.minimum(own, place.clip_samples)
        self.labels = labels[labelled.row_of]  # float32 (n, C)
        self.recipe, self.place, self.seed = recipe, place, derived_seed("teacher draws", seed)

    def leave_out(self, unknown: Bool) -> None:
        """Nothing is learnt of some labels, bool (n, C): they become -1."""
        self.labels = np.where(unknown, np.float32(-1), self.labels)

    def views(self, epoch: int) -> Views:
        """Every clip under the epoch's own draws; under mixup, labels are mixed as the waveforms are."""
        draws = draw(
            self.recipe,
            seed=self.seed,
            keys=list(zip(self.paths, self.starts.tolist(), self.frames.tolist(), strict=True)),
            view=epoch,
            lengths=self.lengths,
            place=self.place,
            shard_rows=len(self.paths),
        )
        clips = np.arange(len(self.paths), dtype=np.int64)
        partners = self.recipe.partners(draws)
        if partners is None:
            return Views(clips, draws, None, lambda positions: self.labels[positions])
        others = np.maximum(partners, 0)
        share = self.recipe.partner_shares(draws)[:, None]

        def mixed(positions: I64) -> F32:
            w = share[positions]
            own, other = self.labels[positions], self.labels[others[positions]]
            return np.where((own < 0) | ((other < 0) & (w > 0)), np.float32(-1), (1 - w) * own + w * other)

        return Views(clips, draws, partners, mixed)


def _say_shared(learnt: Labelled, measured: Labelled) -> None:
    """Say where the rows that are measured are of files that are learnt from, so that the mAP is too good."""
    paths = [set(each.table["path"].to_pylist()) for each in (learnt, measured)]
    both = paths[0] & paths[1]
    if both:
        note(
            f"{len(both)} of {len(paths[1])} files that are measured with --eval-where are learnt from too, as "
            f"{min(both)!r}; the mAP says nothing of new audio: leave them out with --where"
        )


def _around(options: TeacherOptions) -> Run | None:
    """The trained net that the asked one is made of, ``--model-arg of=RUN``; None of a net that starts anew.

    :raises RunError: none is named, or one of somebody's own code, which no run folder may name.
    """
    if options.model not in nets("TEACHERS"):
        return None
    place = options.model_args.get(OF)
    if not isinstance(place, str):
        raise RunError(f"--model {options.model} is made of a trained net; give its run folder, --model-arg {OF}=RUN")
    run = load_run(place)
    if run.config["model"] in nets("TEACHERS") or run.scores != options.scores:
        raise RunError(
            f"--model {options.model} is made of one net of sigmoid scores; {place!r} is of the model "
            f"{run.config['model']}, {run.scores}"
        )
    return run


def _classes_of(around: Run, options: TeacherOptions, named: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes of the trained net.

    :raises RunError: others were asked for.
    """
    if named not in (None, around.classes):
        raise RunError(
            f"{options.classes} names {len(named or ())} classes, and the net of {around.folder}, of which "
            f"{options.model} is made, has {len(around.classes)} or others, or in another order; leave --classes out"
        )
    return around.classes


def _args_around(around: Run, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a net that is made of a trained one, in which its architecture takes the place of its folder."""
    return {
        "net": around.config["model"],
        "net_args": around.config["model_args"],
        **{name: value for name, value in asked.items() if name != OF},
    }


def _check(options: TeacherOptions) -> None:
    check_loop(options)
    if options.labels is not None and options.scores == "softmax":
        raise RunError("--labels sonyc are any number of labels a clip; leave --scores softmax out")
    if processes() > 1:
        raise RunError(
            f"train-teacher runs in one process, and torchrun started {processes()}; start it without torchrun"
        )
    if options.eval_every is not None and options.eval_where is None:
        raise RunError("--eval-every says how often to evaluate, and there is no --eval-where SQL")


def _require_single(labelled: Labelled, column: str) -> None:
    for row, names in enumerate(labelled.labels):
        if len(names) != 1:
            clip = int(np.flatnonzero(labelled.row_of == row)[0])
            raise RunError(
                f"--scores softmax needs one label a row; {labelled.name(clip)} has {len(names)} in the column "
                f"{column!r} ({';'.join(names)}); use --scores sigmoid, or leave such rows out with --where"
            )
