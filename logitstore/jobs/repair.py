"""The repair job: what verify finds damaged or missing is made again from the audio and the teachers, and only that.

What is made again must have the digests that were committed, so a store ends byte for byte as it was, or is left alone.
Every step is one that may be the last: objects are put whole, a commit goes after its objects and is removed before
them; so a repair that was interrupted is run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from logitstore.audio.clips import ClipAudio
from logitstore.audio.source import ColumnNames
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, UsageError
from logitstore.jobs.build.block import BlockPlan, make_block
from logitstore.jobs.build.heard import Heard
from logitstore.jobs.build.job import PARTNER_CACHE_BYTES, Job
from logitstore.jobs.options import BuildOptions, RepairOptions
from logitstore.jobs.verify.audit import Audit, audit
from logitstore.jobs.verify.job import store_ensemble
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.basis import BASIS
from logitstore.store.format.commits import Commit, Span
from logitstore.store.format.manifest import COMPILER, IMPORTED, MERGED, ROOT, Manifest
from logitstore.store.format.parts import KEY, encode_clips, read_parts
from logitstore.store.names import BLOCKS, CLIPS, part_name
from logitstore.store.piece import Piece
from logitstore.store.shards import missing_views
from logitstore.store.sql.tables import joined_names
from logitstore.store.storage import Storage, open_storage
from logitstore.store.writer import StoreWriter
from logitstore.texts import in_lines

if TYPE_CHECKING:
    import pyarrow as pa


_GROUP = re.compile(rf"{BLOCKS}/(\d{{6,}})-(\d+)-(\d+)(\.r\d+)?")
_CHECKED = 4  # sound blocks that the audio and the teachers are held against before anything is made


@dataclass
class Repaired:
    """What was found and what was done: one line each. ``lost`` is what still lacks; ``views`` were made again."""

    location: str
    problems: list[str]
    mended: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    views: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("problems", "mended", "dropped", "lost", "views")
        return {"store": self.location} | {name: getattr(self, name) for name in names}

    def render(self) -> str:
        """The lines that ``logitstore repair`` prints."""
        lines = [f"store      {self.location}", f"problems   {len(self.problems):,}"]
        lines += [f"           {problem}" for problem in self.problems]
        for name in ("mended", "dropped", "lost"):
            found = getattr(self, name)
            if found or name != "dropped":
                lines.append(f"{name:<10} {len(found):,}" + (f", {self.views:,} views" if name == "mended" else ""))
            lines += [f"           {line}" for line in found]
        return in_lines(lines)


@dataclass(frozen=True)
class _Block:
    """A block to be made again; ``commit`` is None where its commit is damaged or missing."""

    shard: int
    start: int
    stop: int
    group: str
    commit: Commit | None

    @property
    def name(self) -> str:
        return commits.block_name(self.shard, self.start, self.stop)


def repair(options: RepairOptions, advance: Callable[[int, int], None] | None = None) -> Repaired:
    """Make again what is damaged or missing of a store.

    :param advance: told (blocks made again, blocks to be).
    :raises NotAStoreError: there is no store.
    :raises MismatchError: the teachers are not the store's, or the audio is not what they heard.
    :raises UsageError: teachers without audio, or audio without teachers.
    """
    if options.teachers and options.audio_root is None and options.source is None:
        raise UsageError("--teacher needs what it heard; give SOURCE or --audio-root, the audio of the store")
    storage = open_storage(options.store, to_write=True)
    found = audit(storage, partial=True)
    if found.manifest is None:
        known = sorted({commit.manifest_digest for _, commit in _decoded(storage) if commit is not None})
        raise CorruptStoreError(
            f"{storage.location}: {ROOT}, which holds the manifest, is damaged or missing, and nothing can be made "
            f"without it; run the same build to another --out, stop it as soon as it has begun, and copy its {ROOT} "
            f"here if its digest is {' or '.join(known) or 'right'}, or restore it from a copy"
        )
    return _Repair(options, storage, found, found.manifest, advance or (lambda done, total: None)).run()


def _decoded(storage: Storage) -> Iterator[tuple[str, Commit | None]]:
    """The commits by the names of their objects; None for one that is damaged or of another block."""
    for name, content in commits.objects(storage):
        try:
            commit = None if content is None else commits.decode(content, name)
        except CorruptStoreError:
            commit = None
        yield name, commit if commit is not None and commits.object_name(commit.name) == name else None


class _Repair:
    def __init__(
        self, options: RepairOptions, storage: Storage, found: Audit, manifest: Manifest,
        advance: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self.options, self.storage, self.manifest, self.advance = options, storage, manifest, advance
        self.problems = list(found.problems)
        self.done = Repaired(storage.location, self.problems)
        self.root = storage.get(ROOT)

    def run(self) -> Repaired:
        committed = dict(_decoded(self.storage))
        self._clips(committed)
        if self.done.lost:  # no block can be told from another without its clips
            return self.done
        found = audit(self.storage, partial=True)  # with the clip table as it is now
        sound = {commit.name for commit in found.sound}
        blocks = self._damaged(committed, sound)
        self.problems += [
            f"block {block.name} is missing"
            for block in blocks
            if block.commit is None and commits.object_name(block.name) not in committed
        ]
        audio = self.options.audio_root or self.options.source
        if (
            blocks
            and audio is not None
            and self.options.teachers
            and self.manifest.device_kind not in (IMPORTED, MERGED)
        ):
            blocks = self._make(audio, blocks, found.sound)
        for block in blocks:
            clips = self._clips_of(block)
            text = f"block {block.name}: {clips:,} clips x {block.stop - block.start} views"
            if self.options.drop:
                self._drop(block)
                self.done.dropped.append(text)
            else:
                self.done.lost.append(text)
        self._leftovers()
        if not blocks or self.options.drop:
            self.done.lost += [
                each for each in audit(self.storage, partial=True).problems if each not in self.done.lost
            ]
        return self.done

    # the clip table

    def _clips(self, committed: dict[str, Commit | None]) -> None:
        """Put parts of the clip table back that the source gives again."""
        known = {c.clip_table: c.clip_table_digest for c in committed.values() if c is not None}
        names = sorted({*known, *self.storage.names(CLIPS)} | {part_name(0)})
        contents = dict(zip(names, self.storage.get_many(names), strict=True))
        damaged = [name for name in names if name in known and _digest(contents[name]) != known[name]]
        if not damaged and contents[part_name(0)] is not None:
            return
        given = self.options.source
        sound = [name for name in names if name not in damaged]
        candidates = [] if given is None else list(self._scanned(given, sound))
        for name in damaged:
            content = next((each for each in candidates if digest(each) == known[name]), None)
            if content is None:
                why = (
                    "the source does not give it as it was" if candidates else "give SOURCE, which it was scanned from"
                )
                self.done.lost.append(f"{name}, {self._part_views(committed, name)}: {why}")
                continue
            self.storage.put(name, content)
            self.done.mended.append(name)

    def _part_views(self, committed: dict[str, Commit | None], name: str) -> str:
        own = [c for c in committed.values() if c is not None and c.clip_table == name]
        clips = {c.shard: c.clips for c in own}
        return f"{sum(clips.values()):,} clips, {sum(c.stored_views for c in own):,} views"

    def _scanned(self, given: str, sound: list[str]) -> Iterator[bytes]:
        """What a part may be: all clips of the source, or those that no sound part has."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from logitstore.audio.scan import scan
        from logitstore.audio.sources import open_source

        source = open_source(given, self.options.audio_root, ColumnNames.of(self.options))
        table = scan(
            source, clip_seconds=self.manifest.clip_seconds, where=self.options.where, workers=self._workers,
            taken=joined_names(self.manifest.recipe),
        )  # fmt: skip
        yield encode_clips(table)
        tables = [pq.read_table(pa.BufferReader(self.storage.get(name)), columns=list(KEY)) for name in sound]
        held = {key for each in tables for key in zip(*(each[name].to_pylist() for name in KEY), strict=True)}
        keys = zip(*(table[name].to_pylist() for name in KEY), strict=True)
        fresh = table.filter(pa.array([key not in held for key in keys], pa.bool_()))
        if 0 < fresh.num_rows < table.num_rows:
            yield encode_clips(fresh)

    # blocks

    def _damaged(self, committed: dict[str, Commit | None], sound: set[str]) -> list[_Block]:
        """The blocks that are not whole, and those that are not there."""
        blocks, spans = [], dict[int, list[Span]]()
        groups: dict[Span, str] = {}
        for name in self.storage.names(BLOCKS):
            match = _GROUP.match(name)
            if match:
                span = Span(*(int(match[number]) for number in (1, 2, 3)))
                groups[span] = max(groups.get(span, ""), match[0], key=_attempt)
        for shard, own in commits.spans(self.storage).items():
            for span in own:
                spans.setdefault(shard, []).append(span)
                name = commits.block_name(*span)
                commit = committed.get(commits.object_name(name))
                if name not in sound:
                    group = groups.get(span, f"{BLOCKS}/{name}")
                    if commit is not None and _GROUP.fullmatch(commit.group):
                        group = commit.group
                    blocks.append(_Block(*span, group, commit))
        views = max((span.view_stop for own in spans.values() for span in own), default=0)
        for span, group in sorted(groups.items()):  # objects whose commit is gone
            own = spans.setdefault(span.shard, [])
            if span.view_stop <= views and all(
                span.view_stop <= other.view_start or other.view_stop <= span.view_start for other in own
            ):
                own.append(span)
                blocks.append(_Block(*span, group, None))
        for shard in range(self._shards()):
            for start, stop in missing_views(spans.get(shard, ()), views):
                blocks.append(_Block(shard, start, stop, f"{BLOCKS}/{commits.block_name(shard, start, stop)}", None))
        return sorted(blocks, key=lambda block: (block.shard, block.start))

    def _shards(self) -> int:
        try:
            parts = read_parts(self.storage, self.manifest.shard_clips)
        except CorruptStoreError:
            return 0
        return parts[-1].shards(self.manifest.shard_clips).stop if parts else 0

    def _clips_of(self, block: _Block) -> int:
        if block.commit is not None:
            return block.commit.clips
        try:
            return len(self._writer().clips_of(block.shard))
        except (CorruptStoreError, StopIteration):
            return self.manifest.shard_clips

    def _writer(self) -> StoreWriter:
        parts = read_parts(self.storage, self.manifest.shard_clips)
        return StoreWriter(self.storage, self.manifest, self.root, parts, parts)

    def _make(self, audio_root: str, blocks: list[_Block], sound: list[Commit]) -> list[_Block]:
        """Make blocks again; those that could not be."""
        from logitstore.audio.sources import open_audio, open_source

        options, manifest = self.options, self.manifest
        ensemble = store_ensemble(self.storage.location, manifest, options.teachers, options.device)
        if COMPILER in manifest.made_by:
            ensemble.compile()
        if options.source is not None:
            source = open_source(options.source, options.audio_root, ColumnNames.of(options))
        else:
            source = open_audio(audio_root)
        writer = self._writer()
        cache = PARTNER_CACHE_BYTES if manifest.recipe.has_mixup else 0
        audio = ClipAudio(source, writer.clips, manifest.sample_rate, cache)
        asking = BuildOptions(source="", out=options.store, teachers=options.teachers)
        empty: pa.Table = writer.clips.slice(0, 0)
        job = Job(asking, source, empty, ensemble, manifest, self.storage, self._workers, options.device)
        piece = Piece(self.storage, manifest, writer.root_digest)
        if manifest.relations is not None:
            from logitstore.jobs.build.relate import Relator

            basis = writer.basis() if manifest.relations.clips is not None else None
            if basis is None and manifest.relations.clips is not None:
                raise CorruptStoreError(f"{self.storage.location}: {BASIS} is missing; restore it from a copy")
            job.relator = Relator(manifest.relations, basis, ensemble.device)
        left = []
        with ThreadPoolExecutor(self._workers, "decode") as pool, claims.Claimer(self.storage) as claimer:
            heard = Heard(piece, audio, job.ask, pool, str(options.source or options.audio_root))
            for commit in sound[:: max(1, len(sound) // _CHECKED)][:_CHECKED]:
                heard.check(commit)
            for number, block in enumerate(blocks):
                self.advance(number, len(blocks))
                if not claimer.take(block.shard):
                    self.done.lost.append(f"block {block.name}: another builder has claimed its shard; try again later")
                    continue
                try:
                    plan = BlockPlan(block.shard, writer.clips_of(block.shard), block.start, block.stop)
                    content = make_block(manifest, writer.part_of(block.shard), plan, audio, job.ask, pool=pool)
                    made = self._put(writer, block, content, partial(claimer.keep, block.shard))
                finally:
                    claimer.drop(block.shard)
                if made:
                    self.done.mended.append(f"block {block.name}")
                    self.done.views += made.stored_views
                else:
                    left.append(block)
        return left

    def _put(self, writer: StoreWriter, block: _Block, content: Any, keep: Callable[[], bool]) -> Commit | None:
        """Put what differs of a block in its place; None, and a line, where it is not what was committed."""
        if block.commit is None:
            return writer.write_block(
                block.shard, block.start, block.stop, content, block.group, keep=keep, anew=True
            )  # fmt: skip
        objects, commit = writer.encode_block(block.shard, block.start, block.stop, content, block.group)
        if commit.objects != block.commit.objects:
            other = [name for name in block.commit.objects if commit.objects.get(name) != block.commit.objects[name]]
            self.problems.append(f"block {block.name}")
            self.done.lost.append(
                f"block {block.name} cannot be made as it was: {len(other)} of its {len(block.commit.objects)} objects "
                "come out otherwise, so the audio, the device or the versions are not those of the build"
            )
            return None
        names = list(objects)
        for name, held in zip(names, self.storage.get_many(names), strict=True):
            if held != objects[name] and not (keep() and self.storage.put(name, objects[name], keep)):
                return None
        return block.commit

    def _drop(self, block: _Block) -> None:
        """Remove a block: its commit first, so that it is gone as a whole whatever happens."""
        self.storage.delete(commits.object_name(block.name))
        for name in list(self.storage.names(block.group)):
            self.storage.delete(name)

    # what no commit names

    def _leftovers(self) -> None:
        """Remove objects of no block, where no builder may be at work on them."""
        if claims.claimed_shards(self.storage):
            return
        committed = {c.group: c for _, c in _decoded(self.storage) if c is not None}
        unsure = {name for name, c in _decoded(self.storage) if c is None}
        for name in list(self.storage.names(BLOCKS)):
            match = _GROUP.match(name)
            group = "/".join(name.split("/")[:2])
            own = committed.get(group)
            if own is not None and name[len(group) + 1 :] in own.objects:
                continue
            span = commits.block_name(*(int(match[number]) for number in (1, 2, 3))) if match else ""
            lost = any(line.startswith(f"block {span}") for line in self.done.lost)
            if commits.object_name(span) in unsure or (own is None and lost):
                continue  # it may be of use yet
            self.storage.delete(name)
            self.done.mended.append(f"{name}, which no commit names, is removed")
        self.storage.sweep_scratch()

    @property
    def _workers(self) -> int:
        return max(1, self.options.workers if self.options.workers is not None else os.cpu_count() or 1)


def _digest(content: bytes | None) -> str | None:
    return None if content is None else digest(content)


def _attempt(group: str) -> int:
    base, _, attempt = group.partition(".r")
    return int(attempt or 1) if base else 0
