"""A store's views as training data: the clips, replayed as the teachers heard them, and what the teachers said."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from logitstore.arrays import F32, I64, Bool
from logitstore.audio.cache import AudioCache
from logitstore.audio.clips import ClipAudio, joined_clips
from logitstore.audio.source import Source
from logitstore.digests import derived_seed
from logitstore.errors import MismatchError, UsageError
from logitstore.store.audio import AudioRoot, clip_keys, open_sources
from logitstore.store.reader import Store, open_store
from logitstore.store.storage import LocalStorage
from logitstore.training.batches import ByPosition, Replayer, Views
from logitstore.views.fingerprint import compare
from logitstore.views.mel import FrontEnd, LogMel, apply_masks
from logitstore.views.recipe import Draws, Masks, Recipe, draw
from logitstore.views.render import Renderer
from students.labels import ClipLabels
from students.targets import dense_targets, tail_of

#: Views that are replayed and compared with their fingerprints before any training.
CHECKED_VIEWS = 4

_MOST_NAMED = 3
_READ_CLIPS = 1 << 16
#: Targets and draws of a store of so many clips are decoded before the first batch, of more where batches need them.
_AHEAD = 1 << 18


class ReplayDataset(Dataset[dict[str, Any]]):
    """A store's clips for a trainer of your own, in every epoch under the next of their views.

    ::

        data = ReplayDataset("store", "audio")
        loader = DataLoader(data, batch_size=32, shuffle=True)  # with workers where audio is dear to decode
        for epoch in range(30):
            data.set_epoch(epoch)  # view ``epoch mod V``, in workers that live on too
            for batch in loader:
                logits = model(batch["waveform"], batch["masks"])

    Item i is a dict, as is a batch of :meth:`collate` (B views):

    ``waveform``  float32 (clip_samples,), the replayed view at the store's rate, about [-1, 1]
    ``masks``     :class:`logitstore.views.recipe.Masks`: ``time_start``, ``time_end`` in seconds, ``freq_low``,
                  ``freq_high`` in Hz, half-open, equal ends where nothing is masked; four floats, collated to float64
                  (B,), which is what front ends and this project's models take
    ``target``    float32 (C,), a probability for each class of ``store.manifest.classes``
    ``clip``      int, the number of the clip

    with ``front_end``, in the place of the first two:

    ``log_mel``   float32 (bands, frames), in dB, its masked frames and bands filled already

    with ``frame_targets=True``, of a store that has them:

    ``frame_target``   float32 (T, C), a probability for each class in each of T frames of the view, rolled and masked
                       as it is; ``store.manifest.frames`` says how long they are

    and with ``relations=True`` also those that the store has:

    ``frame_gram``   float32 (T, T), inner products of the teachers' frames, for :func:`students.terms.iusp.iusp`
    ``clip_vector``  float32 (64,), the teachers' features of the whole clip, for :func:`students.terms.sp.sp`

    It may be shared with worker processes, forked or spawned.

    :param store: an open store, or its path; of several that are read as one, a list of paths.
    :param audio_root: the folder (or packed audio) that the clips' paths are relative to, or an open source; of several
        stores one for all, or a list of one for each.
    :param view: in [0, V), one view for ever; by default that of the epoch, which is 0 until :meth:`set_epoch`.
    :param rows: the clips to use, by number; all that have targets by default, in each view.
    :param inconsistent: the ablation: fresh draws, of the stream ``seed`` and the epoch (or the view given), against
        the stored targets.
    :param seed: of the fresh draws.
    :param tail: fill of the classes that a target does not hold, see :mod:`students.targets`; by default what the store
        says of them, zero where it does not.
    :param relations: whether items hold the teachers' relations; always the stored ones, ``inconsistent`` or not.
    :param frame_targets: whether items hold what the teachers said of frames; the stored ones too.
    :param cache_bytes: decoded audio to keep in memory, in every process that reads.
    :param audio_cache: a folder in which what is dear to decode (Ogg, MP3, FLAC, other rates) is kept, decoded, for
        every process that reads; it may take half of the room that its disk has left.
    :param checked_views: how many fingerprinted views to replay and compare first; 0 for none.
    :param front_end: gives log-mels of this front end, such as ``model.front_end`` or ``logitstore.views.mel.CED``, at
        its rate; ``fill``: what masked cells hold, in dB; 0 as CED's.
    :raises MismatchError: the audio is not what the teachers heard, the clips are named; or relations or frame targets
        are asked of a store that has none.
    :raises UsageError: an unknown view or tail, or a clip without targets.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        audio_root: AudioRoot | Sequence[AudioRoot],
        view: int | None = None,
        *,
        rows: Any = None,
        inconsistent: bool = False,
        seed: int = 0,
        tail: str | None = None,
        relations: bool = False,
        frame_targets: bool = False,
        cache_bytes: int = 0,
        audio_cache: str | os.PathLike[str] | AudioCache | None = None,
        checked_views: int = CHECKED_VIEWS,
        front_end: FrontEnd | None = None,
        fill: float = 0.0,
    ) -> None:
        self._store = store if isinstance(store, Store) else open_store(store)
        self._sources, self._cache_bytes = open_sources(self._store, audio_root), cache_bytes
        #: Where decoded audio is kept on disk, or None; its ``summary()`` says what came of it.
        self.audio_cache = AudioCache(audio_cache) if isinstance(audio_cache, str | os.PathLike) else audio_cache
        self._view, self._rows, self._tail = view, rows, tail
        self._fresh_seed = seed if inconsistent else None
        self._relations = _kept_relations(self._store) if relations else ()
        self._frame_targets = frame_targets
        self._log_mel = None if front_end is None else LogMel(front_end)
        self._front_end, self._fill = front_end, fill
        #: Shared memory: what one process sets, its workers read, also those that live from epoch to epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._made: tuple[int, Views] | None = None
        self._open()
        check_audio(self._store, self._replayer.audio, checked_views)
        self._current()

    def set_epoch(self, epoch: int) -> None:
        """Go on with view ``epoch mod V``, in this process and in every worker that has this dataset.

        Call it between two passes, not while a loader still asks for items. Where a store is not finished, views may
        hold different clips, so that the length changes too.

        :param epoch: at least 0.
        :raises UsageError: a negative epoch, or a dataset of one view.
        """
        if self._view is not None:
            raise UsageError(f"a dataset of view {self._view} alone has no epochs; make it without a view")
        if epoch < 0:
            raise UsageError(f"epoch {epoch}; it must be at least 0")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._current())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One view; see the class.

        :raises MismatchError: its audio cannot be decoded.
        """
        views = self._current()
        if not -len(views) <= index < len(views):
            raise IndexError(f"item {index} of a dataset of {len(views)} views")
        item: dict[str, Any] = self._batch(views, np.array([index % len(views)]))[0]
        return item

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
        """Some views at once, as a ``DataLoader`` asks for them; its own collate takes them as the batch that they are.

        :raises MismatchError: the audio of one cannot be decoded.
        """
        views, positions = self._current(), np.asarray(indices, dtype=np.int64)
        wrong = positions[(positions < -len(views)) | (positions >= len(views))]
        if len(wrong):
            raise IndexError(f"item {wrong[0]} of a dataset of {len(views)} views")
        return self._batch(views, positions % len(views))

    def _batch(self, views: Views, positions: I64) -> _Items:
        batch = self._replayer.batch(views, positions)
        given: dict[str, Any] = {}
        if self._log_mel is None or self._front_end is None:
            given["waveform"] = batch.waveforms
            unmasked = torch.zeros(len(batch), dtype=torch.float64)
            given["masks"] = Masks(*[unmasked] * 4) if batch.masks is None else batch.masks
        else:
            with torch.no_grad():
                log_mel = self._log_mel(batch.waveforms)
            given["log_mel"] = apply_masks(log_mel, self._front_end, batch.masks, self._fill)
        given |= {"target": batch.targets, "clip": torch.from_numpy(batch.clips)}
        if batch.frame_grams is not None:
            given["frame_gram"] = batch.frame_grams
        if batch.clip_vectors is not None:
            given["clip_vector"] = batch.clip_vectors
        if batch.frame_targets is not None:
            given["frame_target"] = batch.frame_targets
        return _Items(given, len(batch))

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch of items, ``masks`` as models take them; what a ``DataLoader`` does unless told otherwise."""
        batch: dict[str, Any] = default_collate(items)  # type: ignore[arg-type] # which takes items too, once this module is imported
        return batch

    def _current(self) -> Views:
        """The views of the epoch, made when first asked for, in each process."""
        epoch = int(self._epoch)
        if self._made is None or self._made[0] != epoch:
            view = epoch % max(1, self._store.views) if self._view is None else self._view
            number = epoch if self._view is None else self._view
            fresh = None if self._fresh_seed is None else (self._fresh_seed, number)
            views = stored_views(
                self._store, view, self._rows, tail=self._tail, fresh=fresh, relations=self._relations,
                frame_targets=self._frame_targets,
            )  # fmt: skip
            self._made = (epoch, views)
        return self._made[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_replayer"}  # it holds a lock

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        heard_at = None if self._front_end is None else self._front_end.sample_rate
        self._replayer = open_replayer(
            self._store, self._sources, self._cache_bytes, disk=self.audio_cache, heard_at=heard_at
        )


#: The fields of :class:`Masks`.
_SPANS = tuple(each.name for each in fields(Masks))


class _Item(dict[str, Any]):
    """One view; a class of its own, so that the default collate knows it."""


class _Items(Sequence[_Item]):
    """The items of a batch, each made when it is asked for.

    :param batch: what the default collate gives of them. :param count: how many they are.
    """

    def __init__(self, batch: dict[str, Any], count: int) -> None:
        self.batch, self.size = batch, count

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(self.size)[index]]
        position = range(self.size)[index]
        item = _Item((name, values[position]) for name, values in self.batch.items())
        item["clip"] = int(item["clip"])
        if "masks" in item:
            item["masks"] = Masks(*(float(getattr(item["masks"], name)) for name in _SPANS))
        return item


