"""What the imports share: finding clips in an audio root by their names, and writing blocks that are already known."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64
from logitstore.errors import AudioError, CorruptStoreError, SourceError
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.codec import quantizer
from logitstore.store.format.layout import Targets, columns_for
from logitstore.store.format.manifest import FORMAT_VERSION, IMPORTED, Manifest, Member
from logitstore.store.piece import Piece
from logitstore.store.pieces import Failure, Pieces
from logitstore.store.storage import Storage
from logitstore.store.summary import Summary, failure_lines, summarise
from logitstore.store.writer import BlockContent, StoreWriter
from logitstore.texts import in_lines
from logitstore.views.fingerprint import Fingerprint, fingerprint
from logitstore.views.ops import Place
from logitstore.views.recipe import Draws, Recipe
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.clips import ClipAudio
    from logitstore.audio.source import Source


@dataclass(frozen=True)
class ImportedViews:
    """What is known of the views of some clips: classes and probabilities (R, V, k), draw columns int64 (R, V)."""

    classes: npt.NDArray[np.integer[Any]]
    probabilities: npt.NDArray[np.floating[Any]]
    draws: dict[str, I64]


@dataclass(frozen=True, kw_only=True)
class ImportSummary(Summary):
    """What a store holds after an import; ``failures`` the clips without targets, ``notes`` what a user should know."""

    seconds: float
    failures: list[Failure]
    notes: Sequence[str] = ()

    def render(self) -> str:
        """The lines that ``logitstore import`` prints."""
        rate = f", {self.stored_views / self.seconds:,.0f} views/s" if self.stored_views else ""
        each = "" if self.bytes_a_view is None else f", {self.bytes_a_view:.1f} bytes a view"
        lines = [
            f"store      {self.location}",
            f"clips      {self.clips:,} x {self.views} views, in {self.blocks:,} blocks",
            f"imported   {self.stored_views:,} views in {self.seconds:.1f} s{rate}",
            f"size       {self.store_bytes:,} bytes{each}",
            *failure_lines(self.failures, self.location),
        ]
        return in_lines(lines + [f"note       {note}" for note in self.notes])


class AudioNames:
    """The audio of a root by name: a key itself, the last part of a key or, if asked for, that without its ending."""

    def __init__(self, source: Source, root: str) -> None:
        self._root = root
        self._keys: list[str] = source.listing()["path"].to_pylist()
        self._by_base = _positions(self._keys, posixpath.basename)
        self._by_stem: dict[str, list[int]] | None = None
        self._by_key = {key: position for position, key in enumerate(self._keys)}

    def find(self, name: str, endings: bool = True) -> str | None:
        """The one key that a name stands for; None where there is none.

        :param endings: whether the name has its file's ending; if not, the ending is left aside where need be.
        :raises SourceError: several keys fit; two are named.
        """
        if name in self._by_key:
            return name
        found = self._by_base.get(posixpath.basename(name), [])
        if not found and not endings:
            if self._by_stem is None:
                self._by_stem = _positions(self._keys, lambda key: _stem(posixpath.basename(key)))
            base = posixpath.basename(name)
            found = self._by_stem.get(base) or self._by_stem.get(_stem(base), [])
        if len(found) > 1:
            first, second = (self._keys[position] for position in found[:2])
            raise SourceError(
                f"{name} is ambiguous below {self._root}: it may be {first} or {second}; give an audio root with one"
            )
        return self._keys[found[0]] if found else None


def _positions(keys: Sequence[str], name: Callable[[str], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        places.setdefault(name(key), []).append(position)
    return places


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def imported_manifest(
    *,
    classes: tuple[str, ...],
    teacher: Member,
    recipe: Recipe,
    place: Place,
    clip_seconds: float,
    topk: int,
    value_bits: int,
) -> Manifest:
    """The manifest of an imported store: a sigmoid ensemble of one member, and zeros where nobody knows."""
    from logitstore.models.machine import versions

    quantizer("sigmoid", value_bits)
    return Manifest(
        format_version=FORMAT_VERSION,
        classes=classes,
        scores="sigmoid",
        teachers=(teacher,),
        average="probability",
        recipe_document=recipe.to_dict(),
        draw_columns=tuple(
            {"name": column.name, "low": column.low, "planes": column.planes}
            for column in columns_for(recipe.ranges(place, imported=True))
        ),
        seed=0,
        sample_rate=place.sample_rate,
        clip_seconds=clip_seconds,
        topk=topk,
        value_bits=value_bits,
        shard_clips=place.shard_clips,
        batch_size=0,
        device_kind=IMPORTED,
        precision=IMPORTED,
        keep_members=False,
        made_by=versions(),
    )


def sorted_clips(paths: Sequence[str], start: I64, length: I64, rate: I64) -> tuple[pa.Table, I64]:
    """A clip table by (path, start, length), as every store has it, and where each of its clips was, int64 (n,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "start": pa.array(start, pa.int64()),
            "length": pa.array(length, pa.int64()),
            "rate": pa.array(rate, pa.int32()),
        }
    )
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ("path", "start", "length")])
    return table.take(order).combine_chunks(), order.to_numpy().astype(np.int64)


