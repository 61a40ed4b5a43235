"""Pieces read as one: their clips and shards numbered through, the views that all of them have.

One piece is the usual case, and costs nothing here. Several must agree on what a reader relies on: classes and their
order, score kind, k, rate, length of a view, recipe. Seeds, teachers, bits and shard sizes may differ. Nothing is
copied; every question goes to the piece that knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, I64, U16
from logitstore.digests import digest
from logitstore.errors import MismatchError, UsageError
from logitstore.store.format import layout
from logitstore.store.format.commits import Commit
from logitstore.store.format.frames import Frames, FrameSpec, common_spec, decode_frames, joined_frames
from logitstore.store.format.manifest import Manifest, Member
from logitstore.store.format.relations import Relations, RelationSpec
from logitstore.store.piece import Piece
from logitstore.store.storage import Storage
from logitstore.views.fingerprint import Recorded
from logitstore.views.recipe import Draws

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.clips import ClipAudio
    from logitstore.store.format.basis import Basis
    from logitstore.store.keys import Group, StoredKeys


@dataclass(frozen=True)
class Failure:
    """A clip that has no targets: its number, its path, ``start_s`` in seconds of its file (None where the file could
    not be read), the reason, and the views [view_start, view_stop) of the blocks that it failed in."""

    clip: int
    path: str
    start_s: float | None
    reason: str
    view_start: int
    view_stop: int

    @property
    def place(self) -> str:
        """For people: its path and, unless it begins with its file, the second that it starts at."""
        return f"{self.path} from {self.start_s:g} s" if self.start_s else self.path


class Pieces:
    """One or several pieces of a store under one numbering.

    Clip ``offsets[i] + c`` is clip c of ``pieces[i]``; shards are numbered through likewise. ``manifest`` is the first
    piece's, with the teachers of all.

    :raises UsageError: no piece, or one of them twice.
    :raises MismatchError: two that do not fit; what differs is named with both values.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        if not pieces:
            raise UsageError("no store was given; give at least one")
        refuse_twice(pieces)
        for piece in self.pieces[1:]:
            _require_fitting(self.pieces[0], piece)
        self.manifest = pieces[0].manifest if len(pieces) == 1 else _common_manifest(self.pieces)
        #: The file of the table ``verdicts``; None for ``verdicts.csv`` beside the store, where there is one.
        self.verdicts: str | None = None
        self._near: tuple[Group, pa.Table] | None = None  # rows of the clip table

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.pieces,)

    @property
    def audible(self) -> bool:
        """Whether it was opened with its audio: then there is the SQL table ``levels``."""
        return False

    @property
    def audio(self) -> ClipAudio | None:
        """The clips' own audio by number, ``store.audio[clip]`` float32 (n,); None of a store opened without."""
        return None

    @property
    def location(self) -> str:
        """What a user calls the store."""
        return " + ".join(piece.location for piece in self.pieces)

    @property
    def storage(self) -> Storage:
        """Where the one piece lies.

        :raises UsageError: there are several.
        """
        if len(self.pieces) > 1:
            raise UsageError(f"{self.location} are several stores, and this needs one; ask each of them")
        return self.pieces[0].storage

    @property
    def root_digest(self) -> str:
        """Digest of the object that holds the manifest; of several pieces, of their digests."""
        digests = [piece.root_digest for piece in self.pieces]
        return digests[0] if len(digests) == 1 else digest("".join(digests).encode())

    @property
    def decoded_bytes(self) -> int | None:
        """Size of each piece's file of decoded targets at most; see :mod:`logitstore.store.decoded`."""
        return self.pieces[0].decoded_bytes

    @decoded_bytes.setter
    def decoded_bytes(self, most: int | None) -> None:
        for piece in self.pieces:
            piece.decoded_bytes = most

    # the numbering

    @functools.cached_property
    def offsets(self) -> I64:
        """The first clip of every piece, and one past the last clip: int64 (pieces + 1,)."""
        return np.cumsum([0, *(sum(piece.part_clips) for piece in self.pieces)])

    @functools.cached_property
    def shard_offsets(self) -> I64:
        """The first shard of every piece, and one past the last shard: int64 (pieces + 1,)."""
        return np.cumsum([0, *(piece.shards for piece in self.pieces)])

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """The commits, by shard and first view; of several pieces, those of the views that all have."""
        if len(self.pieces) == 1:
            return self.pieces[0].commits
        return tuple(commit for commit, _, _ in self._origins.values())

    @functools.cached_property
    def _origins(self) -> dict[str, tuple[Commit, int, Commit]]:
        """Of several pieces, every commit of ours by its name, the number of its piece and the piece's own commit."""
        found = {}
        for number, piece in enumerate(self.pieces):
            for own in piece.commits:
                if own.view_start < self.views:
                    commit = msgspec.structs.replace(
                        own,
                        shard=own.shard + int(self.shard_offsets[number]),
                        first_clip=own.first_clip + int(self.offsets[number]),
                        view_stop=min(own.view_stop, self.views),
                        fingerprints=tuple(each for each in own.fingerprints if each.view < self.views),
                    )
                    found[commit.name] = (commit, number, own)
        return found

    def _origin(self, commit: Commit) -> tuple[int, Commit]:
        return (0, commit) if len(self.pieces) == 1 else self._origins[commit.name][1:]

    @property
    def views(self) -> int:
        """Number of views V: one more than the highest view of any block, of the piece that has the fewest."""
        return min(piece.views for piece in self.pieces)

    # the clip table

    @functools.cached_property
    def clips(self) -> pa.Table:
        """The clip table: clip (int64, its number), path, start, length (frames), rate (Hz), the user's columns.

        A column that a piece lacks is NULL for its clips.

        :raises CorruptStoreError: a file of the table is not the one that the commits name.
        :raises MismatchError: a column has another type, or case, in another piece.
        """
        import pyarrow as pa

        tables = [piece.clips for piece in self.pieces]
        if len(tables) == 1:
            return tables[0]
        joined_schema([table.schema for table in tables], [piece.location for piece in self.pieces])
        table = pa.concat_tables([each.drop_columns(["clip"]) for each in tables], promote_options="default")
        return table.add_column(0, "clip", pa.array(np.arange(table.num_rows)))

    @functools.cached_property
    def keys(self) -> StoredKeys:
        """Path, start, length and rate of each clip, read where they are asked for."""
        from logitstore.store.keys import StoredKeys

        return StoredKeys(self.pieces)

    def lengths(self, clips: I64) -> I64:
        """The clips' own lengths in samples at the store's rate, before padding: int64 (n,)."""
        (lengths,) = self._gather(clips, lambda piece, own: (piece.lengths(own),))
        return lengths

    def clip_row(self, clip: int) -> dict[str, Any]:
        """The row of a clip in :attr:`clips`; those near it are read with it, and kept until others are asked for."""
        group = self.keys.group_of(clip)
        near = self._near  # once, for another thread may ask for others meanwhile
        if near is None or near[0] is not group:
            near = self._near = group, group.read()
        (row,) = near[1].slice(clip - group.clips.start, 1).to_pylist()
        names = dict.fromkeys(name for each in self.keys.groups for name in each.file.schema_arrow.names)
        return {"clip": clip, **{name: row.get(name) for name in names}}

    def clip_rows(self, clips: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of the clip table of some clips, in their order; only the rows near them are read.

        :raises UsageError: there is no such clip.
        :raises CorruptStoreError: a file of the table is not the one that was committed.
        """
        found: dict[int, dict[str, Any]] = {}
        for piece, first, _, own in self._split(np.unique(np.asarray(clips, np.int64))):
            rows = piece.clip_rows(own.tolist(), columns)
            found |= {first + number: row for number, row in zip(own.tolist(), rows, strict=True)}
        return [found[clip] for clip in clips]

    # views, in any order of clips

    def clips_of(self, view: int) -> I64:
        """The clips, rising, that have targets for a view.

        :param view: in [0, V).
        :returns: int64 (n,).
        :raises UsageError: there is no such view.
        """
        self._require_view(view)
        if len(self.pieces) == 1:
            return self.pieces[0].clips_of(view)
        return np.concatenate(
            [piece.clips_of(view) + first for piece, first in zip(self.pieces, self.offsets, strict=False)]
        )

    def targets(self, view: int, clips: Any) -> tuple[U16, F32]:
        """What the ensemble said of one view of some clips.

        The views of a store with a quality keep different numbers of classes, k the most that any keeps. The places
        that a view does not use are its last: they have the class C, which there is none of, and the probability 0.
        What stands for the classes that it does not keep is :meth:`rests`.

        :param view: in [0, V).
        :param clips: integers (n,), in any order, repeats allowed.
        :returns: classes uint16 (n, k) and probabilities float32 (n, k) in (0, 1), falling; ties by rising class.
        :raises UsageError: a clip has no targets for this view: it failed, or its block is missing.
        :raises CorruptStoreError: an object is not the one that was committed.
        """
        self._require_view(view)
        classes, probabilities = self._gather(clips, lambda piece, own: self._widened(*piece.targets(view, own)))
        return classes, probabilities

    def require_targets(self, view: int, clips: Any) -> None:
        """Refuse clips that :meth:`targets` refuses, sooner: objects are read and compared, and not decoded.

        :raises UsageError: a clip has no targets for this view: it failed, or its block is missing.
        :raises CorruptStoreError: an object is not the one that was committed.
        """

        def ask(piece: Piece, own: I64) -> list[I64]:
            piece.require_targets(view, own)
            return [own]

        self._require_view(view)
        self._gather(clips, ask)

    def rests(self, view: int, clips: Any) -> F32:
        """What stands for each class that a view does not keep: its probability, float32 (n,), of some clips.

        :param view, clips: as of :meth:`targets`.
        :raises MismatchError: a store without a quality, which knows nothing of these classes.
        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        self._require_view(view)
        (rests,) = self._gather(clips, lambda piece, own: (piece.rests(view, own),))
        return rests

    @functools.cached_property
    def k(self) -> int:
        """Places for classes that a view has: ``topk``, or the most that any view of a store with a quality keeps."""
        return max(piece.k for piece in self.pieces)

    def _widened(self, classes: U16, probabilities: F32) -> tuple[U16, F32]:
        """The same with unused places up to k."""
        more = [(0, 0)] * (classes.ndim - 1) + [(0, self.k - classes.shape[-1])]
        if not more[-1][1]:
            return classes, probabilities
        wide = np.pad(classes, more, constant_values=len(self.manifest.classes))
        return wide, np.pad(probabilities, more)

    def draws(self, view: int, clips: Any = None) -> Draws:
        """The draws of one view of some clips, by default of all that have targets; int64 (n,) a column."""
        self._require_view(view)
        names = [column.name for column in self.manifest.columns]
        chosen = self.clips_of(view) if clips is None else clips
        drawn = self._gather(chosen, lambda piece, own: list(piece.draws(view, own).values()))
        return Draws(dict(zip(names, drawn, strict=True)))

    def partners(self, clips: I64, draws: Draws) -> I64 | None:
        """The clip that each of n views is mixed with, int64 (n,), -1 for none; None under a recipe without mixup.

        :param clips: int64 (n,). :param draws: of one view of each.
        """
        rows = self.manifest.recipe.partners(draws)
        return None if rows is None else np.where(rows < 0, -1, self.shard_starts(clips) + rows)

    def shard_starts(self, clips: I64) -> I64:
        """The first clip of the shard of each of some clips that are in blocks: int64 (n,)."""
        firsts = self._shard_firsts
        return np.asarray(firsts[np.searchsorted(firsts, clips, side="right") - 1], np.int64)

    @functools.cached_property
    def _shard_firsts(self) -> I64:
        return np.unique(np.array([commit.first_clip for commit in self.commits], dtype=np.int64))

    def fingerprinted(self, count: int) -> list[Recorded]:
        """Up to ``count`` of the views that have fingerprints, spread over the store."""
        known = [(commit.first_clip + each.row, each) for commit in self.commits for each in commit.fingerprints]
        chosen = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).astype(int))]
        found = []
        for clip, stored in chosen:
            draws = self.draws(stored.view, [clip])
            partners = self.partners(np.array([clip]), draws)
            partner = -1 if partners is None else int(partners[0])
            found.append(Recorded(clip, self.keys[clip][0], draws, partner, stored))
        return found

    def failures(self, most: int | None = None) -> list[Failure]:
        """The clips that have no targets, and why, by clip.

        :param most: only the first of them; all by default.
        """
        found: list[Failure] = []
        for piece, first in zip(self.pieces, self.offsets if len(self.pieces) > 1 else [0], strict=False):
            reasons = failed_clips(piece.commits)
            if not reasons:
                continue
            spans: dict[int, tuple[int, int]] = {}
            for commit in piece.commits:
                for row, _ in commit.failed:
                    low, high = spans.get(clip := commit.first_clip + row, (commit.view_start, commit.view_stop))
                    spans[clip] = min(low, commit.view_start), max(high, commit.view_stop)
            clips = sorted(reasons)[: None if most is None else most - len(found)]
            for clip, key in zip(clips, piece.clip_rows(clips, ["path", "start", "rate"]), strict=True):
                start_s = key["start"] / key["rate"] if key["rate"] > 0 else None
                found.append(Failure(int(first) + clip, key["path"], start_s, reasons[clip], *spans[clip]))
        return found

    # relations

    def relations(self, view: int, clips: Any) -> Relations:
        """What the store keeps of the teachers' features of one view of some clips.

        :param view: in [0, V). :param clips: integers (n,), in any order, repeats allowed.
        :raises MismatchError: a store without relations.
        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        spec = self.require_relations()
        self._require_view(view)

        def ask(piece: Piece, own: I64) -> tuple[F32, ...]:
            return _kept(spec, piece.relations(view, own))

        return _relations(spec, self._gather(clips, ask))

    @property
    def basis(self) -> Basis:
        """The basis of the clips' vectors, of a store that has them.

        :raises MismatchError: a store without them.
        :raises CorruptStoreError: it is missing, or not the one that blocks were committed with.
        """
        self.require_relations(clips=True)
        return self.pieces[0].basis

    def require_relations(self, *, frames: bool = False, clips: bool = False) -> RelationSpec:
        """What relations there are.

        :param frames: whether those of IUSP are needed. :param clips: whether those of SP are.
        :raises MismatchError: the store has none, or not those; it says how to build them.
        """
        wanted = ",".join(name for name, needed in (("frames", frames), ("clips", clips)) if needed)
        how = f"build a store with: logitstore build … --relations {wanted or 'frames,clips'}"
        for piece in self.pieces:
            own = piece.manifest.relations
            if own is None:
                raise MismatchError(f"{piece.location} has no relations, which the similarity losses need; {how}")
            if (frames and own.frames is None) or (clips and own.clips is None):
                raise MismatchError(f"{piece.location} has the relations {own.names}, and {wanted} are needed; {how}")
        spec = self.manifest.relations
        if spec is None or (frames and spec.frames is None) or (clips and spec.clips is None):
            stored = " and ".join(
                f"{piece.manifest.relations.pooled} frames"
                + (f", basis {str(piece.basis_digest)[:12]}" if clips else "")
                for piece in self.pieces
                if piece.manifest.relations is not None
            )
            raise MismatchError(
                f"the relations of {self.location} cannot be read as one ({stored}): frames need one "
                "--similarity-frames, and clips one basis, which a store shares with nothing but its own extensions; "
                "extend one store instead"
            )
        return spec

    # when

    def frames(self, view: int, clips: Any) -> Frames:
        """What the store says of when, of one view of some clips: its runs, and ``.dense()``, float32 (n, T, C).

        :param view: in [0, V). :param clips: integers (n,), in any order, repeats allowed.
        :raises MismatchError: a store that does not say when.
        :raises UsageError, CorruptStoreError: as :meth:`targets`.
        """
        spec = self.require_frames()
        self._require_view(view)
        wanted = np.asarray(clips, dtype=np.int64)
        classes = len(self.manifest.classes)
        if len(self.pieces) == 1 or not len(wanted):
            return decode_frames(self.pieces[0].frames(view, wanted), spec, classes)
        found = []
        for piece, _, where, own in self._split(wanted):
            own_spec = piece.manifest.frames or spec
            found.append((where, decode_frames(piece.frames(view, own), own_spec, classes)))
        return joined_frames(found, len(wanted))

    def require_frames(self) -> FrameSpec:
        """How the store says when: ``hop`` in seconds, ``count`` frames a view.

        :raises MismatchError: it does not, or its pieces do so with another hop each.
        """
        parts = [part for piece in self.pieces for part in piece.parts]
        for part in parts:
            if part.manifest.frames is None:
                raise MismatchError(
                    f"{part.location} does not say when its classes sound; build a store with: logitstore build … "
                    "--frames 40"
                )
        spec = self.manifest.frames
        if spec is None:
            said = " and ".join(
                f"{own.hop_ms} ms in {part.location}" for part in parts if (own := part.manifest.frames) is not None
            )
            raise MismatchError(
                f"the frames of {self.location} are not of one hop ({said}); give stores that agree on it"
            )
        return spec

    # block by block

    def block_frames(self, commit: Commit) -> Frames:
        """The runs of a block, by row and then by view: its R * V views; none of rows that failed.

        :raises MismatchError: a store that does not say when.
        """
        spec = self.require_frames()
        number, own = self._origin(commit)
        piece = self.pieces[number]
        runs = piece.block_frames(own)
        if own.views != commit.views:
            runs = runs.take(np.flatnonzero(np.arange(own.clips * own.views) % own.views < commit.views))
        return decode_frames(runs, piece.manifest.frames or spec, len(self.manifest.classes))

    def block_targets(self, commit: Commit) -> tuple[U16, F32]:
        """Classes uint16 and probabilities float32, each (R, V, k), of a block; zero in the rows that failed."""
        number, own = self._origin(commit)
        classes, probabilities = self._widened(*self.pieces[number].block_targets(own))
        classes[[row for row, _ in commit.failed]] = 0
        return classes[:, : commit.views], probabilities[:, : commit.views]

    def block_rests(self, commit: Commit) -> F32:
        """What stands for each class that a view does not keep, float32 (R, V), of a block; 0 in rows that failed.

        :raises MismatchError: as :meth:`rests`.
        """
        number, own = self._origin(commit)
        return self.pieces[number].block_rests(own)[:, : commit.views]

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        """Draw columns of a block, each int64 (R, V)."""
        number, own = self._origin(commit)
        return {name: values[:, : commit.views] for name, values in self.pieces[number].block_draws(own).items()}

    def block_members(self, commit: Commit) -> F32 | None:
        """Each member's probabilities at the ensemble's classes, float32 (M, R, V, k); None where none were kept.

        NaN for a teacher that the block's piece lacks, and in places that a view does not use.
        """
        if not self.manifest.keep_members:
            return None
        number, own = self._origin(commit)
        said = self.pieces[number].block_members(own)[:, :, : commit.views]
        more = self.k - said.shape[3]
        if more:
            said = np.pad(said, [(0, 0)] * 3 + [(0, more)], constant_values=np.nan)
        if len(self.pieces) == 1:
            return said
        found = np.full((len(self.manifest.teachers), *said.shape[1:]), np.nan, np.float32)
        found[self.block_teachers(commit)] = said
        return found

    def block_teachers(self, commit: Commit) -> list[int]:
        """The teachers that made a block, by their positions in the manifest."""
        number, _ = self._origin(commit)
        own = self.pieces[number].manifest.teachers
        if len(self.pieces) == 1:
            return list(range(len(own)))
        return [self.manifest.teachers.index(member) for member in own]

    def block_classes(self, commit: Commit) -> tuple[layout.Entries, int]:
        """The entries of a block (see ``layout``) and its number of classes: enough to count classes, undecoded."""
        number, own = self._origin(commit)
        entries, class_count = self.pieces[number].block_classes(own), len(self.manifest.classes)
        if own.views == commit.views:
            return entries, class_count
        present = entries.present[:, : commit.views]
        kept = present.any(axis=1)
        return layout.Entries(entries.numbers[kept], present[kept]), class_count

    def block_relations(self, commit: Commit) -> Relations:
        """The relations of a block, by row and then by view: (R * V, …); those of rows that failed mean nothing.

        :raises MismatchError: a store without relations.
        """
        spec = self.require_relations()
        number, own = self._origin(commit)
        kept = np.arange(own.clips * own.views) % own.views < commit.views
        found = _kept(spec, self.pieces[number].block_relations(own))
        return _relations(spec, [values[kept] for values in found])

    def size(self) -> int:
        """Bytes of everything in the store, scratch and claims aside."""
        return sum(sum(piece.sizes().values()) for piece in self.pieces)

    def view_count(self) -> int:
        """Number of views that have targets, summed over clips."""
        return sum(commit.stored_views for commit in self.commits)

    # which piece knows

    def _require_view(self, view: int) -> None:
        if len(self.pieces) > 1 and not 0 <= view < self.views:  # a single piece says so itself
            has = f"views 0 to {self.views - 1} in common" if self.views else "no view in common"
            raise UsageError(f"{self.location} has no view {view}; it has {has}")

    def _gather(self, clips: Any, ask: Callable[[Piece, I64], Sequence[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
        """What the pieces say of their clips: some arrays with an entry a clip, in the order of ``clips``.

        :param ask: gives the same number of arrays of every piece, for its own numbers of clips.
        """
        wanted = np.asarray(clips, dtype=np.int64)
        if len(self.pieces) == 1 or not len(wanted):
            return list(ask(self.pieces[0], wanted))
        gathered: list[npt.NDArray[Any]] = []
        for piece, first, where, own in self._split(wanted):
            try:
                said = ask(piece, own)
            except UsageError as error:
                raise UsageError(f"of {piece.location}, whose clip 0 is clip {first} here: {error}") from error
            if not gathered:
                gathered = [np.zeros((len(wanted), *values.shape[1:]), values.dtype) for values in said]
            for every, values in zip(gathered, said, strict=True):
                every[where] = values
        return gathered

    def _split(self, clips: I64) -> Iterator[tuple[Piece, int, I64, I64]]:
        """(piece, its first clip, positions in ``clips``, its own numbers) for the pieces that hold the clips."""
        total = int(self.offsets[-1])
        outside = (clips < 0) | (clips >= total)
        if outside.any():
            raise UsageError(f"clip {int(clips[outside][0])} is not in {self.location}; it has clips 0 to {total - 1}")
        home = np.searchsorted(self.offsets, clips, side="right") - 1
        for number, piece in enumerate(self.pieces):
            where = np.flatnonzero(home == number)
            if len(where):
                first = int(self.offsets[number])
                yield piece, first, where, clips[where] - first


def refuse_twice(pieces: Sequence[Piece]) -> None:
    """:raises UsageError: one of them is there twice."""
    places = [piece.location for piece in pieces]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise UsageError(f"the store {twice[0]} is given twice; its clips would count twice")


def failed_clips(commits: Sequence[Commit]) -> dict[int, str]:
    """The clips without targets, and why."""
    return {commit.first_clip + row: reason for commit in commits for row, reason in commit.failed}


def joined_schema(schemas: Sequence[pa.Schema], places: Sequence[str]) -> pa.Schema:
    """One schema of several clip tables: the columns of all, in the order in which they come up.

    :raises MismatchError: a column has two types, or two names that differ by case, which SQL does not tell apart.
    """
    import pyarrow as pa

    known: dict[str, tuple[pa.Field, str]] = {}
    for schema, place in zip(schemas, places, strict=True):
        for field in schema:
            here, where = known.setdefault(field.name.lower(), (field, place))
            if pa.types.is_null(here.type) and here.name == field.name:
                known[field.name.lower()] = (field, place)
            elif here.name != field.name:
                raise MismatchError(
                    f"the clips of {where} have a column {here.name!r} and those of {place} {field.name!r}, which SQL "
                    "cannot tell apart; build one of them with the other's name"
                )
            elif here.type != field.type and not pa.types.is_null(field.type):
                raise MismatchError(
                    f"the column {field.name!r} of the clips is {here.type} in {where} and {field.type} in {place}; "
                    "give stores that agree on it"
                )
    return pa.schema([pa.field(field.name, field.type) for field, _ in known.values()])


def _kept(spec: RelationSpec, found: Relations) -> tuple[F32, ...]:
    """Those arrays of relations that a store has, which may be fewer than its pieces have."""
    kept = (spec.frames is not None and found.frames, spec.clips is not None and found.clips)
    return tuple(values for values in kept if isinstance(values, np.ndarray))


def _relations(spec: RelationSpec, arrays: Sequence[F32]) -> Relations:
    """The inverse of :func:`_kept`."""
    left = iter(arrays)
    return Relations(next(left) if spec.frames is not None else None, next(left) if spec.clips is not None else None)


def _common_manifest(pieces: Sequence[Piece]) -> Manifest:
    """The first piece's manifest, with the teachers of all and what all of them keep."""
    teachers: dict[bytes, Member] = {}
    for piece in pieces:
        teachers |= {msgspec.json.encode(member): member for member in piece.manifest.teachers}
    return msgspec.structs.replace(
        pieces[0].manifest,
        teachers=tuple(teachers.values()),
        keep_members=all(piece.manifest.keep_members for piece in pieces),
        relations=_common_relations(pieces),
        frames=common_spec([piece.manifest.frames for piece in pieces]),
    )


