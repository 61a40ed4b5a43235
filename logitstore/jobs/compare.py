"""The comparison job: how far B agrees with A on the same sound, without labels, and what each of them costs.

A and B are models, or stores. Two models hear clips of the source, unaugmented. A store's targets are compared with
what a model says of the same views, replayed as the store's teachers heard them; two stores of one recipe and seed hold
what was said of the same views, and no audio is needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from logitstore import notebook
from logitstore.arrays import F32, I64, Bool
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import clip_samples
from logitstore.audio.scan import scan
from logitstore.audio.source import ColumnNames
from logitstore.audio.sources import open_source
from logitstore.classes import join
from logitstore.errors import MismatchError, SourceError, UsageError
from logitstore.evaluation.agreement import Agreement, Place, agree
from logitstore.evaluation.scores import decoded
from logitstore.jobs.options import CompareOptions
from logitstore.models.cost import macs_of, parameters_of
from logitstore.models.machine import pick_device
from logitstore.notes import note
from logitstore.store.audio import open_sources
from logitstore.store.reader import Store, open_store
from logitstore.store.storage import is_url
from logitstore.store.subset import Subset, read_subset
from logitstore.training.runs import is_run, load_run
from logitstore.views.recipe import Masks, load_recipe
from logitstore.views.render import pad
from students.data import check_audio, open_replayer
from students.held_out import HeldOutViews, held_out_clips
from students.train import clips_by_view, content_digest
from teachers.ensemble import load_ensemble
from teachers.registry import load_teacher

if TYPE_CHECKING:
    from teachers.teacher import Teacher

_ONNX = ".onnx"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A or B: how it was named, its number of classes, and of a model what it costs.

    ``macs``: multiply-accumulates of a view, front end included; ``views_per_second``: here. None where that is not
    known, as of a store.
    """

    spec: str
    classes: int
    store: bool
    parameters: int | None = None
    macs: int | None = None
    views_per_second: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """B against A. ``heard`` says in words on what; ``seconds`` is the length of a view."""

    a: Side
    b: Side
    agreement: Agreement
    heard: str
    seconds: float
    device: str
    failures: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        failures = [{"path": path, "reason": reason} for path, reason in self.failures]
        return asdict(self) | {"failures": failures}

    def __repr__(self) -> str:
        said = self.agreement
        return (
            f"<Comparison of {self.b.spec} with {self.a.spec}: top-1 {said.top1:.3f}, KL {said.kl:.3g} nats, "
            f"{said.views:,} views>"
        )

    def _repr_html_(self) -> str:
        said = self.agreement
        sides = [(name, side.spec, f"{side.classes:,}", *_costs(side)) for name, side in (("A", self.a), ("B", self.b))]
        shares = [
            ("same first class", said.top1, [f"{said.top1:.3f}"]),
            ("first five", said.top5, [f"{said.top5:.3f}"]),
        ]
        if said.mAP is not None:
            shares.append((f"mAP against A's decisions, {said.decided:,} classes", said.mAP, [f"{said.mAP:.3f}"]))
        classes = [
            (each.name, each.average_precision, [f"{each.average_precision:.3f}", f"{each.views:,}"])
            for each in said.by_class
        ]
        worst = [
            (
                each.path,
                "" if each.view is None else each.view,
                f"{each.kl:.3f}",
                *(f"{name} {p:.2f}" for name, p in (each.a, each.b)),
            )
            for each in said.worst[:5]
        ]
        return notebook.card(
            f"{self.b.spec} against {self.a.spec}",
            notebook.note(f"{self.heard}; {said.views:,} views of {said.clips:,} clips of {self.seconds:g} s"),
            notebook.table(("", "", "classes", "parameters", "MACs", "views/s"), sides, left=2),
            notebook.bars(shares),
            notebook.facts([("KL", f"{said.kl:.4g} nats"), ("ECE", f"{said.ece:.4f}")]),
            notebook.bars(classes, ("least agreed on", "average precision", "", "views")) if classes else "",
            notebook.table(("worst views", "view", "nats", "A said", "B said"), worst) if worst else "",
            notebook.note(f"{len(self.failures):,} clips could not be decoded") if self.failures else "",
        )


def _costs(side: Side) -> tuple[str, str, str]:
    """Parameters, multiply-accumulates and speed for people."""
    known = (side.parameters, side.macs, side.views_per_second)
    return tuple("-" if value is None else f"{value:,.0f}" for value in known)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Said:
    """What both said of n views, each of its own classes, and where what they say is known (None: everywhere)."""

    a: F32
    b: F32
    places: list[Place]
    known_a: Bool | None = None
    known_b: Bool | None = None


