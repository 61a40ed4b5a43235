"""The merge job: stores that heard the same views, written as one ordinary store of their joint targets.

What it writes is what :mod:`logitstore.store.joint` reads, block by block, each made real by its commit. So a merge
that was interrupted goes on by the same command; and one that is run again after its stores have grown, or had failed
clips made anew, brings the merged store up to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.job import BuildSummary
from logitstore.jobs.options import MergeOptions
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.commits import Commit
from logitstore.store.joint import Joint, joint_notes, require_alike
from logitstore.store.names import group_attempt, group_name
from logitstore.store.piece import Piece, open_piece
from logitstore.store.pieces import Pieces, refuse_twice
from logitstore.store.requests import sent, since
from logitstore.store.shards import unfinished_shards
from logitstore.store.storage import open_storage
from logitstore.store.summary import summarise
from logitstore.store.writer import BlockContent, StoreWriter
from logitstore.views.recipe import Draws


@dataclass
class MergeProgress:
    """What a merge reports while it runs; every callback may be left as it is."""

    advance: Callable[[int, int], None] = lambda done, total: None  # blocks
    note: Callable[[str], None] = field(default=lambda message: None)


def merge(options: MergeOptions, progress: MergeProgress | None = None) -> BuildSummary:
    """Write the joint targets of some stores as a store, or what one lacks of them that the same options began.

    :raises MismatchError: stores that did not hear the same views, or one at ``out`` that was made otherwise.
    :raises UsageError: fewer than two stores, or options that cannot be right; no view that all of them have.
    """
    progress, began, before = progress or MergeProgress(), time.monotonic(), sent()
    if not options.ensemble:
        raise UsageError(
            "merge joins the teachers of stores that heard the same views; say so with --ensemble. Stores of other "
            "clips need no merging: inspect and train-student read them as one with --also"
        )
    if len(options.stores) < 2 or isinstance(options.stores, str):
        raise UsageError("merge needs at least two stores")
    pieces = [open_piece(store) for store in options.stores]
    refuse_twice(pieces)
    storage = open_storage(options.out, to_write=True)
    if storage.location in {piece.location for piece in pieces}:
        raise UsageError(f"--out {options.out} is one of the stores that are merged; give another place")
    require_alike(pieces)
    joint = Joint(pieces, options.store_weights, options.topk, options.value_bits)
    if not joint.commits:
        raise UsageError(f"{joint.location} have no view in common yet, so there is nothing to merge; run their builds")
    for line in joint_notes(joint):
        progress.note(line)

    from logitstore.models.machine import versions

    first = pieces[0]
    manifest = msgspec.structs.replace(joint.manifest, made_by=versions())
    parts = [first.storage.get(name) for name in first.clip_files()]
    writer = StoreWriter.open_like(storage, manifest, parts)
    made = write_joint(writer, joint, progress)
    store = Pieces([Piece(storage, writer.manifest, writer.root_digest)])
    missing = unfinished_shards(store.commits, writer.shards, max(joint.views, store.views))
    if not missing and not claims.claimed_shards(storage):
        writer.sweep(store.commits)
    return BuildSummary(
        **vars(summarise(store)),
        failures=store.failures(),
        made_views=made,
        seconds=time.monotonic() - began,
        missing=len(missing),
        requests=since(before),
    )


def write_joint(writer: StoreWriter, joint: Joint, progress: MergeProgress) -> int:
    """Make the blocks that are missing, or not what the stores say now; how many views were made."""
    made, done = 0, 0
    waiting: dict[int, list[Commit]] = {}
    for commit in joint.commits:
        waiting.setdefault(commit.shard, []).append(commit)
    with claims.Claimer(writer.storage) as claimer:
        while waiting:
            before = len(waiting)
            for shard in list(waiting):
                if not claimer.take(shard):
                    continue
                try:
                    for commit in waiting.pop(shard):
                        made += _put(writer, joint, commit, partial(claimer.keep, shard))
                        done += 1
                        progress.advance(done, len(joint.commits))
                finally:
                    claimer.drop(shard)
            if waiting and len(waiting) == before:
                progress.note(f"waiting for {len(waiting)} shards that others have claimed{claimer.waits()}")
                time.sleep(claimer.idle_seconds())
    return made


def _put(writer: StoreWriter, joint: Joint, commit: Commit, keep: Callable[[], bool]) -> int:
    """Write a block, unless it is there as it is to be: how many views it has, 0 where nothing was written."""
    shard, start, stop = commit.shard, commit.view_start, commit.view_stop
    draws = Draws(joint.block_draws(commit))
    when = None if joint.manifest.frames is None else joint.block_frames(commit)
    content = BlockContent(joint.joint(commit), None, draws, dict(commit.failed), commit.fingerprints, frames=when)
    group, anew = f"blocks/{commit.name}", False
    stored = {each.name: each for each in commits.read_all(writer.storage, shard)}
    known = stored.pop(commit.name, None)
    across = [each.name for each in stored.values() if each.view_start < stop and start < each.view_stop]
    if across:
        raise MismatchError(
            f"{writer.storage.location} has block {across[0]}, and {joint.location} now have {commit.name}: their "
            "blocks are others than they were; give another --out"
        )
    if known is not None:
        _, now = writer.encode_block(shard, start, stop, content, known.group)
        if now == msgspec.structs.replace(known, digest=now.digest):
            return 0
        attempt = group_attempt(known.group, known.name) or 1
        group, anew = group_name(known.name, attempt + 1), True
    written = writer.write_block(shard, start, stop, content, group, keep=keep, anew=anew)
    if written is None:
        raise MismatchError(
            f"the claim of shard {shard} of {writer.storage.location} was lost: this process stood still for longer "
            "than it lasts; run the same command again"
        )
    if known is not None:
        writer.drop_group(known.group, keep)
    return written.stored_views