def _collated(items: Sequence[_Item], **more: Any) -> dict[str, Any]:
    if isinstance(items, _Items):
        return items.batch
    return {name: collate([item[name] for item in items], **more) for name in items[0]}


def _collated_masks(masks: Sequence[Masks], **_: Any) -> Masks:
    spans = ([getattr(each, name) for each in masks] for name in _SPANS)
    return Masks(*(torch.tensor(values, dtype=torch.float64) for values in spans))


default_collate_fn_map |= {_Item: _collated, Masks: _collated_masks}


class _StoredTargets:
    """Targets of n views by position; a class, so that a dataset can be pickled.

    They are read from the store when used: what it has decoded is shared by every process that reads it.
    """

    def __init__(self, store: Store, view: int, clips: I64, tail: str) -> None:
        self.store, self.view, self.clips, self.tail = store, view, clips, tail
        ahead = clips
        if _on_demand(store):
            ahead = clips[:1]
            if len(clips) <= _AHEAD:  # more would take minutes to look at; the batch that needs a bad one refuses it
                store.require_targets(view, clips)
        for start in range(0, len(ahead), _READ_CLIPS):  # decodes them, and refuses clips that have none
            store.targets(view, ahead[start : start + _READ_CLIPS])

    def __call__(self, positions: I64) -> F32:
        manifest, clips = self.store.manifest, self.clips[positions]
        classes, probabilities = self.store.targets(self.view, clips)
        rests = self.store.rests(self.view, clips) if self.tail == "stored" else None
        return dense_targets(
            classes, probabilities, len(manifest.classes), self.tail, rests, clips=clips, view=self.view,
            seed=manifest.seed,
        )  # fmt: skip