class _Model:
    """A model that listens, and how long it takes."""

    def __init__(self, teacher: Teacher, rate: int, device: str) -> None:
        self.teacher = teacher
        self.ensemble = load_ensemble([teacher], sample_rate=rate, device=device)
        for line in (*self.ensemble.notes, *self.ensemble.unheard("as the store has")):
            note(line)
        self.times: list[tuple[int, float]] = []

    def __call__(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        began = time.monotonic()
        said = self.ensemble.probabilities(waveforms, masks).cpu()
        self.times.append((len(waveforms), time.monotonic() - began))
        return said

    def side(self, spec: str, seconds: float) -> Side:
        """What it cost; the first batch, in which much is made ready, is left out where there are more."""
        views, taken = map(sum, zip(*(self.times[1:] or self.times), strict=True))
        rate = self.ensemble.sample_rate
        silence = torch.zeros(1, max(1, clip_samples(seconds, rate)))
        return Side(
            spec=spec,
            classes=len(self.teacher.classes),
            store=False,
            parameters=parameters_of(self.teacher),
            macs=macs_of(lambda: self.ensemble.probabilities(silence, None)),
            views_per_second=views / max(taken, 1e-9),
        )


def compare(options: CompareOptions, progress: Callable[[int, int], None] | None = None) -> Comparison:
    """Compare B with A.

    :param progress: told (views done, views).
    :raises TeacherError: no such model, or one that cannot hear the store's views.
    :raises UsageError: no source where one is needed. :raises SourceError: nothing to hear.
    :raises MismatchError: two without a class in common; audio that is not the store's; stores of other sound.
    """
    sides = (options.a, options.b)
    stores = [_store(spec) for spec in sides]
    if any(store is not None for store in stores):
        return _of_stores(options, stores, progress)
    return _of_models(options, progress)


def _store(spec: str) -> Store | None:
    return open_store(spec) if is_url(spec) or (Path(spec) / "zarr.json").is_file() else None


def _teacher(spec: str) -> Teacher:
    """A model by its spec; an ONNX file may be named by its path alone."""
    bare = Path(spec).suffix == _ONNX and Path(spec).is_file()
    return load_teacher(f"onnx:{spec}" if bare else spec)


def _of_models(options: CompareOptions, progress: Callable[[int, int], None] | None) -> Comparison:
    source = _source(options)
    teachers = [_teacher(spec) for spec in (options.a, options.b)]
    rate = max(teacher.sample_rate for teacher in teachers)
    device = pick_device(options.device)
    models = [_Model(teacher, rate, device) for teacher in teachers]
    learnt = [model.ensemble.learnt_seconds()[0] for model in models if model.teacher.contract.trained_seconds]
    limits = [each.contract.max_seconds for each in teachers if each.contract.max_seconds is not None]
    seconds = options.clip_seconds or min([max(learnt, default=10.0), *limits])
    for model in models:
        model.ensemble.check(load_recipe("none"), seconds)
    audio = open_source(source, options.audio_root, ColumnNames.of(options))
    workers = options.workers or os.cpu_count() or 1
    table = scan(audio, clip_seconds=seconds, where=options.where, workers=workers)
    chosen = table.take(_evenly(table.num_rows, options.limit))
    clips = ClipAudio(audio, chosen, rate)
    samples = max(1, clip_samples(seconds, rate))
    said: tuple[list[F32], list[F32]] = ([], [])
    places: list[Place] = []
    failures: dict[int, str] = {}
    with ThreadPoolExecutor(workers, "decode") as pool:
        for done, numbers, waveforms in decoded(clips, options.batch_size, pool, failures):
            if len(numbers):
                padded = pad(waveforms, samples)[0]
                for model, answers in zip(models, said, strict=True):
                    answers.append(model(padded, None).numpy())
                rows = chosen.select(["path", "start", "rate"]).take(numbers).to_pylist()
                places += [Place(row["path"], row["start"] / row["rate"] if row["rate"] else 0.0) for row in rows]
            if progress is not None:
                progress(done, len(clips))
    if not places:
        raise SourceError(f"none of {len(clips)} clips of {source} can be decoded, the first: {failures[0]}")
    both = _Said(np.concatenate(said[0]), np.concatenate(said[1]), places)
    a, b = ((each.classes, each.contract.mids, each.scores) for each in teachers)
    return Comparison(
        a=models[0].side(options.a, seconds), b=models[1].side(options.b, seconds),
        agreement=_agreement(options, both, a, b),
        heard=f"{len(places):,} of {table.num_rows:,} clips of {source}, as they are", seconds=seconds, device=device,
        failures=tuple((clips.place(clip), reason) for clip, reason in sorted(failures.items())),
    )  # fmt: skip


def _of_stores(
    options: CompareOptions, stores: list[Store | None], progress: Callable[[int, int], None] | None
) -> Comparison:
    if options.clip_seconds is not None:
        raise UsageError(
            "--clip-seconds is for models on audio, and the views of a store are as they are; leave it out"
        )
    first, second = stores
    if first is not None and second is not None:
        return _of_two_stores(options, first, second)
    store = first or second
    assert store is not None  # compare: one of them is
    other, manifest = 1 if first is not None else 0, store.manifest
    spec = (options.a, options.b)[other]
    device = pick_device(options.device)
    model = _Model(_teacher(spec), manifest.sample_rate, device)
    model.ensemble.check(manifest.recipe, manifest.clip_seconds)
    by_view, which = _unlearnt(options, store, spec)
    views = HeldOutViews(store, _limited(by_view, options.limit), options.batch_size)
    with ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "decode") as pool:
        replayer = open_replayer(store, open_sources(store, _source(options)), pool=pool)
        check_audio(store, replayer.audio)
        found = views.heard(replayer, [model], progress)
    kept = Side(spec=store.location, classes=len(manifest.classes), store=True)
    cost = model.side(spec, manifest.clip_seconds)
    of_store = (manifest.classes, None, manifest.scores)
    of_model = (model.teacher.classes, model.teacher.contract.mids, model.teacher.scores)
    if other:
        both = _Said(found.targets, found.said[0], found.places, known_a=found.known)
    else:
        both = _Said(found.said[0], found.targets, found.places, known_b=found.known)
    clips = len({(place.path, place.second) for place in found.places})
    return Comparison(
        a=kept if other else cost, b=cost if other else kept,
        agreement=_agreement(options, both, *((of_store, of_model) if other else (of_model, of_store))),
        heard=f"{len(views):,} views of {clips:,} clips of {store.location}, {which}", seconds=manifest.clip_seconds,
        device=device,
    )  # fmt: skip


