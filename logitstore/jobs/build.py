"""The build job: audio and an ensemble in, a store out. The one place that joins clips, replay, teachers and writer."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from logitstore.errors import AudioError, MismatchError, StoreError, UsageError
from logitstore.jobs.blocks import BlockPlan, make_block
from logitstore.store import claims, commits
from logitstore.store.codec import quantizer
from logitstore.store.commits import Commit
from logitstore.store.layout import columns_for
from logitstore.store.manifest import FORMAT_VERSION, ROOT, Manifest, Member, decode_root
from logitstore.store.storage import LocalStorage, Storage
from logitstore.store.writer import StoreWriter
from logitstore.view.clips import ClipAudio
from logitstore.view.lengths import clip_samples
from logitstore.view.ops import Place
from logitstore.view.recipe import load_recipe

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from logitstore.view.recipe import Masks
    from logitstore.view.sources import Source
    from teachers.ensemble import Ensemble

PARTNER_CACHE_BYTES = 1 << 30
WAIT_SECONDS = 0.5
DEFAULT_TOPK = 20
MOST_SHARD_CLIPS = 4096
LEAST_SHARD_CLIPS = 8
_BLOCKS_WANTED = 32


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What ``logitstore build`` was asked; None means the default that the data suggests."""

    source: str
    out: str
    teachers: Sequence[str]
    audio_root: str | None = None
    weights: Sequence[float] | None = None
    average: Literal["probability", "logit"] = "probability"
    classes: str | None = None
    views: int = 10
    topk: int | None = None
    recipe: str = "ced"
    seed: int = 0
    clip_seconds: float = 10.0
    sample_rate: int = 16000
    where: str | None = None
    value_bits: int = 8
    batch_size: int = 32
    workers: int | None = None
    device: str = "auto"
    amp: bool = False
    shard_clips: int | None = None
    keep_members: bool = False
    strict: bool = False
    retry_failed: bool = False


@dataclass
class Progress:
    """What a build reports while it runs; every callback may be left as it is."""

    start: Callable[[int, int], None] = lambda done, total: None  # views
    advance: Callable[[int], None] = lambda views: None
    failures: Callable[[int], None] = lambda count: None
    note: Callable[[str], None] = lambda message: None


