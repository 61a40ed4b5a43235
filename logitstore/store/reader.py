"""The store as its readers hold it: open one with :func:`open_store`, ask it in numbers, in SQL, or clip by clip."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from logitstore import notebook
from logitstore.errors import StoreError
from logitstore.store.audio import AudioRoot, clip_audio
from logitstore.store.clip import StoredClip
from logitstore.store.joint import arranged
from logitstore.store.piece import Piece, open_piece
from logitstore.store.pieces import Pieces, refuse_twice

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.clips import ClipAudio
    from logitstore.sql.limits import Limits


class Store(Pieces):
    """A store, read-only, of one or several pieces. Open one with :func:`open_store`.

    ``store[clip]`` is one clip to look at, ``len(store)`` their number; ``store.targets(view, clips)`` and
    ``store.draws(view, clips)`` are what many clips need, ``store.sql(…)`` answers questions. ``manifest`` says what
    the store is.

    :param audio_root: where the clips can be heard, as :func:`open_store` takes it.
    """

    def __init__(self, pieces: Sequence[Piece], audio_root: AudioRoot | Sequence[AudioRoot] | None = None) -> None:
        super().__init__(pieces)
        self._audio_root = audio_root
        self._audio: ClipAudio | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.pieces, self._audio_root)

    def with_audio(self, audio_root: AudioRoot | Sequence[AudioRoot]) -> Self:
        """The same store, whose views can be heard: ``store.with_audio("audio")[3].view(0).waveform``.

        :param audio_root: the folder (or packed audio) that the clips' paths are relative to, or an open source; of
            several pieces one for all, or a list of one for each.
        """
        return type(self)(self.pieces, audio_root)

    @property
    def audible(self) -> bool:
        """Whether it was opened with its audio: then there is the SQL table ``levels``."""
        return self._audio_root is not None

    @property
    def audio(self) -> ClipAudio | None:
        """The clips' own audio by number, ``store.audio[clip]`` float32 (n,); None of a store opened without.

        :raises UsageError: another number of audio roots than one, or one for each piece.
        """
        if self._audio is None and self._audio_root is not None:
            self._audio = clip_audio(self, self._audio_root)
        return self._audio

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None, limits: Limits | None = None) -> pa.Table:
        """The answer to one SELECT over the store's tables; ``.to_pandas()`` and ``.to_pylist()`` make others of it.

        :param query: over clips, views, topk, answers, members and frames (where kept), levels (of a store opened with
            its audio), teachers, recipe, ops, failures and blocks, joined by ``clip``; or ``@NAME``, a question that
            ships with the tool.
        :param parameters: values of ``$name`` in the query, by name.
        :param limits: what the query may take, a ``logitstore.sql.limits.Limits``; None for the defaults.
        :returns: a pyarrow table.
        :raises QueryError: the query is not one SELECT that can be answered from the store alone.
        :raises QueryLimitError: it takes more time, memory or temporary space than it may.
        """
        from logitstore.store.sql.query import run_query

        return run_query(self, query, parameters, limits)

    def __len__(self) -> int:
        """Number of clips, failed ones too."""
        return sum(sum(piece.part_clips) for piece in self.pieces)

    def __getitem__(self, clip: SupportsIndex) -> StoredClip:
        """One clip, by its number.

        :raises UsageError: there is no such clip.
        """
        return StoredClip(self, operator.index(clip), self.audio)

    def __iter__(self) -> Iterator[StoredClip]:
        return (self[clip] for clip in range(len(self)))

    def __repr__(self) -> str:
        try:
            manifest = self.manifest
            what = f"{len(self):,} clips x {self.views} views, top {manifest.topk} of {len(manifest.classes)} classes"
            return f"<Store {self.location}: {what}, {manifest.scores}, recipe {manifest.recipe.name}>"
        except StoreError as error:
            return f"<Store {self.location}, damaged: {error}>"

    def _repr_html_(self) -> str:
        from logitstore.store.look import look

        try:
            return look(self)._repr_html_()
        except StoreError as error:
            return notebook.card(self.location, notebook.note(f"damaged: {error}"))


def open_store(
    path: str | Any,
    *,
    audio_root: AudioRoot | Sequence[AudioRoot] | None = None,
    weights: Sequence[float] | None = None,
) -> Store:
    """Open a store for reading. Neither torch nor zarr is imported.

    :param path: the store's folder, or its URL as a string; see ``docs/cloud.md``. A list of several is read as one
        store, of the views that all of them have: those of the same clips, seed and recipe as one ensemble (see
        ``joint.py``), others one after the other (see ``pieces.py``).
    :param audio_root: the folder (or packed audio) that the clips' paths are relative to, so that views can be heard;
        of several stores one for all, or a list of one for each.
    :param weights: how much each of several counts in their ensemble; by default as much as it has teachers.
    :raises NotAStoreError: there is no store there, or one of an unknown format version.
    :raises MismatchError: of several, two that do not fit; the reason is named.
    """
    paths = path if isinstance(path, list | tuple) else [path]
    pieces = [open_piece(each) for each in paths]
    refuse_twice(pieces)
    return Store(arranged(pieces, weights) if len(pieces) > 1 or weights else pieces, audio_root)