def _of_two_stores(options: CompareOptions, first: Store, second: Store) -> Comparison:
    """Two stores in which the same views have targets: of clips that both have, under the same draws."""
    if options.source is not None:
        raise UsageError("two stores are compared by what they hold; leave SOURCE out")
    one, two = first.manifest, second.manifest
    for name in ("seed", "clip_seconds", "sample_rate"):
        if getattr(one, name) != getattr(two, name):
            raise MismatchError(
                f"the stores heard other sound: {name} is {getattr(one, name)} in {first.location} and "
                f"{getattr(two, name)} in {second.location}; build one like the other"
            )
    if one.recipe != two.recipe:
        raise MismatchError(
            f"the stores heard other sound: the recipe of {first.location} is {one.recipe.name} and that of "
            f"{second.location} another, {two.recipe.name}; build one like the other"
        )
    keys = [
        {key: clip for clip, key in enumerate(zip(*(store.clips[name].to_pylist() for name in _KEY), strict=True))}
        for store in (first, second)
    ]
    chosen = clips_by_view(first, options.where)
    by_view, partner = [], np.full(first.clips.num_rows, -1, np.int64)
    for key, clip in keys[0].items():
        partner[clip] = keys[1].get(key, -1)
    for view in range(min(first.views, second.views)):
        clips = chosen[view][partner[chosen[view]] >= 0]
        by_view.append(clips[np.isin(partner[clips], second.clips_of(view))])
    if not any(map(len, by_view)):
        raise MismatchError(f"{first.location} and {second.location} have no view of a clip in common")
    mine = HeldOutViews(first, _limited(by_view, options.limit), options.batch_size)
    theirs = HeldOutViews(second, [np.zeros(1, np.int64)], options.batch_size)
    theirs.views = [(view, partner[clips]) for view, clips in mine.views]
    for (view, clips), (_, same) in zip(mine.views, theirs.views, strict=True):
        drawn = [store.draws(view, rows).columns for store, rows in ((first, clips), (second, same))]
        if any(not np.array_equal(drawn[0][name], drawn[1][name]) for name in drawn[0]):
            raise MismatchError(f"view {view} is augmented in {first.location} otherwise than in {second.location}")
    a, b = mine.heard(None), theirs.heard(None)
    sides = [Side(spec=each.location, classes=len(each.manifest.classes), store=True) for each in (first, second)]
    return Comparison(
        a=sides[0], b=sides[1],
        agreement=_agreement(
            options, _Said(a.targets, b.targets, a.places, a.known, b.known), (one.classes, None, one.scores),
            (two.classes, None, two.scores),
        ),
        heard=f"{len(mine):,} views that both stores hold", seconds=one.clip_seconds, device="none",
    )  # fmt: skip


