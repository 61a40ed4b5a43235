"""Several stores read as one: their clips numbered through, the views that all of them have.

They must agree on what a reader relies on: classes and their order, score kind, k, rate, length of a view, recipe.
Seeds, teachers, bits and shard sizes may differ. Nothing is copied; every question goes to the store that knows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from logitstore.arrays import F32, I64, U16
from logitstore.digests import digest
from logitstore.errors import MismatchError, UsageError
from logitstore.store.format import layout
from logitstore.store.format.commits import Commit
from logitstore.store.format.manifest import Manifest, Member
from logitstore.store.format.relations import Relations, RelationSpec
from logitstore.store.reader import Store
from logitstore.store.related import basis_digest, require_relations
from logitstore.store.storage import Storage
from logitstore.views.recipe import Draws

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.format.basis import Basis


def combine(stores: Sequence[Store]) -> Store:
    """Stores as one; a single one is itself.

    :raises UsageError: none, or one of them twice.
    :raises MismatchError: they do not fit; the reason is named with both values.
    """
    if not stores:
        raise UsageError("no store was given; give at least one")
    places = [store.location for store in stores]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise UsageError(f"the store {twice[0]} is given twice; its clips would count twice")
    for store in stores[1:]:
        require_fitting(stores[0], store)
    return stores[0] if len(stores) == 1 else CombinedStore(stores)


def members(store: Store) -> tuple[Store, ...]:
    """The stores that a store consists of: itself, unless it is a combined one."""
    return store.members if isinstance(store, CombinedStore) else (store,)


def require_fitting(first: Store, other: Store) -> None:
    """Refuse a store that cannot be read as one with another.

    :raises MismatchError: what differs, with both values.
    """
    old, new = first.manifest, other.manifest
    reasons = []
    if old.classes != new.classes:
        reasons.append(f"classes: {_class_difference(old.classes, new.classes)}")
    for name in ("scores", "topk", "sample_rate", "clip_seconds"):
        here, there = getattr(old, name), getattr(new, name)
        if here != there:
            reasons.append(f"{name}: {here} and {there}")
    ops = [manifest.recipe.to_dict()["ops"] for manifest in (old, new)]
    if ops[0] != ops[1]:
        shown = [msgspec.json.encode(manifest.recipe_document).decode() for manifest in (old, new)]
        reasons.append(f"recipe: {shown[0]} and {shown[1]}")
    if reasons:
        raise MismatchError(
            f"{first.location} and {other.location} cannot be read as one: {'; '.join(reasons)}; "
            "give stores that agree on these"
        )


class CombinedStore(Store):
    """Stores that fit, as one. Open it with ``open_store([a, b])``.

    Clip ``offsets[i] + c`` is clip c of ``members[i]``; shards are numbered through likewise. ``views`` are the views
    that every member has. ``manifest`` is the first one's, with the teachers of all.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.members = tuple(stores)
        first = self.members[0].manifest
        teachers: dict[bytes, Member] = {}
        for store in self.members:
            teachers |= {msgspec.json.encode(member): member for member in store.manifest.teachers}
        self.manifest: Manifest = msgspec.structs.replace(
            first,
            teachers=tuple(teachers.values()),
            keep_members=all(store.manifest.keep_members for store in self.members),
            relations=_common_relations(self.members),
        )
        self.root_digest = digest("".join(store.root_digest for store in self.members).encode())

    def __reduce__(self) -> tuple[Any, ...]:
        return CombinedStore, (self.members,)

    @property
    def storage(self) -> Storage:  # type: ignore[override]
        """There is none.

        :raises UsageError: always.
        """
        raise UsageError(f"{self.location} are several stores, and this needs one; ask each of them")

    @property
    def location(self) -> str:
        """What a user calls the stores."""
        return " + ".join(store.location for store in self.members)

    @functools.cached_property
    def offsets(self) -> I64:
        """The first clip of every member, and one past the last clip: int64 (members + 1,)."""
        from logitstore.store.clip_files import clip_files

        counts = [sum(file.metadata.num_rows for file in clip_files(store).values()) for store in self.members]
        return np.cumsum([0, *counts])

    @functools.cached_property
    def shard_offsets(self) -> list[int]:
        """What is added to the shards of every member."""
        from logitstore.store.clip_files import clip_files

        offsets = [0]
        for store in self.members[:-1]:
            size = store.manifest.shard_clips
            offsets.append(offsets[-1] + sum(-(-f.metadata.num_rows // size) for f in clip_files(store).values()))
        return offsets

    @functools.cached_property
    def _origins(self) -> dict[str, tuple[Store, Commit]]:
        """The member and its own commit behind every commit of ours, by our name."""
        found: dict[str, tuple[Store, Commit]] = {}
        for number, store in enumerate(self.members):
            for own in store.commits:
                if own.view_start < self.views:
                    found[self._renumbered(number, own).name] = (store, own)
        return found

    def _renumbered(self, number: int, own: Commit) -> Commit:
        return msgspec.structs.replace(
            own,
            shard=own.shard + self.shard_offsets[number],
            first_clip=own.first_clip + int(self.offsets[number]),
            view_stop=min(own.view_stop, self.views),
            fingerprints=tuple(mark for mark in own.fingerprints if mark.view < self.views),
        )

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """The members' commits of common views, with our numbers of clips and shards."""
        return tuple(
            self._renumbered(number, own)
            for number, store in enumerate(self.members)
            for own in store.commits
            if own.view_start < self.views
        )

    @property
    def views(self) -> int:
        """Number of views that every member has."""
        return min(store.views for store in self.members)

    @functools.cached_property
    def clips(self) -> pa.Table:
        """The clip tables one after the other; a column that a member lacks is NULL in its rows.

        :raises MismatchError: a column has another type, or case, in another member.
        """
        import pyarrow as pa

        tables = [store.clips.drop_columns(["clip"]) for store in self.members]
        joined_schema([table.schema for table in tables], [store.location for store in self.members])
        table = pa.concat_tables(tables, promote_options="default")
        return table.add_column(0, "clip", pa.array(np.arange(table.num_rows)))

    def lengths(self, rows: I64) -> I64:
        wanted = np.asarray(rows, dtype=np.int64)
        found = np.zeros(len(wanted), np.int64)
        for store, _, where, local in self._split(wanted):
            found[where] = store.lengths(local)
        return found

    def rows(self, view: int) -> I64:
        self._require_view(view)
        return np.concatenate(
            [store.rows(view) + first for store, first in zip(self.members, self.offsets, strict=False)]
        )

    def targets(self, view: int, rows: Any) -> tuple[U16, F32]:
        self._require_view(view)
        wanted = np.asarray(rows, dtype=np.int64)
        shape = (len(wanted), self.manifest.topk)
        classes, probabilities = np.zeros(shape, np.uint16), np.zeros(shape, np.float32)
        for store, first, where, local in self._split(wanted):
            try:
                classes[where], probabilities[where] = store.targets(view, local)
            except UsageError as error:
                raise UsageError(f"of {store.location}, whose clip 0 is clip {first} here: {error}") from error
        return classes, probabilities

    def relations(self, view: int, rows: Any) -> Relations:
        spec = self.require_relations()
        self._require_view(view)
        wanted = np.asarray(rows, dtype=np.int64)
        frames = np.zeros((len(wanted), spec.frames, spec.frames), np.float32) if spec.frames is not None else None
        clips = np.zeros((len(wanted), spec.clips), np.float32) if spec.clips is not None else None
        for store, _, where, local in self._split(wanted):
            found = store.relations(view, local)
            if frames is not None:
                frames[where] = found.frames
            if clips is not None:
                clips[where] = found.clips
        return Relations(frames, clips)

    def require_relations(self, *, frames: bool = False, clips: bool = False) -> RelationSpec:
        for store in self.members:
            store.require_relations(frames=frames, clips=clips)
        spec = self.manifest.relations
        unlike = [name for name in ("frames", "clips") if spec is None or getattr(spec, name) is None]
        if (frames and "frames" in unlike) or (clips and "clips" in unlike) or spec is None:
            stored = " and ".join(
                f"{store.manifest.relations.pooled} frames"
                + (f", basis {str(basis_digest(store))[:12]}" if clips else "")
                for store in self.members
                if store.manifest.relations is not None
            )
            raise MismatchError(
                f"the relations of {self.location} cannot be read as one ({stored}): frames need one "
                "--similarity-frames, and clips one basis, which a store shares with nothing but its own extensions; "
                "extend one store instead"
            )
        return require_relations(spec, self.location, frames, clips)

    def draws(self, view: int, rows: Any = None) -> Draws:
        self._require_view(view)
        wanted = self.rows(view) if rows is None else np.asarray(rows, dtype=np.int64)
        columns = {column.name: np.zeros(len(wanted), np.int64) for column in self.manifest.columns}
        for store, _, where, local in self._split(wanted):
            for name, values in store.draws(view, local).columns.items():
                columns[name][where] = values
        return Draws(columns)

    def partner_clip(self, clip: int, partner: int) -> int:
        ((store, first, _, local),) = self._split(np.array([clip]))
        return first + store.partner_clip(int(local[0]), partner)

    def failures(self) -> list[tuple[int, str, str]]:
        return [
            (int(first) + clip, path, reason)
            for store, first in zip(self.members, self.offsets, strict=False)
            for clip, path, reason in store.failures()
        ]

    def block_targets(self, commit: Commit) -> tuple[U16, F32]:
        store, own = self._origins[commit.name]
        classes, probabilities = store.block_targets(own)
        return classes[:, : commit.views], probabilities[:, : commit.views]

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        store, own = self._origins[commit.name]
        return {name: values[:, : commit.views] for name, values in store.block_draws(own).items()}

    def block_members(self, commit: Commit) -> F32 | None:
        """As of one store, over the members of the combined manifest: NaN for a teacher that this store lacks."""
        if not self.manifest.keep_members:
            return None
        store, own = self._origins[commit.name]
        said = store.block_members(own)
        if said is None:
            return None
        found = np.full((len(self.manifest.teachers), *said[:, :, : commit.views].shape[1:]), np.nan, np.float32)
        found[self.member_numbers(store)] = said[:, :, : commit.views]
        return found

    @property
    def basis(self) -> Basis:
        self.require_relations(clips=True)
        return self.members[0].basis

    def block_relations(self, commit: Commit) -> Relations:
        spec = self.require_relations()
        store, own = self._origins[commit.name]
        found = store.block_relations(own)
        kept = np.arange(own.clips * own.views) % own.views < commit.views
        return Relations(
            found.frames[kept] if spec.frames is not None and found.frames is not None else None,
            found.clips[kept] if spec.clips is not None and found.clips is not None else None,
        )

    def block_classes(self, commit: Commit) -> tuple[layout.Entries, int]:
        store, own = self._origins[commit.name]
        entries, class_count = store.block_classes(own)
        present = entries.present[:, : commit.views]
        kept = present.any(axis=1)
        return layout.Entries(entries.numbers[kept], present[kept]), class_count

    def member_numbers(self, store: Store) -> list[int]:
        """Which teachers of the combined manifest those of a member are."""
        return [self.manifest.teachers.index(member) for member in store.manifest.teachers]

    def size(self) -> int:
        """Bytes of everything in the stores, scratch and claims aside."""
        return sum(store.size() for store in self.members)

    def _require_view(self, view: int) -> None:
        if not 0 <= view < self.views:
            has = f"views 0 to {self.views - 1} in common" if self.views else "no view in common"
            raise UsageError(f"{self.location} has no view {view}; it has {has}")

    def _split(self, rows: I64) -> Iterator[tuple[Store, int, I64, I64]]:
        """(member, its first clip, positions in ``rows``, its own clip numbers) for the members that hold the clips."""
        total = int(self.offsets[-1])
        outside = (rows < 0) | (rows >= total)
        if outside.any():
            raise UsageError(f"clip {int(rows[outside][0])} is not in {self.location}; it has clips 0 to {total - 1}")
        home = np.searchsorted(self.offsets, rows, side="right") - 1
        for number, store in enumerate(self.members):
            where = np.flatnonzero(home == number)
            if len(where):
                first = int(self.offsets[number])
                yield store, first, where, rows[where] - first


def _common_relations(stores: Sequence[Store]) -> RelationSpec | None:
    """The relations that stores can be asked for as one: frames of one size, clips of one basis."""
    specs = [store.manifest.relations for store in stores]
    first = specs[0]
    if first is None or any(spec is None or spec.pooled != first.pooled for spec in specs):
        return None
    frames = first.frames if all(spec is not None and spec.frames is not None for spec in specs) else None
    one_basis = len({basis_digest(store) for store in stores}) == 1
    clips = first.clips if one_basis and all(spec is not None and spec.clips is not None for spec in specs) else None
    return None if frames is None and clips is None else RelationSpec(frames=frames, clips=clips, pooled=first.pooled)


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


def _class_difference(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    if set(old) == set(new):
        place = next(index for index, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        return f"the same in another order, class {place} is {old[place]!r} and {new[place]!r}"
    examples = []
    for here, there in ((old, new), (new, old)):
        alone = [name for name in here if name not in set(there)]
        examples.append(f"{len(here)}, {len(alone)} of them alone" + (f" as {alone[0]!r}" if alone else ""))
    return " and ".join(examples)