def _common_relations(pieces: Sequence[Piece]) -> RelationSpec | None:
    """The relations that pieces can be asked for as one: frames of one size, clips of one basis."""
    specs = [piece.manifest.relations for piece in pieces]
    first = specs[0]
    if first is None or any(spec is None or spec.pooled != first.pooled for spec in specs):
        return None
    frames = first.frames if all(spec is not None and spec.frames is not None for spec in specs) else None
    one_basis = len({piece.basis_digest for piece in pieces}) == 1
    clips = first.clips if one_basis and all(spec is not None and spec.clips is not None for spec in specs) else None
    return None if frames is None and clips is None else RelationSpec(frames=frames, clips=clips, pooled=first.pooled)


def _require_fitting(first: Piece, other: Piece) -> None:
    """Refuse a piece that cannot be read as one with another.

    :raises MismatchError: what differs, with both values.
    """
    old, new = first.manifest, other.manifest
    reasons = []
    if old.classes != new.classes:
        reasons.append(f"classes: {_class_difference(old.classes, new.classes)}")
    fixed = () if old.quality is not None and new.quality is not None else ("topk",)
    for name in ("scores", *fixed, "sample_rate", "clip_seconds"):
        here, there = getattr(old, name), getattr(new, name)
        if here != there:
            reasons.append(f"{name}: {here} and {there}")
    if (old.quality is None) != (new.quality is None):
        reasons.append(f"quality: {old.quality} and {new.quality}")
    ops = [manifest.recipe.to_dict()["ops"] for manifest in (old, new)]
    if ops[0] != ops[1]:
        shown = [msgspec.json.encode(manifest.recipe_document).decode() for manifest in (old, new)]
        reasons.append(f"recipe: {shown[0]} and {shown[1]}")
    if reasons:
        raise MismatchError(
            f"{first.location} and {other.location} cannot be read as one: {'; '.join(reasons)}; "
            "give stores that agree on these"
        )


def _class_difference(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    if set(old) == set(new):
        place = next(index for index, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        return f"the same in another order, class {place} is {old[place]!r} and {new[place]!r}"
    examples = []
    for here, there in ((old, new), (new, old)):
        alone = [name for name in here if name not in set(there)]
        examples.append(f"{len(here)}, {len(alone)} of them alone" + (f" as {alone[0]!r}" if alone else ""))
    return " and ".join(examples)