def _on_demand(store: Store) -> bool:
    """Whether views are decoded where batches need them: of many clips, in folders, which worker processes can read."""
    parts = (part for piece in store.pieces for part in piece.parts)
    return len(store) > _AHEAD and all(isinstance(part.storage, LocalStorage) for part in parts)


class _StoredDraws:
    """Draws of n views by position, read when used."""

    def __init__(self, store: Store, view: int, clips: I64) -> None:
        self.store, self.view, self.clips = store, view, clips

    def __getitem__(self, positions: I64) -> Draws:
        return self.store.draws(self.view, self.clips[positions])


class _StoredPartners:
    """The clips that n views are mixed with, by position, read when used."""

    def __init__(self, draws: _StoredDraws) -> None:
        self.draws = draws

    def __getitem__(self, positions: I64) -> I64:
        partners = self.draws.store.partners(self.draws.clips[positions], self.draws[positions])
        assert partners is not None
        return partners


class _StoredRelations:
    """Relations of n views by position: those of "frames" and "clips" that are wanted.

    :raises MismatchError: the store was built without one of them.
    """

    def __init__(self, store: Store, view: int, clips: I64, wanted: Collection[str]) -> None:
        self.store, self.view, self.clips = store, view, clips
        self.frames, self.vectors = "frames" in wanted, "clips" in wanted
        store.require_relations(frames=self.frames, clips=self.vectors)

    def __call__(self, positions: I64) -> tuple[F32 | None, F32 | None]:
        stored = self.store.relations(self.view, self.clips[positions])
        return stored.frames if self.frames else None, stored.clips if self.vectors else None


