"""``logitstore build --dry-run``: what a build would do, from a scan and one timed batch of each teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.jobs.build.block import BlockPlan, block_draws
from logitstore.jobs.build.sizes import duration, store_bytes, view_bytes
from logitstore.jobs.plan import rate_of
from logitstore.jobs.survival import Survival, of_build
from logitstore.store.format.basis import FRAME_COMPONENTS
from logitstore.store.format.manifest import encode_root
from logitstore.store.format.parts import Part
from logitstore.store.format.relations import ARRAYS, RelationSpec, relation_sizes
from logitstore.store.summary import pcm_bytes
from logitstore.texts import in_lines
from logitstore.views.recipe import Draws, masks

if TYPE_CHECKING:
    from logitstore.jobs.build.job import Job

#: Bytes of one code of an array of relations in a store, of the cnn4 teachers of docs/benchmarks.md.
_BYTES_A_CODE = {"frame_norms": 0.91, "frame_angles": 0.60, "clip_scales": 0.67, "clip_vectors": 0.81}
_BYTES_AN_ARRAY = 400  # its metadata
_WHEN = "frames     every {} ms, which come on top: some 100 to 1,000 bytes a view, by how much sounds when"


@dataclass(frozen=True)
class Plan:
    """What a build would do, in ``lines`` for people; ``survival`` is None under a recipe without ops, and where no
    clip can be decoded."""

    lines: list[str]
    survival: Survival | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"dry_run": self.lines, "survival": None if self.survival is None else self.survival.to_dict()}

    def render(self) -> str:
        """The lines, and what of the teachers' answers survives the recipe."""
        return in_lines([*self.lines, *([] if self.survival is None else self.survival.headed())])


def dry_run(job: Job) -> Plan:
    """What the build would do, the problems that the scan found, and what of the teachers' answers survives."""
    import torch

    from teachers.ensemble import load_ensemble

    manifest, table, options = job.manifest, job.clip_table, job.options
    clips, views = table.num_rows, options.views or 1
    total = clips * views
    shards = -(-clips // manifest.shard_clips)
    batch = min(manifest.batch_size, total)
    timed = min(clips, batch)
    part = Part("", "", table, 0, 0)
    drawn = block_draws(manifest, part, BlockPlan(0, range(timed), 0, 1))
    index = np.arange(batch) % timed
    hidden = masks(manifest.recipe, Draws({name: values[index, 0] for name, values in drawn.items()}))
    noise = np.random.default_rng(0).standard_normal((batch, manifest.clip_samples)).astype(np.float32) * 0.1
    waveforms = torch.from_numpy(noise)
    lines, seconds, widths = [], 0.0, list[int]()
    kept = manifest.relations
    for teacher in job.ensemble.members:
        member = load_ensemble(
            [teacher],
            sample_rate=manifest.sample_rate,
            device=str(job.ensemble.device),
            precision=job.ensemble.precision,
        )
        rate, said = rate_of(member, waveforms, hidden, features=kept is not None, frames=manifest.frames)
        seconds += batch / rate
        widths += [int(frames.shape[2]) for frames in said.features]
        lines.append(f"teacher    {teacher.spec}: {rate:,.1f} views/s")
    unreadable = [
        path for path, rate in zip(table["path"].to_pylist(), table["rate"].to_pylist(), strict=True) if not rate
    ]
    hours = pcm_bytes([table], manifest.sample_rate) / 2 / manifest.sample_rate / 3600
    planes = sum(column.planes for column in manifest.columns)
    kept_classes = f"{manifest.topk}"
    if manifest.quality is not None:
        kept_classes = f"1 to {manifest.topk}, with {manifest.quality:g} nats lost,"
    per_view = view_bytes(manifest.topk, manifest.value_bits, planes, manifest.quality)
    related = {} if kept is None else _relation_sizes(kept, widths, total, shards)
    expected = sum(related.values()) + store_bytes(clips, views, shards, per_view) + len(encode_root(manifest))
    lines = [
        f"clips      {clips:,}, {hours:,.2f} hours of audio",
        f"views      {views} each, {total:,} in all, in {shards:,} blocks of {manifest.shard_clips:,} clips",
        f"classes    {len(manifest.classes)}, of which {kept_classes} are kept; {manifest.scores} scores",
        *lines,
        f"time       about {duration(seconds * total / batch)} on {job.device}",
        f"size       about {expected / 1e6:,.1f} MB, {expected / total:.0f} bytes a view",
        *([f"relations  {relation_sizes(related, total)}"] if kept is not None else []),
        *([_WHEN.format(manifest.frames.hop_ms)] if manifest.frames is not None else []),
        f"problems   {len(unreadable)} files cannot be read" if unreadable else "problems   none found",
    ]
    lines += [f"           {path}" for path in unreadable[:10]]
    if len(unreadable) > 10:
        lines.append(f"           … and {len(unreadable) - 10} more")
    survival = of_build(manifest, table, job.source, job.ensemble, job.workers)
    return Plan(lines, survival)


def _relation_sizes(spec: RelationSpec, widths: list[int], views: int, blocks: int) -> dict[str, int]:
    """Bytes of the frames, the clips and their basis that a store of some views will hold.

    :param widths: features of a frame of each teacher.
    """
    sizes = {"frames": 0, "clips": 0, "basis": 0}
    for name, length in spec.lengths.items():
        sizes[ARRAYS[name]] += round(length * _BYTES_A_CODE[name] * views) + _BYTES_AN_ARRAY * blocks
    if spec.clips is not None:
        sizes["basis"] = FRAME_COMPONENTS * (sum(widths) + spec.clips * spec.pooled * len(widths))
    return sizes
