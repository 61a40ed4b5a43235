"""Everything that can be checked of a store from the store alone, block by block; what is wrong becomes a line.

Digests first: of the manifest, of every part of the clip table, of every commit, of every object of a block. What has
the right digest is then decoded and held against the manifest and the clip table, draws against the recipe and seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logitstore.arrays import U8
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, NotAStoreError, StoreError
from logitstore.jobs.build.block import BlockPlan, block_draws
from logitstore.store import claims
from logitstore.store.format import commits, layout
from logitstore.store.format.basis import BASIS, decode_basis
from logitstore.store.format.blocks import array_planes, decode_arrays, held_in
from logitstore.store.format.commits import Commit
from logitstore.store.format.frames import from_arrays as frames_from_arrays
from logitstore.store.format.manifest import IMPORTED, ROOT, Manifest, decode_root
from logitstore.store.format.objects import FRAMES, GROUP, PACKED, is_group
from logitstore.store.format.parts import COLUMNS, KEY, Part, check_clips, open_part
from logitstore.store.format.relations import from_arrays
from logitstore.store.format.room import require_room
from logitstore.store.names import BLOCKS, CLIPS, LISTING, commit_numbers, part_name, part_number, shown
from logitstore.store.shards import missing_views, number_ranges
from logitstore.store.storage import SCRATCH, Storage
from logitstore.store.web import listing, read_listing
from logitstore.views.recipe import Draws, clip_key

_GROUP = re.compile(rf"{BLOCKS}/([0-9]{{6,15}})-[0-9]+-[0-9]+(\.r[0-9]+)?")
_BATCH_ROWS, _MOST_BATCH_ROWS = 1 << 12, 1 << 20


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


def audit(
    storage: Storage,
    *,
    partial: bool = False,
    advance: Callable[[int, int], None] | None = None,
    choose: Callable[[Sequence[Commit]], Container[str]] | None = None,
    checked: Callable[[str, bool], None] = lambda name, sound: None,
) -> Audit:
    """Check a store.

    :param partial: whether blocks may be missing.
    :param advance: told (blocks checked, blocks).
    :param choose: given the commits, the names of the blocks whose objects are read; those of all by default.
    :param checked: told the name of each block whose objects were read, and whether it is sound.
    :raises NotAStoreError: there is no store, or one of an unknown format version.
    """
    return _Auditor(storage, partial, advance or (lambda done, total: None), choose, checked).run()


class _Part(NamedTuple):
    name: str
    first_clip: int
    first_shard: int


class _Auditor:
    def __init__(
        self,
        storage: Storage,
        partial: bool,
        advance: Callable[[int, int], None],
        choose: Callable[[Sequence[Commit]], Container[str]] | None,
        checked: Callable[[str, bool], None],
    ) -> None:
        self.choose, self.checked = choose, checked
        self.chosen: Container[str] | None = None
        self.storage = storage
        self.partial = partial
        self.advance = advance
        self.found = Audit()
        self.root_digest = ""
        self.clips_sound = True
        self.hashes: list[npt.NDArray[np.uint64]] = []

    def run(self) -> Audit:
        committed = self._commits()
        if self.choose is not None:
            self.chosen = self.choose(committed)
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
        (content,) = self.get_many([name])
        if content is not None:
            self.count(content)
        return content

    def get_many(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """The bytes of some objects; None, and a line, for each that is missing or cannot be read."""
        try:
            found = list(self.storage.get_many(names))
        except StoreError:  # of one of them
            return [self._get_alone(name) for name in names]
        for name, content in zip(names, found, strict=True):
            if content is None:
                self.problem(f"{name} is missing")
        return found

    def _get_alone(self, name: str) -> bytes | None:
        try:
            return self.storage.get(name)
        except FileNotFoundError:
            self.problem(f"{name} is missing")
        except StoreError as error:
            self.problem(str(error).removeprefix(f"{self.storage.location}: "))
        return None

    def count(self, content: bytes) -> None:
        self.found.objects += 1
        self.found.checked_bytes += len(content)

    def _commits(self) -> list[Commit]:
        kept = []
        names = list(self.storage.names(commits.FOLDER))
        for name in names:
            if commit_numbers(name) is None:
                self.problem(f"{shown_name(name)} is no part of a store")
        names = [name for name in names if commit_numbers(name) is not None]
        for name, content in zip(names, self.get_many(names), strict=True):
            if content is None:
                continue
            self.count(content)
            try:
                commit = commits.decode(content, name)
            except CorruptStoreError as error:
                self.problem(str(error))
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
        except StoreError as error:
            self.problem(str(error).removeprefix(f"{self.storage.location}: "))
            return
        self.count(root)
        if known and digest(root) not in known:
            self.problem(f"{ROOT}, which holds the manifest, is not the object that the blocks were committed under")
            return
        try:
            self.found.manifest = decode_root(root, self.storage.location)
        except CorruptStoreError as error:
            self.problem(str(error))
            return
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
                self.problem(f"{shown_name(name)} is no part of a store")
        numbers = [number for number in map(part_number, [*names, *known]) if number is not None]
        expected = [part_name(number) for number in range(max(numbers, default=0) + 1)]
        parts: list[_Part] = []
        for name in expected:
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
        try:
            (content,) = self.storage.get_many([BASIS])
        except StoreError as error:
            self.problem(str(error).removeprefix(f"{self.storage.location}: "))
            return
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
            file = open_part(self.storage, name, content)
            require_room(content, file, list(COLUMNS))
        except (CorruptStoreError, ValueError) as error:
            self.problem(f"{name} is damaged: {str(error).removeprefix(f'{self.storage.location}: ')}")
            return None
        return int(file.metadata.num_rows)

    def _listing(self) -> None:
        """The listing that a web server needs: of what is there."""
        content, remedy = self.get(LISTING), "write it again with `logitstore export STORE --format listing`"
        try:
            listed = read_listing(content or b"", self.storage.location)
        except CorruptStoreError as error:
            self.problem(f"{str(error).removeprefix(f'{self.storage.location}: ')}; {remedy}")
            return
        there = read_listing(listing(self.storage.sizes()), self.storage.location)
        different = {name for name, _ in listed.items() ^ there.items()}
        if different:
            first = shown_name(min(different))
            self.problem(f"{LISTING} is not of what is there, the first difference is {first}; {remedy}")

    def _strangers(self, committed: Sequence[Commit]) -> None:
        """Objects that nothing names."""
        named = {commit.group: commit.objects.keys() for commit in committed}
        claimed = set(claims.claimed_shards(self.storage))
        folders = (BLOCKS, commits.FOLDER, CLIPS, claims.FOLDER, SCRATCH)
        loose: dict[str, int] = {}
        for name in self.storage.names():
            folder, _, rest = name.partition("/")
            if folder != BLOCKS:
                if name == LISTING:
                    self._listing()
                elif name not in (ROOT, BASIS) and (folder not in folders or not rest):
                    self.problem(f"{shown_name(name)} is no part of a store")
                continue
            group = "/".join(name.split("/")[:2])
            if group not in named:
                loose[group] = loose.get(group, 0) + 1
            elif name[len(group) + 1 :] not in named[group]:
                self.problem(f"{shown_name(name)} is an object that no commit names")
        for group, count in loose.items():
            match = _GROUP.fullmatch(group)
            if match and (self.partial or int(match[1]) in claimed):
                self.found.unfinished += count
            else:
                self.problem(f"{shown_name(group)} is a block without a commit ({count} object{'s' * (count > 1)})")

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
                if self.chosen is None or commit.name in self.chosen:
                    self._block(commit, part, first_clip, rows)
                    self.checked(commit.name, bool(self.found.sound) and self.found.sound[-1] is commit)
                failed |= {commit.first_clip + row for row, _ in commit.failed}
                done += 1
                self.advance(done, len(committed))
        for own in by_shard.values():  # beyond the clip table, or in a part of it that is damaged
            for commit in own:
                if self.found.manifest is not None and self.clips_sound:
                    self.problem(f"commits/{commit.name}.json is of a shard that the clip table does not have")
                if self.chosen is None or commit.name in self.chosen:
                    self.checked(commit.name, self._objects(commit) is not None)
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
            shard, clip = part.first_shard, part.first_clip
            try:
                for rows in self._rows(part.name, size):
                    yield shard, part, clip, self._checked_rows(rows, part, clip)
                    shard, clip = shard + 1, clip + size
            except (StoreError, pa.ArrowException, OSError) as error:
                self.problem(f"{part.name} is damaged: {' '.join(str(error).split())}")
                self.clips_sound = False
                return

    def _rows(self, name: str, size: int) -> Iterator[pa.Table]:
        """The clips of a part, so many at a time."""
        file = open_part(self.storage, name, self.storage.get(name))
        held: list[pa.Table] = []
        for batch in file.iter_batches(
            min(max(size, _BATCH_ROWS), _MOST_BATCH_ROWS), columns=list(COLUMNS), use_threads=False
        ):
            held.append(pa.Table.from_batches([batch]))
            if sum(table.num_rows for table in held) < size:
                continue
            rows = pa.concat_tables(held)
            whole = rows.num_rows // size * size
            for start in range(0, whole, size):
                yield rows.slice(start, size)
            held = [rows.slice(whole)]
        rest = pa.concat_tables(held) if held else None
        if rest is not None and rest.num_rows:
            yield rest

    def _checked_rows(self, rows: pa.Table, part: _Part, first_clip: int) -> pa.Table:
        try:
            check_clips(rows)
        except (ValueError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            self.problem(f"{part.name}: clips {first_clip} to {first_clip + rows.num_rows - 1}: {why}")
            return rows.slice(0, 0)
        length, rate = (rows[name].to_numpy() for name in ("length", "rate"))
        odd = np.flatnonzero((rate == 0) & (length != 0))
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
        problems = _block_problems(manifest, commit, contents, rows)
        self.found.problems += [f"block {commit.name}: {problem}" for problem in problems]
        if not problems:
            self.found.sound.append(commit)
            self.found.stored_views += (commit.clips - len(commit.failed)) * commit.views

    def _objects(self, commit: Commit) -> dict[str, bytes] | None:
        """The objects of a block; None where one is missing or not the one that was committed."""
        names = list(commit.objects)
        contents: dict[str, bytes] = {}
        for name, content in zip(names, self.get_many([f"{commit.group}/{name}" for name in names]), strict=True):
            if content is None:
                continue
            self.count(content)
            if digest(content) != commit.objects[name]:
                self.problem(f"{commit.group}/{name} is not the object that was committed")
                continue
            contents[name] = content
        return contents if len(contents) == len(names) else None


# one block, whose digests are right: does it hold what its commit, manifest and clips say?


def _block_problems(manifest: Manifest, commit: Commit, contents: Mapping[str, bytes], clips: pa.Table) -> list[str]:
    """What is wrong with a block, one line each.

    :param contents: its objects by name. :param clips: of its shard: path, start, length and rate.
    """
    try:
        arrays = _arrays(manifest, commit, contents)
    except (ValueError, KeyError) as error:
        return [f"it is not the arrays that the format names: {error}"]
    try:
        return list(_shape_problems(manifest, commit, arrays)) or [
            *_target_problems(manifest, commit, arrays),
            *_draw_problems(manifest, commit, arrays, clips),
            *_relation_problems(manifest, commit, arrays),
            *_frame_problems(manifest, commit, arrays),
        ]
    except (ValueError, IndexError) as error:
        return [f"it cannot be decoded: {error}"]


def _arrays(manifest: Manifest, commit: Commit, contents: Mapping[str, bytes]) -> dict[str, U8]:
    """Every array of the block; the objects are those of these arrays and no others."""
    if not is_group(contents[GROUP]):
        raise ValueError(f"{GROUP} is not of a group")
    planes = array_planes(manifest, commit.views)
    arrays = decode_arrays(manifest, commit, contents.__getitem__, list(planes), sum(map(len, contents.values())))
    holders = held_in(manifest, arrays)
    named = {GROUP} | {f"{name}/{GROUP}" for name in holders}
    named |= {
        f"{name}/c/{plane}/0"
        for name, array in arrays.items()
        if array.size and name in holders
        for plane in range(len(array))
    }
    named |= {f"{holder}/c/0/0" for holder in (PACKED, FRAMES) if holder in holders}
    extra = sorted(contents.keys() - named)
    if extra:
        raise ValueError(f"{extra[0]} belongs to none of its arrays")
    return arrays


def _shape_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    count = int(np.count_nonzero(arrays["classes"] < 255))
    if arrays["views"].shape[1] != count:
        yield f"views has {arrays['views'].shape[1]} columns for {count} entries"
        return
    class_count, version = len(manifest.classes), manifest.format_version
    entries = layout.decode_entries(arrays, commit.clips, commit.views, class_count, version, commit.bits)
    numbers = entries.numbers
    present = int(entries.present.sum())
    expected = {"firsts": len(numbers)}
    if version >= layout.BY_CLASS:
        expected |= dict.fromkeys({"lowest", "rests"} & arrays.keys(), commit.clips * commit.views)
    else:
        expected["residuals"] = present - len(numbers)
    if "members" in arrays:
        expected["members"] = present
    if "draws" in arrays:
        expected["draws"] = commit.clips * commit.views
    if manifest.relations is not None:
        views = commit.clips * commit.views
        expected |= {name: length * views for name, length in manifest.relations.lengths.items()}
    for name, length in expected.items():
        if arrays[name].shape[1] != length:
            yield f"{name} has {arrays[name].shape[1]} columns, not {length}"
    spare = -commit.views % 8
    if spare and len(numbers) and int((arrays["views"][-1] >> (8 - spare)).max()):
        yield f"views names a view beyond its {commit.views}"
    if not entries.present.any(axis=1).all():
        yield "an entry is in no view"


def _target_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    class_count, kept = len(manifest.classes), commit.kept
    readable = np.ones(commit.clips, dtype=bool)
    readable[[row for row, _ in commit.failed]] = False
    entries = layout.decode_entries(
        arrays, commit.clips, commit.views, class_count, manifest.format_version, commit.bits
    )  # fmt: skip
    held = np.zeros((commit.clips, commit.views), dtype=np.int64)
    np.add.at(held, entries.numbers // class_count, entries.present)
    least = k = manifest.topk
    if kept is not msgspec.UNSET:
        least, k = 1, kept.most
    low, high = (np.where(readable, each, 0)[:, None] for each in (least, k))
    wrong = np.argwhere((held < low) | (held > high))
    if len(wrong):
        row, view = (int(index) for index in wrong[0])
        allowed = str(k) if least == k else f"1 to {k}"
        yield (
            f"clip {commit.first_clip + row}, view {commit.view_start + view} has {held[row, view]} classes, "
            f"not {allowed if readable[row] else 0}{'' if readable[row] else ', for it failed'} "
            f"(of {len(wrong)} such views)"
        )
        return
    if kept is not msgspec.UNSET and readable.any() and int(held.max()) != kept.most:
        yield f"its commit says that its views keep up to {kept.most} classes, and none keeps more than {held.max()}"
    targets, members = layout.decode_block(
        arrays, commit.clips, commit.views, k, class_count, manifest.format_version, commit.bits
    )
    codes: dict[str, Any] = {"a target": targets.codes[readable]}
    if members is not None:
        codes["a member"] = members[:, readable]
    table = manifest.quantizer.table()
    for what, values in codes.items():
        if values.size and (int(values.max()) >= len(table) or not (table[values] > 0).all()):
            yield f"{what} has a code that is no probability in (0, 1)"


def _draw_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8], clips: pa.Table) -> Iterator[str]:
    """Draws outside of their recipe's ranges, or other than what the seed gives."""
    recipe, imported = manifest.recipe, manifest.device_kind == IMPORTED
    if not recipe.columns:
        return
    draws = Draws(layout.decode_draws(manifest.columns, arrays["draws"], commit.views))
    rows = np.arange(commit.clips)[:, None]
    outside = recipe.impossible(draws, rows, commit.clips, manifest.place, imported=imported)
    for name, bad in outside.items():
        if bad.any():
            yield f"{_first(commit, bad)}: {name} {int(draws.columns[name][bad][0])} is outside of its range"
    if imported or any(bad.any() for bad in outside.values()):
        return
    plan = BlockPlan(commit.shard, range(commit.first_clip, commit.first_clip + commit.clips),
                     commit.view_start, commit.view_stop)  # fmt: skip
    expected = Draws(block_draws(manifest, Part("", "", clips, commit.first_clip, commit.shard), plan))
    partners = recipe.partners(draws)
    if partners is not None:  # one that could not be decoded is left out of the draw
        expected = recipe.without_partner(expected, partners < 0)
    for name in recipe.columns:
        stored, drawn = draws.columns[name], expected.columns[name]
        other = stored != drawn
        if other.any():
            yield (
                f"{_first(commit, other)}: {name} is {int(stored[other][0])} and the seed gives "
                f"{int(drawn[other][0])} (of {int(other.sum())} such views)"
            )