def write_blocks(
    storage: Storage,
    manifest: Manifest,
    clip_table: pa.Table,
    views: int,
    failed: dict[int, str],
    imported: Callable[[range], ImportedViews],
    *,
    audio: ClipAudio | None,
    advance: Callable[[int], None] = lambda views: None,
    notes: Sequence[str] = (),
    strict: bool = False,
) -> ImportSummary:
    """Write a store whose targets are known, block by block; an interrupted import goes on where it stopped.

    :param failed: why clips have no targets, by clip.
    :param imported: gives what is known of a range of clips; called once for each block that is missing.
    :param audio: the clips themselves, for one fingerprint a block; without it there are none.
    :param advance: told how many views were just written.
    :raises AudioError: not one clip has targets; with ``strict``, one is met that cannot be decoded, by name.
    """
    began = time.monotonic()
    writer = StoreWriter.open(storage, manifest, clip_table)
    with claims.Claimer(storage) as claimer:
        waiting = set(range(writer.shards))
        while waiting:
            before = len(waiting)
            stored = commits.spans(storage)
            for shard in sorted(waiting):
                name = commits.block_name(shard, 0, views)
                if commits.Span(shard, 0, views) not in stored.get(shard, ()):
                    if not claimer.take(shard):
                        continue
                    try:
                        content = _content(manifest, writer.clips_of(shard), views, failed, imported, audio, strict)
                        writer.write_block(shard, 0, views, content, f"blocks/{name}")
                    finally:
                        claimer.drop(shard)
                advance(len(writer.clips_of(shard)) * views)
                waiting.discard(shard)
            if waiting and len(waiting) == before:
                time.sleep(claimer.idle_seconds())
    store = Pieces([Piece(storage, writer.manifest, writer.root_digest)])
    ours = {commits.block_name(shard, 0, views) for shard in range(writer.shards)}
    strangers = [commit.name for commit in store.commits if commit.name not in ours]
    if strangers:
        name = commits.object_name(strangers[0])
        raise CorruptStoreError(f"{storage.location}: {name} is not of this import; choose another --out")
    if not claims.claimed_shards(storage):
        writer.sweep(store.commits)
    if not store.view_count():
        some = "; ".join(f"{each.place}: {each.reason}" for each in store.failures(3))
        raise AudioError(f"not one clip of {storage.location} has targets now ({some}); see that its audio can be read")
    return ImportSummary(
        **vars(summarise(store)),
        seconds=time.monotonic() - began,
        failures=store.failures(),
        notes=notes,
    )


def _content(
    manifest: Manifest,
    clips: range,
    views: int,
    failed: dict[int, str],
    imported: Callable[[range], ImportedViews],
    audio: ClipAudio | None,
    strict: bool,
) -> BlockContent:
    known = imported(clips)
    reasons = {clip - clips.start: failed[clip] for clip in clips if clip in failed}
    fingerprints = [] if audio is None else _first_fingerprint(manifest, clips, known, reasons, audio, strict)
    readable = np.ones(len(clips), dtype=bool)
    readable[list(reasons)] = False
    codes = manifest.quantizer.encode(known.probabilities)
    return BlockContent(
        Targets(known.classes.astype(np.uint16), codes, readable), None, Draws(known.draws), reasons, fingerprints
    )


def _first_fingerprint(
    manifest: Manifest, clips: range, known: ImportedViews, reasons: dict[int, str], audio: ClipAudio, strict: bool
) -> list[Fingerprint]:
    """The fingerprint of view 0 of a block's first clip that decodes; those before it are added to ``reasons``."""
    renderer = Renderer(audio, manifest.recipe, manifest.place)
    for row, clip in enumerate(clips):
        if row in reasons:
            continue
        draws = Draws({name: values[row : row + 1, 0] for name, values in known.draws.items()})
        try:
            waveform, masks = renderer.view(clip, draws)
        except AudioError as error:
            if strict:
                raise AudioError(f"{audio.place(clip)}: {error}; without --strict it is recorded") from error
            reasons[row] = str(error)
            continue
        return [fingerprint(row, 0, waveform, masks, manifest.sample_rate)]
    return []


def require_some(failed: dict[int, str], paths: Sequence[str], strict: bool) -> None:
    """Refuse an import of nothing, and with ``strict`` one that lacks anything.

    :raises SourceError: the first failure is named.
    """
    if failed and (strict or len(failed) == len(paths)):
        first = min(failed)
        what = "none of the clips can" if len(failed) == len(paths) else f"{len(failed)} of {len(paths)} clips cannot"
        raise SourceError(f"{what} be imported, as {paths[first]}: {failed[first]}")
