"""The extend job: more clips for a store that is there, asked of the same teachers in the same way.

The clips become a new part of the clip table, with shards of their own. What must be the same for the whole store
(classes, recipe, seed, k, lengths, …) comes from its manifest; the teachers and the audio are given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.dry_run import Plan
from logitstore.jobs.build.dry_run import dry_run as describe
from logitstore.jobs.build.job import BuildSummary, Job, Progress, prepare, run
from logitstore.jobs.options import ExtendOptions, Extension
from logitstore.store.format.manifest import COMPILER, IMPORTED, MERGED
from logitstore.store.format.parts import next_part, plan_extension, read_parts
from logitstore.store.format.relations import DEFAULT_FRAMES
from logitstore.store.reader import Store, open_store
from logitstore.store.shards import number_ranges


def prepare_extend(options: ExtendOptions) -> Job:
    """Scan the source and load the teachers, touching nothing.

    :raises NotAStoreError: there is no store.
    :raises MismatchError: an imported store, or teachers that cannot be the store's.
    """
    store = open_store(options.store)
    manifest = store.manifest
    if manifest.device_kind == IMPORTED:
        raise MismatchError(
            f"{options.store} was imported, so its teachers cannot be asked; build another store and read both "
            "as one (--also)"
        )
    if manifest.device_kind == MERGED:
        raise MismatchError(
            f"{options.store} was merged; extend the stores that it was merged from, each with its own teachers, and "
            "merge them again"
        )
    if len(options.teachers) != len(manifest.teachers):
        given, stored = len(options.teachers), len(manifest.teachers)
        names = ", ".join(f"{member.name} ({member.digest[:12]})" for member in manifest.teachers)
        raise MismatchError(
            f"{options.store} has {stored} teacher{'s' * (stored != 1)} ({names}), asked {given}; "
            "give --teacher SPEC for each in this order"
        )
    relations = manifest.relations
    of_build = {each.name for each in dataclasses.fields(Extension)}
    asked = {each.name: getattr(options, each.name) for each in dataclasses.fields(options) if each.name in of_build}
    of_store: dict[str, Any] = {
        "out": options.store,
        "weights": [member.weight for member in manifest.teachers],
        "average": manifest.average,
        "classes": manifest.classes,
        "views": _views(store) if options.views is None else options.views,
        "topk": manifest.topk,
        "quality": manifest.quality,
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "clip_seconds": manifest.clip_seconds,
        "sample_rate": manifest.sample_rate,
        "value_bits": manifest.value_bits,
        "batch_size": manifest.batch_size,
        "device": manifest.device_kind if options.device is None else options.device,
        "precision": manifest.precision,
        "compile": COMPILER in manifest.made_by,
        "keep_members": manifest.keep_members,
        "relations": None if relations is None else relations.names,
        "similarity_frames": DEFAULT_FRAMES if relations is None else relations.pooled,
        "frames": None if manifest.frames is None else manifest.frames.hop_ms,
    }
    job = prepare(Extension(**(asked | of_store)))
    if options.skip_known:  # the source is one that the store has clips of, grown since
        _require_same_files(store, job)
    return job


def extend(options: ExtendOptions, progress: Progress | None = None) -> BuildSummary:
    """Add clips to a store, or finish adding those that the same options began to add.

    :raises MismatchError: the teachers are not the store's; or it has some of these clips, which are named.
    """
    return run(prepare_extend(options), progress or Progress())


def dry_run(job: Job) -> Plan:
    """What a prepared extension would do; nothing is written."""
    shard_clips = job.manifest.shard_clips
    parts = read_parts(job.storage, shard_clips)
    skip_known = isinstance(job.options, Extension) and job.options.skip_known
    own, fresh = plan_extension(parts, job.clip_table, job.storage.location, skip_known)
    if fresh is not None:
        own = (*own, next_part(parts, fresh, "", shard_clips))
    if not own:
        return Plan([f"clips      none that {job.storage.location} does not have"], None)
    shards = number_ranges([shard for part in own for shard in part.shards(shard_clips)])
    told = dataclasses.replace(job, clip_table=own[-1].table)
    plan = describe(told)
    return Plan([f"shards     {shards}, in {', '.join(part.name for part in own)}", *plan.lines], plan.survival)


def _views(store: Store) -> int:
    if not store.views:
        raise UsageError(f"{store.location} has no finished block yet, so no number of views; give --views")
    return store.views


def _require_same_files(store: Store, job: Job) -> None:
    """Refuse a source whose files have another rate, or another length, than those of their names in the store.

    A source that lists segments may well list others of a file; one that lists files lists them whole.

    :raises MismatchError: naming the first such file.
    """
    if not store.commits:
        return
    columns = ("path", "start", "length", "rate")
    given = set(job.clip_table["path"].to_pylist())
    rates: dict[str, int] = {}
    lengths: dict[tuple[str, int], int] = {}
    for path, start, length, rate in zip(*(store.clips[name].to_pylist() for name in columns), strict=True):
        if rate and path in given:
            rates[path] = rate
            lengths[path, start] = length
    for path, start, length, rate in zip(*(job.clip_table[name].to_pylist() for name in columns), strict=True):
        if not rate:
            continue
        was = rates.get(path, rate)
        if was != rate:
            raise MismatchError(
                f"{path!r} is at {rate} Hz and was at {was} Hz when {store.location} was made; it is another file now: "
                "give it another name, or the audio that was heard"
            )
        before = lengths.get((path, start), length)
        if before != length and not job.source.segmented:
            raise MismatchError(
                f"{path!r} has {length} frames from frame {start} on and had {before} when {store.location} was made; "
                "it is another file now: give it another name, or the audio that was heard"
            )