@dataclass(frozen=True)
class BuildSummary:
    """What a finished store holds. ``pcm_bytes`` is the audio of all views as 16-bit PCM at the store's rate."""

    location: str
    clips: int
    views: int
    failures: Sequence[tuple[str, str]]
    blocks: int
    made_views: int
    seconds: float
    store_bytes: int
    pcm_bytes: int
    stored_views: int


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

    def ask(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the ensemble says, and each member where the store keeps them."""
        if self.manifest.keep_members:
            return self.ensemble.probabilities(waveforms, masks, members=True)
        return self.ensemble.probabilities(waveforms, masks), None


def prepare(options: BuildOptions) -> Job:
    """Scan the source, load the teachers and write the manifest that the options describe, touching no store.

    :raises UsageError: anything in the options that cannot be right; see the subclasses.
    """
    import torch

    from logitstore.view.scan import scan
    from logitstore.view.sources import open_source
    from teachers.ensemble import Ensemble
    from teachers.registry import load_teacher

    _check_numbers(options)
    recipe = load_recipe(options.recipe)
    samples = clip_samples(options.clip_seconds, options.sample_rate)
    recipe.check(Place(samples, options.sample_rate))
    workers = options.workers if options.workers is not None else os.cpu_count() or 1
    storage = LocalStorage(options.out)
    stored = _stored_manifest(storage)
    source = open_source(options.source, options.audio_root)
    clip_table = scan(source, clip_seconds=options.clip_seconds, where=options.where, workers=max(1, workers))
    device = pick_device(options.device)
    ensemble = Ensemble(
        [load_teacher(spec) for spec in options.teachers],
        weights=options.weights,
        average=options.average,
        classes=_read_classes(options.classes),
        sample_rate=options.sample_rate,
        amp=options.amp,
    ).to(torch.device(device))
    ensemble.check(recipe, options.clip_seconds)
    topk = min(DEFAULT_TOPK, len(ensemble.classes)) if options.topk is None else options.topk
    if topk > len(ensemble.classes):
        raise UsageError(
            f"--topk {topk} is more than the {len(ensemble.classes)} classes of the ensemble; "
            f"give 1 to {len(ensemble.classes)}"
        )
    quantizer(ensemble.scores, options.value_bits)
    shard_clips = options.shard_clips or (stored.shard_clips if stored else default_shard_clips(clip_table.num_rows))
    place = Place(samples, options.sample_rate, shard_clips)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        classes=tuple(ensemble.classes),
        scores=ensemble.scores,
        teachers=tuple(msgspec.convert(member, Member) for member in ensemble.describe()),
        average=options.average,
        recipe_document=recipe.to_dict(),
        draw_columns=tuple(
            {"name": c.name, "low": c.low, "planes": c.planes} for c in columns_for(recipe.ranges(place))
        ),  # fmt: skip
        seed=options.seed,
        sample_rate=options.sample_rate,
        clip_seconds=options.clip_seconds,
        topk=topk,
        value_bits=options.value_bits,
        shard_clips=shard_clips,
        batch_size=options.batch_size,
        device_kind=torch.device(device).type,
        precision="amp" if options.amp else "float32",
        keep_members=options.keep_members,
        made_by=versions(),
    )
    notes = []
    if stored is not None and stored.made_by != manifest.made_by:
        changed = [
            f"{name} {stored.made_by.get(name)} -> {version}"
            for name, version in manifest.made_by.items()
            if stored.made_by.get(name) != version
        ]
        notes.append(f"the store was begun with other versions ({', '.join(changed)}); results may round otherwise")
    return Job(options, source, clip_table, ensemble, manifest, storage, workers, device, notes)


def build(options: BuildOptions, progress: Progress | None = None) -> BuildSummary:
    """Make a store, or finish one that the same options began.

    :raises MismatchError: the store at ``out`` was made otherwise; the differences are shown.
    :raises AudioError: with ``strict``, the first clip that cannot be decoded.
    """
    return run(prepare(options), progress or Progress())


def run(job: Job, progress: Progress) -> BuildSummary:
    """Run a prepared build."""
    began = time.monotonic()
    options = job.options
    writer = StoreWriter.open(job.storage, job.manifest, job.clip_table)
    for note in job.notes:
        progress.note(note)
    cache = PARTNER_CACHE_BYTES if writer.manifest.recipe.has_mixup else 0
    audio = ClipAudio(job.source, writer.part.table, writer.manifest.sample_rate, cache)
    known = _commits(job.storage)
    total = sum(len(writer.shard_rows(shard)) for shard in range(writer.shards)) * options.views
    done = sum(
        c.clips * (min(c.view_stop, options.views) - c.view_start) for c in known if c.view_start < options.views
    )
    progress.start(done, total)
    progress.failures(sum(len(c.failed) for c in known))
    made = 0
    with ThreadPoolExecutor(max(1, job.workers), "decode") as pool, claims.Claimer(job.storage) as claimer:
        waiting = set(range(writer.shards))
        while waiting:
            moved = False
            for shard in sorted(waiting):
                if not _missing(_commits(job.storage, shard), options.views):
                    waiting.discard(shard)
                    continue
                if not claimer.take(shard):
                    continue
                try:
                    for start, stop in _missing(_commits(job.storage, shard), options.views):
                        plan = BlockPlan(shard, writer.shard_rows(shard), start, stop)
                        content = make_block(
                            writer.manifest, writer.part, plan, audio, job.ask,
                            pool=pool, strict=options.strict, advance=progress.advance,
                        )  # fmt: skip
                        name = commits.block_name(shard, start, stop)
                        commit = writer.write_block(shard, start, stop, content, f"blocks/{name}")
                        made += (commit.clips - len(commit.failed)) * commit.views
                        progress.failures(len(commit.failed))
                finally:
                    claimer.drop(shard)
                waiting.discard(shard)
                moved = True
            if waiting and not moved:
                progress.note(f"waiting for {len(waiting)} shards that other builders have claimed")
                time.sleep(WAIT_SECONDS)
        if options.retry_failed:
            made += _retry(job, writer, audio, pool, claimer, progress)
    committed = _commits(job.storage)
    if not claims.claimed_shards(job.storage):
        writer.sweep(committed)
    return _summary(job, writer, committed, made, time.monotonic() - began)


def default_shard_clips(clips: int) -> int:
    """Rows of a shard: a power of two, some tens of shards where there are clips enough, and at most 4,096 rows."""
    wanted = max(1, clips // _BLOCKS_WANTED)
    return min(MOST_SHARD_CLIPS, max(LEAST_SHARD_CLIPS, 1 << (wanted - 1).bit_length()))


def pick_device(name: str) -> str:
    """``auto`` becomes the first GPU, or the CPU where there is none.

    :raises UsageError: a device that torch does not have here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here: {first_line}; give auto, cpu or cuda[:N]") from error
    return name


def versions() -> dict[str, str]:
    """Versions of what computes and writes a store; recorded in it, and only warned about."""
    import soundfile

    packages = ("logitstore", "numpy", "torch", "soxr", "zarr", "numcodecs", "pyarrow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"libsndfile": soundfile.__libsndfile_version__, "machine": platform.machine()}


def _retry(
    job: Job,
    writer: StoreWriter,
    audio: ClipAudio,
    pool: ThreadPoolExecutor,
    claimer: claims.Claimer,
    progress: Progress,
) -> int:
    """Make the blocks anew that hold a failed clip which can now be decoded; a block is replaced as a whole."""
    made = 0
    for commit in _commits(job.storage):
        mended = [row for row, _ in commit.failed if _decodes(audio, commit.first_clip + row)]
        if not mended or not claimer.take(commit.shard):
            continue
        try:
            rows = range(commit.first_clip, commit.first_clip + commit.clips)
            plan = BlockPlan(commit.shard, rows, commit.view_start, commit.view_stop)
            content = make_block(
                writer.manifest,
                writer.part,
                plan,
                audio,
                job.ask,
                pool=pool,
                strict=job.options.strict,
            )
            base, _, attempt = commit.group.partition(".r")
            renewed = writer.write_block(
                commit.shard, commit.view_start, commit.view_stop, content, f"{base}.r{int(attempt or 1) + 1}"
            )
            writer.drop_group(commit.group)
        finally:
            claimer.drop(commit.shard)
        made += len(mended) * commit.views
        progress.failures(len(renewed.failed) - len(commit.failed))
    return made


def _decodes(audio: ClipAudio, row: int) -> bool:
    try:
        audio[row]
    except AudioError:
        return False
    return True


def _missing(found: Sequence[Commit], views: int) -> list[tuple[int, int]]:
    """The ranges of views in [0, views) that no commit of a shard covers."""
    ranges, position = [], 0
    for commit in sorted(found, key=lambda c: c.view_start):
        if commit.view_start > position:
            ranges.append((position, min(commit.view_start, views)))
        position = max(position, commit.view_stop)
    if position < views:
        ranges.append((position, views))
    return [(start, stop) for start, stop in ranges if start < stop]


def _commits(storage: Storage, shard: int | None = None) -> list[Commit]:
    prefix = f"{commits.FOLDER}/" + ("" if shard is None else f"{shard:06d}-")
    return [
        commits.decode(storage.get(name), name) for name in storage.names(commits.FOLDER) if name.startswith(prefix)
    ]


def _stored_manifest(storage: Storage) -> Manifest | None:
    try:
        return decode_root(storage.get(ROOT), storage.location)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_classes(file: str | None) -> tuple[str, ...] | None:
    if file is None:
        return None
    from teachers.classes import read_classes

    return read_classes(file)


def _check_numbers(options: BuildOptions) -> None:
    least = {"views": 1, "topk": 1, "sample_rate": 1000, "batch_size": 1, "workers": 0, "shard_clips": 1}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least {low}")
    if not 0.1 <= options.clip_seconds <= 3600:
        raise UsageError(f"--clip-seconds is {options.clip_seconds:g}; allowed are 0.1 to 3600")
    if not options.teachers:
        raise UsageError("no teacher was given; give at least one --teacher SPEC")


def _summary(job: Job, writer: StoreWriter, committed: Sequence[Commit], made: int, seconds: float) -> BuildSummary:
    paths = writer.part.table["path"]
    failures = {c.first_clip + row: reason for c in committed for row, reason in c.failed}
    storage = job.storage
    stored_views = sum((c.clips - len(c.failed)) * c.views for c in committed)
    rows = writer.part.table.num_rows
    return BuildSummary(
        location=storage.location,
        clips=rows,
        views=max((c.view_stop for c in committed), default=0),
        failures=[(paths[clip].as_py(), failures[clip]) for clip in sorted(failures)],
        blocks=len(committed),
        made_views=made,
        seconds=seconds,
        store_bytes=sum(storage.size(name) for name in storage.names()),
        pcm_bytes=pcm_bytes(writer.part.table, writer.manifest.sample_rate),
        stored_views=stored_views,
    )


def pcm_bytes(table: pa.Table, sample_rate: int) -> int:
    """Bytes of the clips' own audio as 16-bit mono PCM at the store's rate."""
    import numpy as np

    length, rate = (table[name].to_numpy().astype(np.int64) for name in ("length", "rate"))
    from logitstore.view.lengths import samples_at

    return int(2 * np.sum(samples_at(length, np.maximum(rate, 1), sample_rate)))


__all__ = ["BuildOptions", "BuildSummary", "Job", "MismatchError", "Progress", "StoreError", "build", "prepare", "run"]
