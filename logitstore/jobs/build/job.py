"""The build job: audio and an ensemble in, a store out. The one place that joins clips, views, teachers and writer.

:func:`prepare` checks everything and writes nothing; :func:`run` then claims shard by shard and makes the blocks that
are missing. With ``retry_failed``, blocks that hold a failed clip are made anew once it can be decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from logitstore.audio.cache import open_cache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.found import named, require_found
from logitstore.audio.lengths import clip_samples
from logitstore.audio.scan import holds, scan
from logitstore.audio.source import ColumnNames
from logitstore.errors import AudioError, MemoryShortError, ModelOutputError, UsageError
from logitstore.jobs.build.batch_size import batch_size_of
from logitstore.jobs.build.block import (
    BlockPlan,
    Said,
    make_block,
    said_by,
)
from logitstore.jobs.build.heard import Heard
from logitstore.jobs.build.like import Like, as_like
from logitstore.jobs.build.limit import Limit
from logitstore.jobs.build.line import LOST, Line
from logitstore.jobs.build.on_ray import Setting, check_ray, fill_on_ray, on_cluster
from logitstore.jobs.build.trial import Answer, alike, try_out
from logitstore.jobs.options import BuildOptions, Extension
from logitstore.jobs.survival import CLIPS, Survival, of_build
from logitstore.launched import array_part, is_first, own_cores, part_of, processes, processes_here, rank
from logitstore.models.machine import own_memory, versions
from logitstore.notes import doing
from logitstore.stages import Stages
from logitstore.store import claims, requests
from logitstore.store.format import commits
from logitstore.store.format.codec import quantizer
from logitstore.store.format.commits import Commit
from logitstore.store.format.frames import BITS, FLOOR, MOST_FRAMES, FrameSpec, frame_count
from logitstore.store.format.layout import columns_for
from logitstore.store.format.manifest import COMPILER, ROOT, Manifest, decode_root, written_version
from logitstore.store.format.parts import Part
from logitstore.store.format.quality import MOST_CLASSES_KEPT, VALUE_BITS
from logitstore.store.names import group_attempt, group_name
from logitstore.store.piece import Piece
from logitstore.store.pieces import Failure, Pieces
from logitstore.store.shards import default_shard_clips, number_ranges, unfinished_shards
from logitstore.store.storage import Storage, open_storage
from logitstore.store.summary import Summary, summarise
from logitstore.store.writer import StoreWriter
from logitstore.views.ops import Place
from logitstore.views.recipe import AUTO, Recipe, fitting, load_recipe
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from logitstore.arrays import Bool
    from logitstore.audio.source import Source
    from logitstore.jobs.build.relate import Relator
    from logitstore.views.recipe import Masks
    from teachers.ensemble import Ensemble

PARTNER_CACHE_BYTES = 1 << 30
_LOOK_SECONDS = 10.0  # between two looks at what others have made
DEFAULT_TOPK = 20
_OWN_PART = "auto"  # of --shards
_ANY_RATE = 16_000
_MOST_BLOCKS = 4
_SURVIVAL_SHARE = 0.02  # of the views that a build made
_LEAST_CLIPS = 16  # that tell anything of what survives


@dataclass
class Progress:
    """What a build reports while it runs; every callback may be left as it is."""

    start: Callable[[int, int], None] = lambda done, total: None  # views
    advance: Callable[[int], None] = lambda views: None
    others: Callable[[int], None] = lambda views: None  # that other processes of torchrun have made meanwhile
    failures: Callable[[int], None] = lambda count: None
    note: Callable[[str], None] = lambda message: None


@dataclass(frozen=True, kw_only=True)
class BuildSummary(Summary):
    """What a store holds after a build that made ``made_views`` of its views in ``seconds``, with all processes that
    ``torchrun`` started.

    ``failures`` are the clips without targets. ``missing`` of the shards lack some of the views that
    were asked for, which only ``--shards`` and sources of other parts leave. ``survival``: what of the teachers'
    answers survives the recipe, where views were made and it has ops. ``requests``: what this process sent to object
    stores for it, where it sent any. ``limit``: where the time went, of this process, where it asked the teachers
    itself.
    """

    failures: list[Failure]
    made_views: int
    seconds: float
    missing: int
    survival: Survival | None = None
    requests: requests.Requests | None = None
    limit: Limit | None = None


@dataclass
class Job:
    """A build that is ready to run: everything parsed, loaded and checked, nothing written."""

    options: BuildOptions
    source: Source
    clip_table: pa.Table
    ensemble: Ensemble
    manifest: Manifest
    storage: Storage
    workers: int
    device: str
    notes: list[str] = field(default_factory=list)
    relator: Relator | None = None  # of a store that keeps relations, once its basis is known
    tried: Answer | None = None  # of the first batch, until that is asked about
    like: Like | None = None  # the store whose clips and draws are this one's too
    sent_before: requests.Requests = field(default_factory=requests.sent)  # by this process
    stages: Stages = field(default_factory=Stages)

    @property
    def views(self) -> int:
        """How many views every clip gets, as resolved from the options and the store of ``--like``."""
        assert self.options.views is not None, "prepare resolves it"
        return self.options.views

    def ask(
        self,
        waveforms: torch.Tensor,
        masks: Masks | None,
        heard: Bool | None = None,
        by_rate: Mapping[int, torch.Tensor] | None = None,
    ) -> Said:
        """What the ensemble says; each member, and the relations of their features, where the store keeps them.

        :param heard: bool (B,), which views hold a clip that could be decoded; all of them by default.
        :param by_rate: the waveforms as the members take them, where they are known already; see
            :meth:`teachers.ensemble.Ensemble.at_rates`.
        """
        known = None if self.tried is None else self.tried.of(waveforms, masks)
        self.tried = None
        relations = None if self.relator is None else self.relator.codes
        return said_by(self.ensemble, self.manifest, relations, waveforms, masks, heard, known, by_rate)


def prepare(options: BuildOptions) -> Job:
    """Scan the source, load the teachers and write the manifest that the options describe, touching no store.

    :raises UsageError: anything in the options that cannot be right; see the subclasses.
    """
    from logitstore.audio.sources import open_audio, open_source
    from logitstore.store.sql.tables import joined_names

    sent_before = requests.sent()
    if not options.teachers:
        raise UsageError("no teacher was given; give at least one --teacher SPEC")
    options, like = as_like(options)
    relations = None
    if options.relations is not None:
        from logitstore.jobs.build.relate import relation_spec

        relations = relation_spec(options.relations, options.similarity_frames)
    asked = options.recipe if isinstance(options.recipe, Recipe) else _named_recipe(options.recipe)
    if options.shards == _OWN_PART:
        array_part()
    check_ray(options)
    workers = options.workers if options.workers is not None else own_cores()
    storage = open_storage(options.out, to_write=True)
    stored = _stored_manifest(storage)
    if options.source:
        source = open_source(options.source, options.audio_root, ColumnNames.of(options))
    else:
        source = open_audio(str(options.audio_root))
    seconds = options.clip_seconds or (stored.clip_seconds if stored is not None else None)
    ensemble, why = None, []
    if seconds is None:
        ensemble = _load(options, stored)
        seconds, reason = ensemble.learnt_seconds()
        why = [f"views of {seconds:g} s, {reason}; --clip-seconds says otherwise"]
    if asked is not None:  # of any rate: what is known of the views is their length
        asked.check(Place(clip_samples(seconds, _ANY_RATE), _ANY_RATE))
    notes = why
    if options.source:
        clip_table = scan(
            source, clip_seconds=seconds, where=options.where, workers=max(1, workers), taken=joined_names(asked)
        )
        notes = require_found(source, clip_table, options.source, options.audio_root) + notes
    if like is not None:
        if options.source:
            like, missing = like.of_source(clip_table)
        else:
            like, missing = like.of_audio(source, str(options.audio_root), max(1, workers))
        notes += [*missing, *like.notes(options)]
        clip_table = like.clips

    import torch  # takes seconds, so where it can be only now that the audio is what it should be

    from logitstore.training.precision import stored_precision
    from teachers.ensemble import members_as_stored

    ensemble = ensemble or _load(options, stored)
    device = options.device if on_cluster(options) else str(ensemble.device)
    sample_rate = ensemble.sample_rate
    samples = clip_samples(seconds, sample_rate)
    notes += _rate_notes(options, ensemble, stored)
    before = stored if stored is not None or like is None else like.manifest
    recipe, chosen = _recipe(asked, ensemble, before, Place(samples, sample_rate))
    notes += chosen
    ensemble.check(recipe, seconds)
    if relations is not None:
        ensemble.require_features()
    frames = None
    if options.frames is not None:
        frames = _frames(options.frames, samples, sample_rate, stored)
        ensemble.require_frames(seconds)
    topk, quality, value_bits = _kept(options, ensemble, stored or (None if like is None else like.manifest))
    if topk > len(ensemble.classes):
        raise UsageError(
            f"--topk {topk} is more than the {len(ensemble.classes)} classes of the ensemble; "
            f"give 1 to {len(ensemble.classes)}"
        )
    quantizer(ensemble.scores, value_bits)
    shard_clips = options.shard_clips or (stored.shard_clips if stored else default_shard_clips(clip_table.num_rows))
    place = Place(samples, sample_rate, shard_clips)
    batch_size, tried = batch_size_of(
        options, ensemble, samples, stored, masked=bool(recipe.spectrogram_ops), frames=frames
    )
    notes += tried
    teachers, earlier = members_as_stored(ensemble, () if stored is None else stored.teachers)
    notes += earlier
    manifest = Manifest(
        format_version=written_version(frames, quality),
        classes=tuple(ensemble.classes),
        scores=ensemble.scores,
        teachers=teachers,
        average=options.average,
        recipe_document=recipe.to_dict(),
        draw_columns=tuple(
            {"name": c.name, "low": c.low, "planes": c.planes} for c in columns_for(recipe.ranges(place))
        ),
        seed=options.seed or 0,
        sample_rate=sample_rate,
        clip_seconds=seconds,
        topk=topk,
        value_bits=value_bits,
        shard_clips=shard_clips,
        batch_size=batch_size,
        device_kind=torch.device(device).type,
        precision=stored_precision(options.precision, torch.device(device).type),
        keep_members=options.keep_members,
        relations=relations,
        frames=frames,
        quality=quality,
        made_by=versions() | ({COMPILER: "torch"} if options.compile else {}),
    )
    notes += [
        *_launch_notes(options),
        *ensemble.notes,
        *([said] if (said := alike(manifest, clip_table, options.views or 1)) else []),
    ]
    if stored is not None and stored.made_by != manifest.made_by:
        changed = [
            f"{name} {stored.made_by.get(name)} -> {manifest.made_by.get(name)}"
            for name in stored.made_by | manifest.made_by
            if stored.made_by.get(name) != manifest.made_by.get(name)
        ]
        notes.append(f"the store was begun with other versions ({', '.join(changed)}); results may round otherwise")
    return Job(
        options,
        source,
        clip_table,
        ensemble,
        manifest,
        storage,
        workers,
        device,
        notes,
        like=like,
        sent_before=sent_before,
    )


def _launch_notes(options: BuildOptions) -> list[str]:
    """What is to be said of this process as one of several."""
    notes = []
    if processes() > 1:
        notes.append(f"{processes()} processes share the work; this one speaks for all")
    if options.shards == _OWN_PART:
        index, parts = array_part()
        notes.append(f"part {index + 1} of {parts} of the shards, as the environment says of this task")
    return notes


def _frames(hop_ms: int, samples: int, sample_rate: int, stored: Manifest | None) -> FrameSpec:
    """How a store says when: as the one that was begun does, where it has that hop.

    :raises UsageError: a view has less than two such frames, or too many.
    """
    if stored is not None and stored.frames is not None and stored.frames.hop_ms == hop_ms:
        return stored.frames
    count = frame_count(hop_ms, samples, sample_rate)
    if not 2 <= count <= MOST_FRAMES:
        raise UsageError(
            f"--frames {hop_ms} makes {count:,} frames of a view of {samples / sample_rate:g} s; allowed are 2 to "
            f"{MOST_FRAMES:,}"
        )
    return FrameSpec(hop_ms=hop_ms, count=count, bits=BITS, floor=FLOOR)


def _kept(options: BuildOptions, ensemble: Ensemble, before: Manifest | None) -> tuple[int, float | None, int]:
    """How many classes of a view are kept, or at most, with which quality, and the bits of a probability.

    :param before: of the store that is begun already, or that this one is to be like: what it has, where nothing is
        asked.
    """
    if options.quality is not None and options.value_bits not in (None, VALUE_BITS):
        raise UsageError(
            f"--quality chooses the bits itself, and --value-bits {options.value_bits} says otherwise; leave one of "
            "them out"
        )
    quality, usual, bits = options.quality, DEFAULT_TOPK, VALUE_BITS
    if (
        before is not None
        and quality is None
        and options.value_bits is None
        and (options.topk is None or before.quality is not None)
    ):  # whose --topk says how many classes a view keeps at most
        quality, usual, bits = before.quality, before.topk, before.value_bits
    elif quality is not None:
        usual = MOST_CLASSES_KEPT
    topk = min(usual, len(ensemble.classes)) if options.topk is None else options.topk
    return topk, quality, bits if options.value_bits is None else options.value_bits


def _load(options: BuildOptions, stored: Manifest | None) -> Ensemble:
    """The teachers of a build, on the device of this process."""
    from logitstore.training.processes import own_device
    from teachers.ensemble import load_ensemble

    apart = on_cluster(options)
    ensemble = load_ensemble(
        options.teachers,
        options.weights,
        options.average,
        options.classes,
        sample_rate=options.sample_rate or (stored.sample_rate if stored is not None else None),
        device="cpu" if apart else own_device(options.device),
        precision="float32" if apart else options.precision,
        scale_weights=not isinstance(options, Extension),  # of a store they are scaled already
    )
    return ensemble.compile() if options.compile and not apart else ensemble


def _named_recipe(name: str) -> Recipe | None:
    """The recipe that was asked for; None where the teachers, or the store, decide."""
    return None if name == AUTO else load_recipe(name)


def _recipe(
    asked: Recipe | None, ensemble: Ensemble, stored: Manifest | None, place: Place
) -> tuple[Recipe, list[str]]:
    """The recipe of a store, with no bound left that depends on the length of its views, and what is to be said of it.

    A store that was begun keeps its own: of its views of less than 10 s, earlier releases bounded no mask by a share.
    """
    deaf = [repr(teacher.spec) for teacher in ensemble.members if not teacher.takes_masks]
    recipe = fitting(not deaf) if asked is None else asked
    fitted, fixed = recipe.fitted(place), recipe.unshared()
    if stored is not None and stored.recipe_document in (fitted.to_dict(), fixed.to_dict()):
        return stored.recipe, []
    if asked is not None:
        return fitted, []
    if stored is not None:
        return stored.recipe, [f"recipe {stored.recipe.name}, which the store was begun with"]
    takes = f"{', '.join(deaf)} take{'s' * (len(deaf) == 1)} only waveforms" if deaf else "every teacher takes masks"
    return fitted, [f"recipe {recipe.name}, for {takes}"]


def _rate_notes(options: BuildOptions, ensemble: Ensemble, stored: Manifest | None) -> list[str]:
    """What is to be said of teachers that would hear more than views of this rate hold."""
    if isinstance(options, Extension):
        return []
    reason = "as the store of --like has" if options.like is not None else "as --sample-rate asks"
    return ensemble.unheard("which the store was begun with" if stored is not None else reason)


def build(options: BuildOptions, progress: Progress | None = None) -> BuildSummary:
    """Make a store, or finish one that the same options began.

    :raises MismatchError: the store at ``out`` was made otherwise; the differences are shown.
    :raises AudioError: with ``strict``, the first clip that cannot be decoded, by name; not one clip can.
    :raises ModelOutputError: a teacher gave no probabilities; nothing is written where it is its first batch.
    """
    return run(prepare(options), progress or Progress())


def run(job: Job, progress: Progress) -> BuildSummary:
    """Run a prepared build."""
    began = time.monotonic()
    try:
        store, made, missing = fill(job, progress)
    except MemoryShortError as error:
        raise MemoryShortError(
            f"{error}. What is committed is whole; a store keeps the batches that it was begun with, so free "
            "memory and run the same command again, or begin another --out with smaller ones",
            error.row,
        ) from error
    seconds = time.monotonic() - began
    kept = _survival(job, made, progress) if made and is_first() else None
    return BuildSummary(
        **vars(summarise(store)),
        failures=store.failures(),
        made_views=made,
        seconds=seconds,
        missing=missing,
        survival=kept,
        requests=requests.since(job.sent_before),
        limit=Limit.of(job.stages, seconds),
    )


def _survival(job: Job, made: int, progress: Progress) -> Survival | None:
    """What of the teachers' answers survives the recipe, told from few views beside the ``made`` ones.

    As many are asked about as are a batch, or ``_SURVIVAL_SHARE`` of those made where that is more. Op by op where that
    is enough for it, and in any case where a teacher keeps too little: that is when one wants to know.
    """
    doing("asking what of the answers survives the recipe")
    ops = len(job.manifest.recipe.ops)
    room = max(job.manifest.batch_size, int(made * _SURVIVAL_SHARE))
    by_op = room // (2 + ops) >= _LEAST_CLIPS
    clips = min(CLIPS, room // (2 + ops) if by_op else max(1, min(room // 2, _LEAST_CLIPS)))
    try:
        return of_build(job.manifest, job.clip_table, job.source, job.ensemble, job.workers, clips=clips, by_op=by_op)
    except ModelOutputError as error:  # of sounds that the store does not hold, which is whole
        progress.note(f"what survives recipe {job.manifest.recipe.name!r} cannot be told: {error}")
        return None


def fill(job: Job, progress: Progress) -> tuple[Pieces, int, int]:
    """Make what a store lacks: the store, how many views were made, and how many blocks are still missing."""
    options = job.options
    told = len(job.ensemble.notes)
    called = named(options.source or str(options.audio_root))
    begun = not isinstance(options, Extension) and bool(commits.spans(job.storage))
    job.tried = try_out(options, job.manifest, job.source, job.clip_table, job.ensemble, begun=begun)
    if job.like is not None:
        job.like.require_heard(job.source, called)
    writer = _open(job)
    manifest = writer.manifest
    for note in (*job.notes, *job.ensemble.notes[told:]):
        progress.note(note)
    chosen = set(chosen_shards(options, writer, writer.shards_of(_parts_to_build(job, writer, progress))))
    cache = partner_cache(manifest)
    disk = open_cache(options)
    audio = ClipAudio(job.source, writer.clips, manifest.sample_rate, cache, disk)
    known = [commit for commit in commits.read_all(job.storage) if commit.shard in chosen]
    total = sum(len(writer.clips_of(shard)) for shard in chosen) * job.views
    done = _done(known, chosen, job.views)
    progress.start(done, total)
    progress.failures(sum(len(c.failed) for c in known))
    made, own = 0, _turn(chosen)
    with ThreadPoolExecutor(max(1, job.workers), "decode") as pool, claims.Claimer(job.storage) as claimer:
        if manifest.relations is not None:
            from logitstore.jobs.build.relate import make_relator

            if manifest.relations.clips is not None and on_cluster(options) and writer.basis() is None:
                raise UsageError(
                    "the basis of the clips' vectors is fitted before all else, with the teachers on a GPU, and this "
                    "machine has none; run this command on one that has, or begin the store there with --shards 0:1"
                )
            job.relator = make_relator(
                manifest.relations, job.ensemble, writer, audio, pool, strict=options.strict, note=progress.note
            )
        stored_views = Piece(job.storage, manifest, writer.root_digest)
        heard = Heard(stored_views, audio, job.ask, pool, called)
        heard_before = None if job.like is None else job.like.heard(job.source, pool, called)
        if isinstance(options, Extension) and options.skip_known:
            for commit in _given_again(job, writer):
                heard.check(commit)
        waiting = set(chosen)
        advance = _together(job, chosen, done, progress)

        def check(shard: int) -> Sequence[Commit]:
            """What a shard has, found to be of what this build hears."""
            committed = commits.read_all(job.storage, shard)
            for commit in committed[:1]:
                heard.check(commit)
            if job.like is not None and heard_before is not None:
                for commit in job.like.of_shard(shard)[:1]:
                    heard_before.check(commit)
            return committed

        if options.engine == "ray":
            setting = Setting.of(options, manifest, job.source, job.device, job.relator, disk)
            made = fill_on_ray(
                setting, writer, audio, job.views, waiting, claimer, check,
                advance=advance, failures=progress.failures, note=progress.note,
            )  # fmt: skip
        renderer = Renderer(audio, manifest.recipe, manifest.place, pool=pool, mix_without=True, stages=job.stages)
        line = Line(
            writer, renderer, claimer, views=job.views, ask=job.ask, at_rates=job.ensemble.at_rates, check=check,
            strict=options.strict, advance=advance, failures=progress.failures, note=progress.note,
        )  # fmt: skip
        while waiting:
            moved, own = line.run(waiting, own), set()
            if waiting and not moved:
                progress.note(f"waiting for {len(waiting)} shards that other builders have claimed{claimer.waits()}")
                time.sleep(claimer.idle_seconds())
        made += line.made
        if options.retry_failed:
            made += _retry_failed(job, writer, chosen, audio, heard, pool, claimer, progress)
    if disk is not None:
        progress.note(disk.summary())
    store = Pieces([Piece(job.storage, manifest, writer.root_digest)])
    if processes() > 1:
        before = sum(commit.stored_views for commit in known)
        made = max(made, sum(commit.stored_views for commit in store.commits if commit.shard in chosen) - before)
    missing = unfinished_shards(store.commits, writer.shards, max(job.views, store.views))
    if not missing and not claims.claimed_shards(job.storage):
        writer.sweep(store.commits)
    return store, made, len(missing)


def partner_cache(manifest: Manifest) -> int:
    """Bytes of decoded clips to keep: under a recipe with mixup those of a shard, so that each is decoded once, as far
    as this process's share of a quarter of the memory holds them."""
    if not manifest.recipe.has_mixup:
        return 0
    shard = 4 * manifest.shard_clips * manifest.clip_samples
    return min(shard, max(PARTNER_CACHE_BYTES, (own_memory() or 0) // (4 * processes_here())))


def _turn(shards: Collection[int]) -> set[int]:
    """The shards that this process begins with, where torchrun started several."""
    if processes() == 1:
        return set()
    ordered = sorted(shards)
    return {ordered[place] for place in part_of(len(ordered), rank(), processes())}


def _done(committed: Sequence[Commit], shards: Collection[int], views: int) -> int:
    """How many of the first ``views`` views of some shards' clips are done."""
    return sum(
        commit.clips * (min(commit.view_stop, views) - commit.view_start)
        for commit in committed
        if commit.shard in shards and commit.view_start < views
    )


def _together(job: Job, shards: Collection[int], done: int, progress: Progress) -> Callable[[int], None]:
    """What is told of views that were just made: of several processes, the first one looks up at times what all have.

    :param done: how many views were there when this process began.
    """
    if processes() == 1 or not is_first():
        return progress.advance
    seen, looked = done, time.monotonic()

    def advance(views: int) -> None:
        nonlocal seen, looked
        seen += views
        progress.advance(views)
        if time.monotonic() - looked < _LOOK_SECONDS:
            return
        there = _done(commits.read_all(job.storage), shards, job.views)
        if there > seen:
            progress.others(there - seen)
            seen = there
        looked = time.monotonic()

    return advance


def _given_again(job: Job, writer: StoreWriter) -> list[Commit]:
    """Some blocks of the clips that the store has and that a source gives again, spread over them."""
    scanned = set(job.clip_table["path"].to_pylist())
    parts = {part.name for part in writer.parts if scanned.intersection(part.table["path"].to_pylist())}
    found = [commit for commit in commits.read_all(job.storage) if commit.clip_table in parts]
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(_MOST_BLOCKS, len(found))).astype(int))]