class _StoredFrames:
    """What was said of the frames of n views, by position.

    :raises MismatchError: the store was built without frames.
    """

    def __init__(self, store: Store, view: int, clips: I64) -> None:
        self.store, self.view, self.clips = store, view, clips
        store.require_frames()

    def __call__(self, positions: I64) -> F32:
        return self.store.frames(self.view, self.clips[positions]).dense()


class _HeardLabels:
    """Labels of n views by position: a clip's own, mixed with its partner's as its waveform is."""

    def __init__(
        self, labels: ClipLabels, recipe: Recipe, clips: I64, draws: ByPosition[Draws], partners: ByPosition[I64] | None
    ) -> None:
        self.labels, self.recipe, self.clips, self.draws, self.partners = labels, recipe, clips, draws, partners

    def __call__(self, positions: I64) -> tuple[F32, Bool]:
        clips = self.clips[positions]
        own, labelled = self.labels(clips)
        if self.partners is None:
            return own, labelled
        partners, weight = self.partners[positions], self.recipe.partner_shares(self.draws[positions])[:, None]
        theirs, known = self.labels(np.where(partners < 0, clips, partners))  # of an unmixed view its own, at weight 0
        unknown = (own < 0) | ((theirs < 0) & (weight > 0))
        return np.where(unknown, np.float32(-1), (1 - weight) * own + weight * theirs), labelled & known


def open_replayer(
    store: Store,
    sources: Sequence[Source],
    cache_bytes: int = 0,
    *,
    disk: AudioCache | None = None,
    heard_at: int | None = None,
    pool: Executor | None = None,
) -> Replayer:
    """What makes batches of a store's views.

    :param sources: of :func:`open_sources`. :param cache_bytes: decoded audio to keep in memory.
    :param disk: keeps what is dear to decode.
    :param heard_at: Hz of the waveforms given; the store's by default. :param pool: decodes clips side by side.
    """
    manifest = store.manifest
    audio = joined_clips(list(sources), clip_keys(store, sources), manifest.sample_rate, cache_bytes, disk)
    return Replayer(
        audio,
        lambda clip: store.keys[clip][0],
        manifest.recipe,
        manifest.clip_samples,
        manifest.sample_rate,
        heard_at=heard_at,
        pool=pool,
    )


