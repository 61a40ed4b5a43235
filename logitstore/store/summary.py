"""What a store is and holds, counted once, from its commits, its clip table and a listing; no block is decoded.

``logitstore inspect`` and ``status`` show a :class:`Summary`, and so do a store's HTML in a notebook and the ends of
builds and imports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from msgspec import UNSET

from logitstore.audio.lengths import samples_at
from logitstore.store.format.frames import frame_bytes
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.relations import relation_bytes, relation_sizes
from logitstore.store.pieces import Failure, Pieces, failed_clips
from logitstore.store.shards import unfinished_shards
from logitstore.texts import in_lines

_SHOWN = 3  # failures
_KEYS = ("path", "start", "length", "rate")


@dataclass(frozen=True, kw_only=True)
class KeptOf:
    """What a store with a quality keeps: the nats a view that were ``asked``, a list where its pieces differ, and that
    are ``lost``, the mean over its views, None where that was not counted; the ``bits`` of its blocks, none where they
    are chosen as it is read; and the ``most`` classes of any view."""

    asked: Any
    lost: float | None
    bits: tuple[int, ...]
    most: int

    def __str__(self) -> str:
        bits = " or ".join(map(str, self.bits)) or "as many as needed"
        lost = "" if self.lost is None else f"{self.lost:.3g} nats a view lost, "
        asked = " and ".join(f"{each:g}" for each in (self.asked if isinstance(self.asked, list) else [self.asked]))
        return f"{bits} bits; {lost}{asked} asked"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a store is and holds.

    ``clips`` counts the clip table, and ``columns`` are those that a user added to it; ``failed`` are the clips of
    finished blocks that have no targets, the first of them in ``first_failures``. ``views`` is one more than the
    highest view of any block, ``stored_views`` those that have targets, summed over clips; ``shards_finished`` of the
    ``shards`` have all of the views. ``pcm_bytes`` is the audio of all clips as 16-bit PCM at the store's rate.
    ``relation_bytes`` are of the frames, the clips and their basis, where the store keeps them. ``seed``,
    ``value_bits`` and ``average`` are lists where the pieces of a store differ. ``kept`` is None of a store without a
    quality.
    """

    location: str
    manifest: Manifest
    seed: Any
    value_bits: Any
    kept: KeptOf | None
    average: Any
    clips: int
    columns: tuple[str, ...]
    failed: int
    first_failures: tuple[Failure, ...]
    views: int
    stored_views: int
    blocks: int
    shards: int
    shards_finished: int
    store_bytes: int
    pcm_bytes: int
    relation_bytes: dict[str, int]
    frame_bytes: int

    @property
    def bytes_a_view(self) -> float | None:
        """Bytes of the store a stored view; None where there is none."""
        return self.store_bytes / self.stored_views if self.stored_views else None

    @property
    def percent_of_pcm(self) -> float | None:
        """Bytes of the store as a share of its clips' audio; None without clips."""
        return 100 * self.store_bytes / self.pcm_bytes if self.pcm_bytes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``logitstore inspect STORE --format json`` prints."""
        manifest = self.manifest
        return {
            "store": self.location,
            "format_version": manifest.format_version,
            "clips": self.clips,
            "clips_failed": self.failed,
            "views": self.views,
            "views_stored": self.stored_views,
            "blocks": self.blocks,
            "shards": self.shards,
            "shards_finished": self.shards_finished,
            "topk": manifest.topk,
            "classes": len(manifest.classes),
            "scores": manifest.scores,
            "value_bits": self.value_bits,
            "quality": None if self.kept is None else asdict(self.kept),
            "members_kept": manifest.keep_members,
            "relations": self._relations(),
            "frames": self._frames(),
            "recipe": manifest.recipe.to_dict(),
            "seed": self.seed,
            "clip_seconds": manifest.clip_seconds,
            "sample_rate": manifest.sample_rate,
            "teachers": [
                {"name": member.name, "weight": member.weight, "digest": member.digest} for member in manifest.teachers
            ],
            "average": self.average,
            "bytes": self.store_bytes,
            "bytes_a_view": self.bytes_a_view,
            "percent_of_pcm": self.percent_of_pcm,
            "columns": list(self.columns),
        }

    def _relations(self) -> dict[str, Any] | None:
        """What is kept for the similarity losses, and its bytes a view; None for nothing."""
        spec, views = self.manifest.relations, self.stored_views
        if spec is None:
            return None
        return {
            "frames": spec.frames,
            "clips": spec.clips,
            "pooled": spec.pooled,
            "bytes_a_view": {name: size / views for name, size in self.relation_bytes.items() if size} if views else {},
        }

    def _frames(self) -> dict[str, Any] | None:
        """How the store says when, and its bytes a view; None of one that does not."""
        spec, views = self.manifest.frames, self.stored_views
        if spec is None:
            return None
        return {
            "hop_seconds": spec.hop,
            "count": spec.count,
            "bits": spec.bits,
            "floor": spec.floor,
            "bytes_a_view": self.frame_bytes / views if views else None,
        }

    def frame_sizes(self) -> str:
        """How the store says when, in words: the hop, and bytes a view where they were measured."""
        spec, views = self.manifest.frames, self.stored_views
        if spec is None:
            return "none"
        size = f", {self.frame_bytes / views:.1f} bytes a view" if views and self.frame_bytes else ""
        return f"every {spec.hop_ms} ms, {spec.count:,} of a view, {spec.bits} bits from {spec.floor:g} on{size}"

    def lines(self) -> list[tuple[str, str]]:
        """What there is to say for people: (what, text) of every line."""
        manifest = self.manifest
        missing = self.shards - self.shards_finished
        ops = ", ".join(op.name for op in manifest.recipe.ops) or "no augmentation"
        values = "float16" if self.value_bits == 16 else f"{self.value_bits} bits"
        targets = f"top {manifest.topk:,} of {len(manifest.classes):,} classes, {manifest.scores}, {values}"
        if self.kept is not None:
            targets = f"up to {self.kept.most:,} of {len(manifest.classes):,} classes, {manifest.scores}, {self.kept}"
        size = f"{self.store_bytes:,} bytes"
        if self.bytes_a_view is not None:
            size += f", {self.bytes_a_view:.1f} a view"
        if self.percent_of_pcm is not None:
            size += f", {self.percent_of_pcm:.2f} % of the clips' 16-bit PCM"
        weights = len({member.weight for member in manifest.teachers}) > 1
        teachers = [
            member.name + (f" x{member.weight:g}" if weights else "") + f" ({member.digest[:12]})"
            for member in manifest.teachers
        ]
        state = "finished"
        if missing:
            state = f"{missing:,} shard{'s' * (missing > 1)} not finished: run the same build again"
        members = (["members"] if manifest.keep_members else []) + (["frames"] if manifest.frames else [])
        lines = [
            ("store", f"{self.location}, format {manifest.format_version}"),
            ("clips", f"{self.clips:,} of {manifest.clip_seconds:g} s at {manifest.sample_rate:,} Hz"
                      + (f", {self.failed:,} failed" if self.failed else "")),
            ("views", f"{self.views:,} a clip, {self.stored_views:,} stored"),
            ("blocks", f"{self.blocks:,} in {self.shards_finished:,} of {self.shards:,} shards, {state}"),
            ("targets", targets),
            ("recipe", f"{manifest.recipe.name}: {ops}; seed {self.seed}"),
            ("teachers", f"{len(teachers)}, mean of {self.average}: {', '.join(teachers)}"),
            ("size", size),
            ("columns", ", ".join(self.columns) or "none but path, start, length, rate"),
            ("tables", ", ".join(["clips", "views", "topk", *members, "teachers", "failures", "blocks"])),
        ]  # fmt: skip
        if self.first_failures:
            some = "; ".join(f"clip {each.clip}, {each.place}: {each.reason}" for each in self.first_failures)
            more = '; …; all of them: "FROM failures"' if self.failed > _SHOWN else ""
            lines.insert(2, ("failures", f"{self.failed:,}: {some}{more}"))
        spec = manifest.relations
        if spec is not None:
            shown = [f"Gram matrices of {spec.frames} frames"] if spec.frames else []
            shown += [f"vectors of {spec.clips} components"] if spec.clips else []
            each = relation_sizes(self.relation_bytes, self.stored_views)
            lines.insert(-3, ("relations", f"{' and '.join(shown)}; {each}"))
        if manifest.frames is not None:
            lines.insert(-3, ("frames", self.frame_sizes()))
        return lines

    def render(self) -> str:
        """The lines that ``logitstore inspect STORE`` prints."""
        return in_lines(f"{name:<11}{text}" for name, text in self.lines())


def summarise(store: Pieces, *, measured: bool = True) -> Summary:
    """The summary of a store.

    :param measured: whether to measure: list the sizes of its objects, read the lengths of its clips. All bytes are 0
        without.
    :raises CorruptStoreError: a commit or the clip table is damaged.
    """
    pieces, committed = store.pieces, store.commits
    pcm, columns = 0, dict[str, None]()
    for piece in pieces:
        for name, file in piece.clip_files().items():
            columns |= dict.fromkeys(file.schema_arrow.names)
            if measured:
                groups = range(file.num_row_groups)
                batches = (piece.clip_group(name, file, ["length", "rate"], group) for group in groups)
                pcm += pcm_bytes(batches, piece.manifest.sample_rate)
    shards = sum(piece.shards for piece in pieces)
    sizes = [piece.sizes() if measured else {} for piece in pieces]
    relations = [relation_bytes(own) for own in sizes] if store.manifest.relations is not None else []
    return Summary(
        location=store.location,
        manifest=store.manifest,
        seed=_common([piece.manifest.seed for piece in pieces]),
        kept=_kept(store),
        value_bits=_common([piece.manifest.value_bits for piece in pieces]),
        average=_common([piece.manifest.average for piece in pieces]),
        clips=sum(sum(piece.part_clips) for piece in pieces),
        columns=tuple(name for name in columns if name not in _KEYS),
        failed=len(failed_clips(committed)),
        first_failures=tuple(store.failures(_SHOWN)),
        views=store.views,
        stored_views=store.view_count(),
        blocks=len(committed),
        shards=shards,
        shards_finished=shards - len(unfinished_shards(committed, shards, store.views)) if store.views else 0,
        store_bytes=sum(sum(own.values()) for own in sizes),
        pcm_bytes=pcm,
        frame_bytes=sum(map(frame_bytes, sizes)),
        relation_bytes={name: sum(own[name] for own in relations) for name in (relations or [{}])[0]},
    )


def _kept(store: Pieces) -> KeptOf | None:
    """What a store with a quality keeps; None of another."""
    asked = [piece.manifest.quality for piece in store.pieces]
    found = [(each.kept, each.stored_views) for each in store.commits if each.kept is not UNSET]
    if asked[0] is None:
        return None
    views = sum(count for _, count in found)
    lost = sum(kept.loss * count for kept, count in found) / views if views else None
    return KeptOf(
        asked=_common(asked),
        lost=lost if lost is not None and math.isfinite(lost) else None,  # nobody has counted it where stores are joint
        bits=tuple(sorted({kept.bits for kept, _ in found if math.isfinite(kept.loss)})),
        most=max((kept.most for kept, _ in found), default=0),
    )


def failure_lines(failures: Sequence[Failure], location: str, most: int = 10) -> list[str]:
    """How many clips failed, and where and why the first of them did: lines for people."""
    margin = " " * 11
    lines = [f"failures   {len(failures):,}"]
    lines += [f"{margin}clip {failure.clip}, {failure.place}: {failure.reason}" for failure in failures[:most]]
    if len(failures) > most:
        lines.append(f'{margin}… all of them: logitstore inspect {location} "FROM failures"')
    return lines


def pcm_bytes(batches: Iterable[Any], sample_rate: int) -> int:
    """Bytes of clips' own audio as 16-bit mono PCM at a rate (Hz).

    :param batches: Arrow tables or batches of them, with the columns length and rate.
    """
    total = 0
    for batch in batches:
        length, rate = (np.asarray(batch[name]).astype(np.int64) for name in ("length", "rate"))
        total += int(2 * np.sum(samples_at(length, np.maximum(rate, 1), sample_rate)))
    return total


def _common(values: list[Any]) -> Any:
    """What all pieces have, or a list where they differ."""
    return values[0] if all(value == values[0] for value in values) else values