def _retry_failed(
    job: Job,
    writer: StoreWriter,
    chosen: set[int],
    audio: ClipAudio,
    heard: Heard,
    pool: ThreadPoolExecutor,
    claimer: claims.Claimer,
    progress: Progress,
) -> int:
    """Make the blocks anew that hold a failed clip which can now be decoded; a block is replaced as a whole."""
    made = 0
    for commit in commits.read_all(job.storage):
        if commit.shard not in chosen:
            continue
        mended = [row for row, _ in commit.failed if _decodes(audio, commit.first_clip + row)]
        if not mended or not claimer.take(commit.shard):
            continue
        try:
            if commit not in commits.read_all(job.storage, commit.shard):  # another builder has made it anew meanwhile
                continue
            heard.check(commit)
            plan = BlockPlan(commit.shard, writer.clips_of(commit.shard), commit.view_start, commit.view_stop)
            content = make_block(
                writer.manifest,
                writer.part_of(commit.shard),
                plan,
                audio,
                job.ask,
                pool=pool,
                strict=job.options.strict,
                stages=job.stages,
            )
            attempt = group_attempt(commit.group, commit.name) or 1
            keep = partial(claimer.keep, commit.shard)
            renewed = writer.write_block(
                commit.shard, commit.view_start, commit.view_stop, content, group_name(commit.name, attempt + 1),
                keep=keep, anew=True,
            )  # fmt: skip
            if renewed is None:
                progress.note(f"{LOST.format(commit.shard)}; run the same command again to retry its clips")
                continue
            writer.drop_group(group_name(commit.name, attempt), keep)
        finally:
            claimer.drop(commit.shard)
        made += len(mended) * commit.views
        progress.failures(len(renewed.failed) - len(commit.failed))
    return made