def stored_views(
    store: Store,
    view: int,
    rows: Any = None,
    *,
    tail: str | None = None,
    fresh: tuple[int, int] | None = None,
    relations: Collection[str] = (),
    labels: ClipLabels | None = None,
    frame_targets: bool = False,
) -> Views:
    """One view of some clips: targets and draws, read block by block, so that any order of use is as fast.

    Of a store of more than :data:`_AHEAD` clips in a folder they are decoded when a batch first needs their block, so
    that the first batch is there as soon as that of a small store.

    :param rows: the clips; all that have targets by default.
    :param fresh: None for the stored draws; (seed, number) for the number-th fresh draws of that stream. Targets and
        relations are the stored ones all the same: that is what is inconsistent.
    :param relations: those that the batches are to bring, of "frames" and "clips".
    :param labels: of the store's clips. Where a draw mixes in a partner, so are its labels, with the same weight; a
        clip mixed with one of which nothing is known counts as unlabelled.
    :param frame_targets: whether the batches are to bring what was said of frames.
    :raises UsageError: no such view, no clips, a clip without targets, an unknown tail.
    :raises MismatchError: the store was built without one of the relations, or without frames.
    """
    tail = tail_of(store, tail)
    clips = store.clips_of(view) if rows is None else np.asarray(rows, dtype=np.int64)
    if clips.ndim != 1 or not len(clips):
        raise UsageError(f"{store.location} has no clips to replay in view {view} among those asked for")
    if clips.min() < 0 or clips.max() >= len(store):
        bad = clips.min() if clips.min() < 0 else clips.max()
        raise UsageError(f"clip {bad} is not in {store.location}; it has clips 0 to {len(store) - 1}")
    targets = _StoredTargets(store, view, clips, tail)
    draws: ByPosition[Draws]
    partners: ByPosition[I64] | None
    if fresh is None and _on_demand(store):
        draws, first = (asked := _StoredDraws(store, view, clips)), np.zeros(1, np.int64)
        partners = None if store.partners(clips[first], draws[first]) is None else _StoredPartners(asked)
    else:
        draws = drawn = store.draws(view, clips) if fresh is None else fresh_draws(store, clips, *fresh)
        partners = store.partners(clips, drawn)
    return Views(
        clips,
        draws,
        partners,
        targets,
        _StoredRelations(store, view, clips, relations) if relations else None,
        None if labels is None else _HeardLabels(labels, store.manifest.recipe, clips, draws, partners),
        _StoredFrames(store, view, clips) if frame_targets else None,
    )


def fresh_draws(store: Store, clips: I64, seed: int, number: int) -> Draws:
    """Draws of the store's recipe that no teacher heard: the number-th of a stream apart from the store's own.

    :param clips: int64 (n,). :param seed: of the stream. :param number: in [0, 2**32).
    """
    manifest = store.manifest
    recipe = manifest.recipe
    stream = derived_seed("fresh draws", manifest.seed, seed)
    firsts, counts = _shards(store)
    shard_of = np.searchsorted(firsts, clips, side="right") - 1
    columns = {name: np.zeros(len(clips), np.int64) for name in recipe.columns}
    for shard in np.unique(shard_of):
        where = np.flatnonzero(shard_of == shard)
        table = store.clips.select(["path", "start", "length"]).take(clips[where])
        drawn = draw(
            recipe,
            seed=stream,
            keys=list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)),
            view=number,
            lengths=store.lengths(clips[where]),
            place=manifest.place,
            rows=clips[where] - firsts[shard],
            shard_rows=int(counts[shard]),
        )
        for name, values in drawn.columns.items():
            columns[name][where] = values
    draws = Draws(columns)
    partners = store.partners(clips, draws)
    if partners is None:
        return draws
    failed = np.array([failure.clip for failure in store.failures()], dtype=np.int64)
    return recipe.without_partner(draws, np.isin(partners, failed))


def _kept_relations(store: Store) -> tuple[str, ...]:
    kept = store.require_relations()
    return tuple(name for name in ("frames", "clips") if getattr(kept, name) is not None)


def check_audio(store: Store, audio: ClipAudio, count: int = CHECKED_VIEWS) -> int:
    """Replay a few views and compare them with what the teachers heard; returns how many were compared.

    :raises MismatchError: some are not the same sound; the clips are named.
    """
    recorded = store.fingerprinted(count)
    problems = compare(Renderer(audio, store.manifest.recipe, store.manifest.place), recorded)
    if problems:
        shown = "; ".join(problems[:_MOST_NAMED])
        raise MismatchError(
            f"the audio is not what the teachers of {store.location} heard, in {len(problems)} of {len(recorded)} "
            f"views compared: {shown}; give the audio root that the store was built from"
        )
    return len(recorded)


def _shards(store: Store) -> tuple[I64, I64]:
    """First clip and number of clips of every shard, rising."""
    sizes = {commit.first_clip: commit.clips for commit in store.commits}
    firsts = sorted(sizes)
    return np.array(firsts, dtype=np.int64), np.array([sizes[first] for first in firsts], dtype=np.int64)