_KEY = ("path", "start", "length")


def _unlearnt(options: CompareOptions, store: Store, spec: str) -> tuple[list[I64], str]:
    """The clips to compare on in each view: those that the model has not learnt from, where its run says which."""
    by_view = clips_by_view(store, options.where)
    folder = Path(spec.partition("?")[0])
    if not is_run(folder):
        return by_view, "replayed"
    training = load_run(spec).config.get("training", {})
    learnt = training.get("store", {})
    if not isinstance(learnt, dict) or learnt.get("manifest_digest") != store.root_digest:
        return by_view, "replayed"
    share, where = (training.get("options", {}).get(name) for name in ("hold_out", "where"))
    subset, lost = _subset(store, training)
    if not share or lost or learnt.get("content_digest") != content_digest(store):
        why = "held nothing out" if not share else lost or "the store has changed since"
        note(f"{spec} was trained on {store.location}, and {why}: it may have learnt what is compared here")
        return by_view, "replayed"
    apart = held_out_clips(store, clips_by_view(store, where, subset), float(share))
    left = [rows[np.isin(rows, apart)] for rows in by_view]
    if not any(map(len, left)):
        raise SourceError(f"none of the clips that {spec} held out is left by --where {options.where!r}")
    return left, f"replayed, which {spec} held out"


def _subset(store: Store, training: dict[str, Any]) -> tuple[Subset | None, str]:
    """The clips that a training was restricted to, None for all; and why they are not known, where they are not."""
    recorded, file = training.get("subset"), training.get("places", {}).get("clips")
    if recorded is None:
        return None, ""
    try:
        subset = read_subset(store, str(file))
    except UsageError:
        return None, f"its --clips {file} cannot be read here"
    return subset, "" if subset.digest == recorded.get("digest") else f"its --clips {file} has changed since"


def _agreement(
    options: CompareOptions,
    both: _Said,
    a: tuple[Any, Any, str],
    b: tuple[Any, Any, str],
) -> Agreement:
    """The agreement over the classes that both have, joined by MID or name."""
    joint, called = join([a[:2], b[:2]])
    places = [{name: at for at, name in enumerate(names)} for names in called]
    common = [name for name in joint if all(name in each for each in places)]
    if not common:
        raise MismatchError(
            f"{options.a} and {options.b} have no class in common, by MID or by name: they have such as {a[0][0]!r} "
            f"and {b[0][0]!r}"
        )
    if len(common) < len(joint):
        note(f"compared are the {len(common):,} classes that both have, of {len(a[0]):,} and {len(b[0]):,}")
    if a[2] != b[2]:
        note(f"{options.a} gives {a[2]} scores and {options.b} {b[2]} ones; the divergence is of each class by itself")
    at_a, at_b = (np.array([each[name] for name in common]) for each in places)
    return agree(
        both.a[:, at_a], both.b[:, at_b], common, both.places, scores=a[2] if a[2] == b[2] else "sigmoid",
        known=None if both.known_a is None else both.known_a[:, at_a],
        known_b=None if both.known_b is None else both.known_b[:, at_b],
    )  # fmt: skip


def _source(options: CompareOptions) -> str:
    if options.source is None:
        raise UsageError("models hear audio: give SOURCE, a folder or a table; with a store, the audio of its clips")
    return options.source


def _evenly(count: int, limit: int) -> I64:
    """At most ``limit`` of the numbers below ``count``, evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def _limited(by_view: list[I64], limit: int) -> list[I64]:
    """At most so many clips, evenly over all."""
    clips = np.unique(np.concatenate(by_view))
    kept = clips[_evenly(len(clips), limit)]
    return [rows[np.isin(rows, kept)] for rows in by_view]