def _decodes(audio: ClipAudio, clip: int) -> bool:
    try:
        audio[clip]
    except AudioError:
        return False
    return True


def chosen_shards(options: BuildOptions, writer: StoreWriter, shards: Sequence[int]) -> list[int]:
    """Those of some shards, rising, that ``--shards A:B`` asks for, or that are this task's part of an array job.

    :raises UsageError: it is no such range, there are none of these shards in it, or this is no array job.
    """
    if options.shards is None:
        return list(shards)
    if options.shards == _OWN_PART:
        return [shards[place] for place in part_of(len(shards), *array_part())]
    low, colon, high = options.shards.partition(":")
    if not colon or not (low or "0").isdecimal() or not (high or "0").isdecimal():
        raise UsageError(
            f"--shards {options.shards!r} is not of the form A:B, as in 0:8 (shards 0 to 7), 8: or :8, nor auto"
        )
    first, stop = int(low or 0), int(high) if high else writer.shards
    chosen = [shard for shard in shards if first <= shard < stop]
    if shards and not chosen:
        raise UsageError(
            f"--shards {options.shards} holds none of the source's shards, which are {number_ranges(shards)}; "
            "A is the first shard and B one past the last"
        )
    return chosen


def _open(job: Job) -> StoreWriter:
    options = job.options
    if isinstance(options, Extension):
        return StoreWriter.extend(job.storage, job.manifest, job.clip_table, options.skip_known)
    if job.like is not None:
        return StoreWriter.open_like(job.storage, job.manifest, job.like.contents(), job.like.own)
    return StoreWriter.open(job.storage, job.manifest, job.clip_table)


def _parts_to_build(job: Job, writer: StoreWriter, progress: Progress) -> list[Part]:
    """The source's parts; of a build, also those other parts that lack views and that its audio holds whole."""
    if isinstance(job.options, Extension) or len(writer.own) == len(writer.parts):
        return list(writer.own)
    unfinished = set(unfinished_shards(commits.read_all(job.storage), writer.shards, job.views))
    own = {part.name for part in writer.own}
    chosen = []
    for part in writer.parts:
        if part.name in own:
            chosen.append(part)
        elif unfinished & set(part.shards(writer.manifest.shard_clips)):
            if holds(job.source, part.table, job.workers):
                chosen.append(part)
                continue
            progress.note(
                f"{part.name} of the store lacks views of clips that this source does not have; "
                f"add them with: logitstore extend {job.storage.location} ITS_SOURCE --views {job.views} …"
            )
    return chosen


def _stored_manifest(storage: Storage) -> Manifest | None:
    try:
        return decode_root(storage.get(ROOT), storage.location)
    except (FileNotFoundError, NotADirectoryError):
        return None
