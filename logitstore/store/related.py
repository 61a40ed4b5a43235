"""Reading the relations of a store: at random, through the same file of decoded rows as targets; and its basis."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from logitstore.arrays import I64, U8
from logitstore.digests import digest
from logitstore.errors import CorruptStoreError, MismatchError
from logitstore.store.decoded import DecodedTargets, content_key
from logitstore.store.format import relations
from logitstore.store.format.basis import BASIS, Basis, decode_basis
from logitstore.store.format.commits import REPAIR, Commit
from logitstore.store.format.relations import Relations, RelationSpec

if TYPE_CHECKING:
    from logitstore.store.reader import Store


class Related:
    """The relations of one store, decoded block by block when first used, into rows of codes by (view, clip)."""

    def __init__(self, store: Store, spec: RelationSpec) -> None:
        self._store, self._spec = store, spec

    def take(self, view: int, clips: I64, blocks: I64) -> Relations:
        """The relations of one view of some clips, int64 (n,), each in the block of that position in the commits."""
        return self._decoded(self._rows.take(view, clips, blocks, self._codes))

    def block(self, commit: Commit) -> Relations:
        """The relations of a block, by row and then by view."""
        return self._decoded(self._codes(commit).reshape(-1, self._spec.width))

    def share(self) -> None:
        """Let other processes find the decoded rows."""
        self._rows.share()

    @functools.cached_property
    def basis(self) -> Basis:
        """The basis of the clips' vectors.

        :raises CorruptStoreError: it is missing, or not the one that blocks were committed with.
        """
        store = self._store
        (content,) = store.storage.get_many([BASIS])
        if content is None:
            raise CorruptStoreError(f"{store.location}: {BASIS} is missing; restore it from a copy")
        for commit in store.commits:
            if commit.basis != digest(content):
                raise CorruptStoreError(
                    f"{store.location}: {BASIS} is not the object that block {commit.name} was committed with; restore "
                    "it from a copy"
                )
        return decode_basis(content, store.location)

    @functools.cached_property
    def _rows(self) -> DecodedTargets:
        store = self._store
        key = f"{content_key(store.storage, store.commits)} relations"
        return DecodedTargets(key, store.commits, self._spec.width, store.decoded_bytes)

    def _codes(self, commit: Commit) -> U8:
        arrays = self._store.arrays(commit, *self._spec.lengths)
        try:
            return relations.from_arrays(self._spec, arrays, commit.clips, commit.views)
        except ValueError as error:
            raise CorruptStoreError(
                f"{self._store.location}: block {commit.name}: {error}; {REPAIR.format(commit.name)}"
            ) from error

    def _decoded(self, codes: U8) -> Relations:
        return relations.decode(self._spec, codes, None if self._spec.clips is None else self.basis.mean)


def basis_digest(store: Store) -> str | None:
    """Digest of the basis of a store's clip vectors; None where it has none, or no block yet."""
    return next((commit.basis for commit in store.commits if isinstance(commit.basis, str)), None)


def require_relations(spec: RelationSpec | None, location: str, frames: bool, clips: bool) -> RelationSpec:
    """What relations a store has.

    :raises MismatchError: none, or not those asked for; it says how to build them.
    """
    wanted = ",".join(name for name, needed in (("frames", frames), ("clips", clips)) if needed)
    how = f"build a store with: logitstore build … --relations {wanted or 'frames,clips'}"
    if spec is None:
        raise MismatchError(f"{location} has no relations, which the similarity losses need; {how}")
    if (frames and spec.frames is None) or (clips and spec.clips is None):
        raise MismatchError(f"{location} has the relations {spec.names}, and {wanted} are needed; {how}")
    return spec
