"""``--retry-failed``: blocks that hold a failed clip are made anew once it can be decoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError
from logitstore.jobs.build.block import BlockPlan, make_block
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.writer import StoreWriter

if TYPE_CHECKING:
    from logitstore.jobs.build.job import Job, Progress


def retry_failed(
    job: Job,
    writer: StoreWriter,
    chosen: set[int],
    audio: ClipAudio,
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
            rows = range(commit.first_clip, commit.first_clip + commit.clips)
            plan = BlockPlan(commit.shard, rows, commit.view_start, commit.view_stop)
            content = make_block(
                writer.manifest,
                writer.part_of(commit.shard),
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