def _relation_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    """Codes that no encoder gives."""
    spec = manifest.relations
    if spec is None:
        return
    codes = from_arrays(spec, arrays, commit.clips, commit.views)
    failed = np.zeros(commit.clips, dtype=bool)
    failed[[row for row, _ in commit.failed]] = True
    if codes[failed].any():
        yield "a clip that failed has relations"
    kept = codes[~failed]
    if spec.frames is not None:
        loudest = kept[:, :, : spec.frames].max(axis=2)
        if not np.isin(loudest, (0, 255)).all():
            yield f"the frame norms of a view go up to {int(loudest[(loudest > 0) & (loudest < 255)][0])}, not to 255"
    if spec.clips is not None:
        vectors = kept[:, :, spec.width - spec.clips - 1 :]
        if not vectors.all():
            yield "the vector of a clip has a code 0, which is none"


def _frame_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    """Runs that no encoder gives; those that no view can have are refused as they are decoded."""
    if manifest.frames is None:
        return
    runs = frames_from_arrays(manifest.frames, arrays, commit.clips * commit.views, len(manifest.classes))
    failed = np.zeros(commit.clips, dtype=bool)
    failed[[row for row, _ in commit.failed]] = True
    if runs.counts.reshape(commit.clips, commit.views)[failed].any():
        yield "a clip that failed has frames"
    if len(runs.codes) and int(runs.codes.min()) < (
        lowest := int(manifest.frames.quantizer.encode(manifest.frames.floor))
    ):
        yield f"a frame has the code {int(runs.codes.min())}, and the floor {manifest.frames.floor:g} is code {lowest}"


def _first(commit: Commit, where: npt.NDArray[np.bool_]) -> str:
    row, view = (int(index) for index in np.argwhere(where)[0])
    return f"clip {commit.first_clip + row}, view {commit.view_start + view}"


def shown_name(name: str) -> str:
    """A name as a line shows it: as it is, or quoted where it has letters that do not print."""
    return name if name.isprintable() else shown(name)
