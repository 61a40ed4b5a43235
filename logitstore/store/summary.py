"""What a store holds after a build, counted from its commits and listings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from logitstore.audio.lengths import samples_at
from logitstore.store import claims
from logitstore.store.format.commits import Commit
from logitstore.store.format.relations import relation_bytes
from logitstore.store.storage import SCRATCH
from logitstore.store.writer import StoreWriter

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class BuildSummary:
    """What a store holds after a build. ``pcm_bytes`` is the audio of all clips as 16-bit PCM at the store's rate;
    ``missing`` of its ``shards`` lack some of the views, which only ``--shards`` and sources of other parts leave.
    ``relation_bytes`` are of the frames, the clips and their basis, where the store keeps them."""

    location: str
    clips: int
    views: int
    failures: Sequence[tuple[str, str]]
    blocks: int
    made_views: int
    seconds: float
    store_bytes: int
    pcm_bytes: int
    stored_views: int
    shards: int
    missing: int
    relation_bytes: dict[str, int] = field(default_factory=dict)


def summarise(
    writer: StoreWriter, committed: Sequence[Commit], *, made_views: int, seconds: float, missing: int
) -> BuildSummary:
    """The summary of a store with these commits; the rest is the build's own."""
    clips = writer.clips
    paths = clips["path"]
    failures = {c.first_clip + row: reason for c in committed for row, reason in c.failed}
    sizes = writer.storage.sizes()
    return BuildSummary(
        location=writer.storage.location,
        clips=clips.num_rows,
        views=max((c.view_stop for c in committed), default=0),
        failures=[(paths[clip].as_py(), failures[clip]) for clip in sorted(failures)],
        blocks=len(committed),
        made_views=made_views,
        seconds=seconds,
        store_bytes=sum(size for name, size in sizes.items() if name.split("/")[0] not in (SCRATCH, claims.FOLDER)),
        pcm_bytes=pcm_bytes(clips, writer.manifest.sample_rate),
        stored_views=sum((c.clips - len(c.failed)) * c.views for c in committed),
        shards=writer.shards,
        missing=missing,
        relation_bytes={} if writer.manifest.relations is None else relation_bytes(sizes),
    )


def pcm_bytes(table: pa.Table, sample_rate: int) -> int:
    """Bytes of the clips' own audio as 16-bit mono PCM at the store's rate."""
    length, rate = (table[name].to_numpy().astype(np.int64) for name in ("length", "rate"))
    return int(2 * np.sum(samples_at(length, np.maximum(rate, 1), sample_rate)))
