"""From the teachers' features to what a store keeps of them: Gram matrices of frames (IUSP) and clip vectors (SP).

The members of an ensemble count alike here, whatever their weights: each one's Gram matrix is divided by its Frobenius
norm and each one's clip vector by its length, and the mean over members is taken of the first, and of the inner
products of the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from logitstore.arrays import F32, I64, U8
from logitstore.errors import ModelOutputError, UsageError
from logitstore.jobs.build.block import BlockPlan, block_draws, raise_first
from logitstore.models.grams import gram, pooled, row_normalised
from logitstore.store.format.basis import Basis, fit
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.relations import (
    CLIP_COMPONENTS,
    LEAST_FRAMES,
    MOST_FRAMES,
    RelationSpec,
    decode,
    encode_clips,
    encode_frames,
)
from logitstore.views.recipe import Draws, Masks
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    from logitstore.audio.clips import ClipAudio
    from logitstore.store.reader import Store
    from logitstore.store.writer import StoreWriter
    from teachers.ensemble import Ensemble


#: Clips of the sample that a basis is fitted on, at most.
SAMPLE_CLIPS = 1024
_KINDS = ("frames", "clips")


def relation_spec(relations: str | None, frames: int) -> RelationSpec | None:
    """What ``--relations`` and ``--similarity-frames`` ask for; None for no relations.

    :raises UsageError: other relations than frames and clips, or a number of frames that cannot be stored.
    """
    if not LEAST_FRAMES <= frames <= MOST_FRAMES:
        raise UsageError(f"--similarity-frames is {frames}; allowed are {LEAST_FRAMES} to {MOST_FRAMES}")
    if relations is None:
        return None
    asked = [name.strip() for name in relations.split(",")]
    if not set(asked) <= set(_KINDS) or len(set(asked)) != len(asked):
        raise UsageError(f"--relations {relations!r}; allowed are frames (for IUSP), clips (for SP) and frames,clips")
    return RelationSpec(
        frames=frames if "frames" in asked else None, clips=CLIP_COMPONENTS if "clips" in asked else None, pooled=frames
    )


def mean_gram(features: Sequence[torch.Tensor], frames: int) -> torch.Tensor:
    """The mean over members of G / ‖G‖_F, G = F Fᵀ of features (B, T_m, D_m) pooled to ``frames``.

    :returns: float32 (B, frames, frames); a member whose features are all zero adds nothing.
    """
    grams = [gram(_pooled(member, frames)) for member in features]
    sizes = [torch.linalg.matrix_norm(each, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) for each in grams]
    mean: torch.Tensor = sum(each / size for each, size in zip(grams, sizes, strict=True)) / len(grams)
    return mean


def unit_frames(features: Sequence[torch.Tensor], frames: int) -> list[torch.Tensor]:
    """Each member's features (B, T_m, D_m), pooled to ``frames`` and divided by the norm of the whole and by the square
    root of the number of members: float32 (B, frames, D_m).

    Flattened and side by side these are a clip's vector in full: an inner product of two is the mean over the members
    of their cosines.
    """
    pools = [_pooled(member, frames) for member in features]
    sizes = [each.flatten(1).norm(dim=1).clamp(min=1e-12) * math.sqrt(len(features)) for each in pools]
    return [each / size[:, None, None] for each, size in zip(pools, sizes, strict=True)]


def _pooled(frames: torch.Tensor, count: int) -> torch.Tensor:
    """Features (B, T, D) pooled to ``count`` frames, each clip's times the power of two that puts its largest number
    in [1/2, 1): products of huge or tiny ones stay within float32, and no other bit changes."""
    pools = pooled(frames, count)
    largest = pools.abs().amax(dim=(1, 2), keepdim=True)
    return torch.ldexp(pools, -torch.frexp(largest).exponent.clamp(-126, 126))


class Relator:
    """Turns the features of a batch into a store's codes.

    :param basis: of the clips' vectors; needed where the store keeps those.
    """

    def __init__(self, spec: RelationSpec, basis: Basis | None, device: torch.device) -> None:
        self.spec, self.basis = spec, basis
        matrices = [] if basis is None else [*basis.frame_matrices(), basis.matrix()]
        self._matrices = [torch.from_numpy(matrix).to(device) for matrix in matrices]

    def vectors(self, features: Sequence[torch.Tensor]) -> F32:
        """The clips' vectors on the basis, float32 (B, 64).

        :raises ModelOutputError: the features are not of the sizes that the basis was fitted on.
        """
        stored = [] if self.basis is None else self.basis.widths.tolist()
        found = [member.shape[2] for member in features]
        if found != stored:
            raise ModelOutputError(
                f"the teachers gave {found} features a frame and the store's basis takes {stored}; are these the "
                "teachers that the store was begun with?"
            )
        *steps, last = self._matrices
        with torch.autocast(last.device.type, enabled=False):
            members = unit_frames(features, self.spec.pooled)
            reduced = [(each @ step.T).flatten(1) for each, step in zip(members, steps, strict=True)]
            projected: F32 = (torch.cat(reduced, dim=1) @ last.T).cpu().numpy()
        return projected

    def codes(self, features: Sequence[torch.Tensor]) -> U8:
        """What the store keeps of a batch of features (B, T_m, D_m): uint8 (B, width)."""
        parts = []
        if self.spec.frames is not None:
            parts.append(encode_frames(mean_gram(features, self.spec.frames).cpu().numpy()))
        if self.basis is not None:
            parts.append(encode_clips(self.vectors(features), self.basis.mean))
        return np.concatenate(parts, axis=1)


def relation_comparer(
    store: Store, ensemble: Ensemble
) -> Callable[[Sequence[tuple[int, int]], Sequence[torch.Tensor]], list[float]]:
    """A function that gives, of views (clip, view) and their features now, how far the stored relations are from them:
    ‖stored - now‖ / ‖now‖ of row-normalised Gram matrices and of vectors, both through the codec."""
    spec = store.require_relations()
    basis = store.basis if spec.clips is not None else None
    relator = Relator(spec, basis, ensemble.device)

    def compare(views: Sequence[tuple[int, int]], features: Sequence[torch.Tensor]) -> list[float]:
        codes = relator.codes(features)
        apart = []
        for number, (clip, view) in enumerate(views):
            stored, now = (
                store.relations(view, [clip]),
                decode(spec, codes[number : number + 1], None if basis is None else basis.mean),
            )
            if stored.frames is not None and now.frames is not None:
                here, there = (row_normalised(torch.from_numpy(grams)) for grams in (now.frames, stored.frames))
                apart.append(_relative(here.numpy(), there.numpy()))
            if stored.clips is not None and now.clips is not None:
                apart.append(_relative(now.clips, stored.clips))
        return apart

    return compare


def _relative(now: F32, stored: F32) -> float:
    size = float(np.linalg.norm(now))
    return float(np.linalg.norm(stored - now)) / size if size else float(np.any(stored))


def make_relator(
    spec: RelationSpec,
    ensemble: Ensemble,
    writer: StoreWriter,
    audio: ClipAudio,
    pool: ThreadPoolExecutor,
    *,
    strict: bool,
    note: Callable[[str], None],
) -> Relator:
    """The relator of a store, its basis fitted first if it needs one and has none; see :func:`require_basis`."""
    basis = None
    if spec.clips is not None:
        basis = require_basis(spec, ensemble, writer, audio, pool, strict=strict, note=note)
    return Relator(spec, basis, ensemble.device)


def require_basis(
    spec: RelationSpec,
    ensemble: Ensemble,
    writer: StoreWriter,
    audio: ClipAudio,
    pool: ThreadPoolExecutor,
    *,
    strict: bool,
    note: Callable[[str], None],
) -> Basis:
    """The store's basis, fitted and written first if there is none yet.

    :raises UsageError: there is none, and nothing to fit it on.
    :raises AudioError: with ``strict``, the first clip of its sample that cannot be decoded.
    """
    stored = writer.basis()
    if stored is not None:
        return stored
    note("fitting the basis of the clips' vectors on a sample of the clips")
    sample = [
        [frames.cpu().numpy() for frames in unit_frames(ensemble.outputs(waveforms, masks).features, spec.pooled)]
        for waveforms, masks in sample_batches(writer, audio, pool, strict=strict)
    ]
    if not sample:
        raise UsageError(
            f"not one of the {SAMPLE_CLIPS} clips that the basis of --relations clips would be fitted on can be "
            "decoded; see that the source is audio, or build with --relations frames"
        )
    return writer.put_basis(fit([np.concatenate(batches) for batches in zip(*sample, strict=True)]))


def sample_batches(
    writer: StoreWriter, audio: ClipAudio, pool: ThreadPoolExecutor, *, strict: bool
) -> Iterator[tuple[torch.Tensor, Masks | None]]:
    """The first view of up to :data:`SAMPLE_CLIPS` readable clips, spread evenly over the source, as the teachers hear
    it: batches of waveforms float32 (B, S) and masks. Clips that cannot be decoded are left out.

    :raises AudioError: with ``strict``, the first of those.
    """
    manifest = writer.manifest
    readable = np.concatenate(
        [part.first_clip + np.flatnonzero(part.table["rate"].to_numpy() > 0) for part in writer.own]
    )
    spread = np.unique(np.linspace(0, len(readable) - 1, min(SAMPLE_CLIPS, len(readable))).astype(np.int64))
    chosen = readable[spread] if len(readable) else readable
    renderer = Renderer(audio, manifest.recipe, manifest.place, pool=pool, mix_without=True)
    for start in range(0, len(chosen), manifest.batch_size):
        clips = chosen[start : start + manifest.batch_size]
        draws, firsts = _first_draws(manifest, writer, clips)
        rows = manifest.recipe.partners(draws)
        batch = renderer.batch(clips, draws, None if rows is None else np.where(rows < 0, -1, firsts + rows))
        if strict:
            raise_first(audio, batch.errors)
        kept = np.flatnonzero(batch.readable)
        if len(kept):
            yield batch.waveforms[torch.from_numpy(kept)], None if batch.masks is None else batch.masks[kept]


def _first_draws(manifest: Manifest, writer: StoreWriter, clips: I64) -> tuple[Draws, I64]:
    """The draws of view 0 of some clips, rising, and the first clip of each one's shard, int64 (n,)."""
    found: list[Draws] = []
    firsts: list[I64] = []
    at = 0
    while at < len(clips):
        part = next(p for p in writer.own if p.first_clip <= clips[at] < p.first_clip + p.table.num_rows)
        shard = part.first_shard + (int(clips[at]) - part.first_clip) // manifest.shard_clips
        inside = part.clips_of(shard, manifest.shard_clips)
        here = clips[(clips >= inside.start) & (clips < inside.stop)]
        drawn = block_draws(manifest, part, BlockPlan(shard, inside, 0, 1))
        found.append(Draws({name: values[here - inside.start, 0] for name, values in drawn.items()}))
        firsts.append(np.full(len(here), inside.start))
        at += len(here)
    return Draws.joined(found), np.concatenate(firsts)
