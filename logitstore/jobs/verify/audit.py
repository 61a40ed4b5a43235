"""Everything that can be checked of a store from the store alone, block by block; what is wrong becomes a line.

Digests first: of the manifest, of every part of the clip table, of every commit, of every object of a block. What has
the right digest is then decoded and held against the manifest and the clip table, draws against the recipe and seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, NotAStoreError
from logitstore.jobs.verify.audit_block import block_problems
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.basis import BASIS, decode_basis
from logitstore.store.format.commits import Commit
from logitstore.store.format.manifest import ROOT, Manifest, decode_root
from logitstore.store.format.parts import CLIPS, KEY, part_name, part_number
from logitstore.store.shards import missing_views, number_ranges
from logitstore.store.storage import SCRATCH, Storage
from logitstore.views.recipe import clip_key

BLOCKS = "blocks"
_GROUP = re.compile(rf"{BLOCKS}/(\d{{6,}})-\d+-\d+(\.r\d+)?")
_COMMIT = re.compile(rf"{commits.FOLDER}/\d{{6,}}-\d+-\d+\.json")
_COLUMNS = {"path": "string", "start": "int64", "length": "int64", "rate": "int32"}


@dataclass
class Audit:
    """What was checked, and what is wrong: one line each. ``unfinished`` counts objects that builders have yet to
    commit; ``manifest`` is None where it is damaged."""

    manifest: Manifest | None = None
    objects: int = 0
    checked_bytes: int = 0
    parts: int = 0
    clips: int = 0
    failed: int = 0
    shards: int = 0
    blocks: int = 0
    views: int = 0
    stored_views: int = 0
    unfinished: int = 0
    sound: list[Commit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def audit(storage: Storage, *, partial: bool = False, advance: Callable[[int, int], None] | None = None) -> Audit:
    """Check a store.

    :param partial: whether blocks may be missing.
    :param advance: told (blocks checked, blocks).
    :raises NotAStoreError: there is no store, or one of an unknown format version.
    """
    return _Auditor(storage, partial, advance or (lambda done, total: None)).run()


class _Part(NamedTuple):
    name: str
    first_clip: int
    first_shard: int


class _Auditor:
    def __init__(self, storage: Storage, partial: bool, advance: Callable[[int, int], None]) -> None:
        self.storage = storage
        self.partial = partial
        self.advance = advance
        self.found = Audit()
        self.root_digest = ""
        self.clips_sound = True
        self.hashes: list[npt.NDArray[np.uint64]] = []

    def run(self) -> Audit:
        committed = self._commits()
        self._root(committed)
        parts = self._parts(committed)
        self._basis(committed)
        self._strangers(committed)
        self._blocks(committed, parts)
        return self.found

    def problem(self, text: str) -> None:
        self.found.problems.append(text)

    def get(self, name: str) -> bytes | None:
        """An object's bytes, counted; None, and a line, where there is none."""
        try:
            content = self.storage.get(name)
        except FileNotFoundError:
            self.problem(f"{name} is missing")
            return None
        self.count(content)
        return content

    def count(self, content: bytes) -> None:
        self.found.objects += 1
        self.found.checked_bytes += len(content)

    def _commits(self) -> list[Commit]:
        kept = []
        for name in self.storage.names(commits.FOLDER):
            if not _COMMIT.fullmatch(name):
                self.problem(f"{name} is no part of a store")
                continue
            content = self.get(name)
            if content is None:
                continue
            try:
                commit = commits.decode(content, name)
            except CorruptStoreError as error:
                self.problem(str(error))
                continue
            if commits.object_name(commit.name) != name:
                self.problem(f"{name} is the commit of another block, {commit.name}")
                continue
            kept.append(commit)
        self.found.blocks = len(kept)
        self.found.views = max((commit.view_stop for commit in kept), default=0)
        return sorted(kept, key=lambda commit: (commit.shard, commit.view_start))

    def _root(self, committed: Sequence[Commit]) -> None:
        """The manifest, if it is the one that blocks were committed under."""
        known = {commit.manifest_digest for commit in committed}
        try:
            root = self.storage.get(ROOT)
        except (FileNotFoundError, NotADirectoryError) as error:
            if committed:
                self.problem(f"{ROOT}, which holds the manifest, is missing")
                return
            raise NotAStoreError(
                f"no store at {self.storage.location}: there is no {ROOT} in it; give what `logitstore build` wrote"
            ) from error
        self.count(root)
        if known and digest(root) not in known:
            self.problem(f"{ROOT}, which holds the manifest, is not the object that the blocks were committed under")
            return
        self.found.manifest = decode_root(root, self.storage.location)
        self.root_digest = digest(root)
        for commit in committed:
            if commit.manifest_digest != self.root_digest:
                self.problem(f"commits/{commit.name}.json was committed under another manifest")

    def _parts(self, committed: Sequence[Commit]) -> list[_Part]:
        """The parts of the clip table that are sound, their tables left out."""
        known: dict[str, set[str]] = {}
        for commit in committed:
            known.setdefault(commit.clip_table, set()).add(commit.clip_table_digest)
        names = list(self.storage.names(CLIPS))
        for name in names:
            if part_number(name) is None:
                self.problem(f"{name} is no part of a store")
        numbers = [number for number in map(part_number, names) if number is not None]
        expected = {part_name(number) for number in range(max(numbers, default=0) + 1)} | known.keys()
        parts: list[_Part] = []
        for name in sorted(expected):
            rows = self._part_rows(name, known.get(name))
            if rows is None:
                self.clips_sound = False
                break  # the clips of later parts have no numbers
            parts.append(_Part(name, self.found.clips, self.found.shards))
            self.found.clips += rows
            if self.found.manifest is not None:
                self.found.shards += -(-rows // self.found.manifest.shard_clips)
        self.found.parts = len(parts)
        return parts

    def _basis(self, committed: Sequence[Commit]) -> None:
        """The basis of the clips' vectors, if it is the one that blocks were committed with."""
        manifest = self.found.manifest
        needed = manifest is not None and manifest.relations is not None and manifest.relations.clips is not None
        if manifest is not None:
            for commit in committed:
                if isinstance(commit.basis, str) != needed:
                    self.problem(f"commits/{commit.name}.json names {'no' if needed else 'a'} basis")
        (content,) = self.storage.get_many([BASIS])
        if content is None:
            if needed and committed:
                self.problem(f"{BASIS} is missing")
            return
        self.count(content)
        if manifest is not None and not needed:
            self.problem(f"{BASIS} is no part of a store without clip vectors")
        elif {commit.basis for commit in committed if isinstance(commit.basis, str)} - {digest(content)}:
            self.problem(f"{BASIS} is not the object that the blocks were committed with")
        else:
            try:
                basis = decode_basis(content, self.storage.location)
            except CorruptStoreError as error:
                self.problem(str(error))
                return
            if manifest is None or manifest.relations is None:
                return
            found, asked = (len(basis.widths), basis.frames), (len(manifest.teachers), manifest.relations.pooled)
            if found != asked:
                self.problem(
                    f"{BASIS} is of {found[0]} teachers and {found[1]} frames, and the manifest has {asked[0]} and "
                    f"{asked[1]}"
                )

    def _part_rows(self, name: str, known: set[str] | None) -> int | None:
        """Number of rows of a part; None, and a line, where it is not what it should be."""
        content = self.get(name)
        if content is None:
            return None
        if known is not None and known != {digest(content)}:
            self.problem(f"{name} is not the object that was committed")
            return None
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
        except pa.ArrowException as error:
            self.problem(f"{name} is damaged: {error}")
            return None
        found = {field.name: str(field.type) for field in file.schema_arrow}
        wrong = [
            f"{column} is {found.get(column, 'missing')}"
            for column, kind in _COLUMNS.items()
            if found.get(column) != kind
        ]
        if wrong:
            self.problem(f"{name}: {', '.join(wrong)}")
            return None
        return int(file.metadata.num_rows)

    def _strangers(self, committed: Sequence[Commit]) -> None:
        """Objects that nothing names."""
        named = {commit.group: commit.objects.keys() for commit in committed}
        claimed = set(claims.claimed_shards(self.storage))
        folders = (BLOCKS, commits.FOLDER, CLIPS, claims.FOLDER, SCRATCH)
        loose: dict[str, int] = {}
        for name in self.storage.names():
            folder, _, rest = name.partition("/")
            if folder != BLOCKS:
                if name not in (ROOT, BASIS) and (folder not in folders or not rest):
                    self.problem(f"{name} is no part of a store")
                continue
            group = "/".join(name.split("/")[:2])
            if group not in named:
                loose[group] = loose.get(group, 0) + 1
            elif name[len(group) + 1 :] not in named[group]:
                self.problem(f"{name} is an object that no commit names")
        for group, count in loose.items():
            match = _GROUP.fullmatch(group)
            if match and (self.partial or int(match[1]) in claimed):
                self.found.unfinished += count
            else:
                self.problem(f"{group} is a block without a commit ({count} object{'s' * (count > 1)})")

    def _blocks(self, committed: Sequence[Commit], parts: Sequence[_Part]) -> None:
        by_shard: dict[int, list[Commit]] = {}
        for commit in committed:
            by_shard.setdefault(commit.shard, []).append(commit)
        done = 0
        lacking: dict[tuple[tuple[int, int], ...], list[int]] = {}
        failed: set[int] = set()
        for shard, part, first_clip, rows in self._shards(parts):
            own = by_shard.pop(shard, [])
            gaps = tuple(missing_views(own, self.found.views))
            if gaps:
                lacking.setdefault(gaps, []).append(shard)
            reached = 0
            for commit in own:
                if commit.view_start < reached:
                    self.problem(f"commits/{commit.name}.json holds views that another commit of its shard holds too")
                reached = max(reached, commit.view_stop)
                self._block(commit, part, first_clip, rows)
                failed |= {commit.first_clip + row for row, _ in commit.failed}
                done += 1
                self.advance(done, len(committed))
        for own in by_shard.values():  # beyond the clip table, or in a part of it that is damaged
            for commit in own:
                if self.found.manifest is not None and self.clips_sound:
                    self.problem(f"commits/{commit.name}.json is of a shard that the clip table does not have")
                self._objects(commit)
        if not self.partial:
            self._report_missing(lacking)
        self._duplicates(parts)
        self.found.failed = len(failed)

    def _report_missing(self, lacking: dict[tuple[tuple[int, int], ...], list[int]]) -> None:
        if not self.found.views:
            self.problem("no block is finished")
        for gaps, shards in lacking.items():
            views = ", ".join(f"{start} to {stop - 1}" if stop - start > 1 else str(start) for start, stop in gaps)
            self.problem(
                f"{'shards' if len(shards) > 1 else 'shard'} {number_ranges(shards)} without views {views}: "
                "their blocks are missing"
            )

    def _shards(self, parts: Sequence[_Part]) -> Iterator[tuple[int, _Part, int, pa.Table]]:
        """(shard, part, first clip, rows) of every shard, rising; each row's key is checked on the way."""
        if self.found.manifest is None:
            return
        size = self.found.manifest.shard_clips
        for part in parts:
            file = pq.ParquetFile(pa.BufferReader(self.storage.get(part.name)))
            held: list[pa.Table] = []
            shard, clip = part.first_shard, part.first_clip
            for batch in file.iter_batches(batch_size=size, columns=list(_COLUMNS), use_threads=False):
                held.append(pa.Table.from_batches([batch]))
                while sum(table.num_rows for table in held) >= size:
                    rows = pa.concat_tables(held)
                    held = [rows.slice(size)]
                    yield shard, part, clip, self._checked_rows(rows.slice(0, size), part, clip)
                    shard, clip = shard + 1, clip + size
            rest = pa.concat_tables(held) if held else None
            if rest is not None and rest.num_rows:
                yield shard, part, clip, self._checked_rows(rest, part, clip)

    def _checked_rows(self, rows: pa.Table, part: _Part, first_clip: int) -> pa.Table:
        if any(column.null_count for column in rows.columns):
            self.problem(f"{part.name}: clips {first_clip} to {first_clip + rows.num_rows - 1}: a key or rate is null")
            return rows.slice(0, 0)
        start, length, rate = (rows[name].to_numpy() for name in ("start", "length", "rate"))
        odd = np.flatnonzero((start < 0) | (length < 0) | (rate < 0) | ((rate == 0) & (length != 0)))
        if len(odd):
            clip = first_clip + int(odd[0])
            self.problem(f"{part.name}: clip {clip}: start, length or rate is impossible")
        keys = zip(*(rows[name].to_pylist() for name in KEY), strict=True)
        self.hashes.append(np.fromiter((clip_key(*key) for key in keys), np.uint64, rows.num_rows))
        return rows

    def _duplicates(self, parts: Sequence[_Part]) -> None:
        """Clips that are in the table twice: 8 bytes a clip are held for this."""
        if not self.hashes or sum(map(len, self.hashes)) != self.found.clips:
            return
        hashes = np.concatenate(self.hashes)
        order = np.argsort(hashes, kind="stable")
        for place in np.flatnonzero(np.diff(hashes[order]) == 0):
            first, second = int(order[place]), int(order[place + 1])
            self.problem(f"clips {first} and {second} have the same path, start and length")

    def _block(self, commit: Commit, part: _Part, first_clip: int, rows: pa.Table) -> None:
        manifest = self.found.manifest
        name = f"commits/{commit.name}.json"
        contents = self._objects(commit)
        if commit.clip_table != part.name or (commit.first_clip, commit.clips) != (first_clip, rows.num_rows):
            self.problem(
                f"{name} is of the clips {commit.first_clip} to {commit.first_clip + commit.clips - 1} of "
                f"{commit.clip_table}; its shard has {first_clip} to {first_clip + rows.num_rows - 1} of {part.name}"
            )
            return
        if contents is None or manifest is None or commit.manifest_digest != self.root_digest:
            return
        problems = block_problems(manifest, commit, contents, rows)
        self.found.problems += [f"block {commit.name}: {problem}" for problem in problems]
        if not problems:
            self.found.sound.append(commit)
            self.found.stored_views += (commit.clips - len(commit.failed)) * commit.views

    def _objects(self, commit: Commit) -> dict[str, bytes] | None:
        """The objects of a block; None where one is missing or not the one that was committed."""
        names = list(commit.objects)
        contents: dict[str, bytes] = {}
        for name, content in zip(
            names, self.storage.get_many([f"{commit.group}/{name}" for name in names]), strict=True
        ):
            if content is None:
                self.problem(f"{commit.group}/{name} is missing")
                continue
            self.count(content)
            if digest(content) != commit.objects[name]:
                self.problem(f"{commit.group}/{name} is not the object that was committed")
                continue
            contents[name] = content
        return contents if len(contents) == len(names) else None
