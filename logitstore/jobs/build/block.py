"""One block's work: decode each clip once, replay its views, ask the ensemble, and gather what it said.

A batch never crosses a block, and its make-up depends only on the block and the batch size: views are taken clip by
clip, and a clip that cannot be decoded keeps its place as silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, I64
from logitstore.audio.ahead import prefetched
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import samples_at
from logitstore.errors import AudioError
from logitstore.store.format.codec import top_k
from logitstore.store.format.layout import Targets
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.parts import Part
from logitstore.store.writer import BlockContent
from logitstore.views.fingerprint import Fingerprint, fingerprint
from logitstore.views.recipe import Draws, Masks, draw, masks
from logitstore.views.render import pad, replay

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Said:
    """What an ensemble says of B views: ``probabilities`` (B, C); ``members`` (M, B, C) and ``relations``, uint8 codes
    (B, width), where the store keeps them."""

    probabilities: torch.Tensor
    members: torch.Tensor | None = None
    relations: npt.NDArray[np.uint8] | None = None


#: What is said of waveforms (B, S) and their masks.
Ask = Callable[["torch.Tensor", Masks | None], Said]


@dataclass(frozen=True)
class BlockPlan:
    """Rows of one shard and the views to make of them."""

    shard: int
    rows: range  # clips, as row numbers of the clip table
    view_start: int
    view_stop: int

    @property
    def views(self) -> int:
        """Number of views."""
        return self.view_stop - self.view_start


@dataclass
class _Batch:
    waveforms: torch.Tensor  # float32 (B, S)
    spans: Masks | None
    rows: I64  # within the block
    views: I64  # within the block
    fingerprints: list[Fingerprint]


@dataclass
class _Audio:
    """What decoding found out, filled while the batches are made."""

    draws: dict[str, I64]
    failed: dict[int, str] = field(default_factory=dict)


def block_draws(manifest: Manifest, part: Part, plan: BlockPlan) -> dict[str, I64]:
    """Draw columns of a block, each int64 (R, V), a function of the seed and the clips' keys alone."""
    table = part.table.slice(plan.rows.start - part.first_clip, len(plan.rows))
    starts, frames, rates = (table[name].to_numpy().astype(np.int64) for name in ("start", "length", "rate"))
    keys = list(zip(table["path"].to_pylist(), starts.tolist(), frames.tolist(), strict=True))
    lengths = np.minimum(samples_at(frames, np.maximum(rates, 1), manifest.sample_rate), manifest.clip_samples)
    recipe = manifest.recipe
    by_view = [
        draw(
            recipe,
            seed=manifest.seed,
            keys=keys,
            view=view,
            lengths=lengths,
            place=manifest.place,
            shard_rows=len(keys),
        )
        for view in range(plan.view_start, plan.view_stop)
    ]
    return {name: np.stack([drawn.columns[name] for drawn in by_view], axis=1) for name in recipe.columns}


def make_block(
    manifest: Manifest,
    part: Part,
    plan: BlockPlan,
    audio: ClipAudio,
    ask: Ask,
    *,
    pool: ThreadPoolExecutor,
    strict: bool = False,
    advance: Callable[[int], None] = lambda views: None,
) -> BlockContent:
    """Everything that a block holds.

    :param ask: the ensemble.
    :param advance: told how many views were just finished.
    :raises AudioError: with ``strict``, the first clip that cannot be decoded.
    :raises ModelOutputError: a teacher did not give probabilities.
    """
    shape = (len(plan.rows), plan.views, manifest.topk)
    classes, codes = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    members = np.zeros((len(manifest.teachers), *shape), np.uint16) if manifest.keep_members else None
    kept = manifest.relations
    relations = None if kept is None else np.zeros((*shape[:2], kept.width), np.uint8)
    state = _Audio(block_draws(manifest, part, plan))
    marks: list[Fingerprint] = []
    made = _batches(manifest, plan, audio, state, pool, strict)
    with closing(prefetched(made)) as batches:
        for batch in batches:
            said = ask(batch.waveforms, batch.spans)
            top, values = top_k(said.probabilities.cpu().numpy(), manifest.topk)
            classes[batch.rows, batch.views] = top
            codes[batch.rows, batch.views] = manifest.quantizer.encode(values)
            if members is not None and said.members is not None:
                picked = np.take_along_axis(said.members.cpu().numpy(), top[None].astype(np.int64), axis=2)
                members[:, batch.rows, batch.views] = manifest.quantizer.encode(picked)
            if relations is not None and said.relations is not None:
                relations[batch.rows, batch.views] = said.relations
            marks += batch.fingerprints
            advance(len(batch.rows))
    readable = np.ones(len(plan.rows), dtype=bool)
    readable[list(state.failed)] = False
    if relations is not None:
        relations[~readable] = 0
    return BlockContent(Targets(classes, codes, readable), members, Draws(state.draws), state.failed, marks, relations)


def _batches(
    manifest: Manifest, plan: BlockPlan, audio: ClipAudio, state: _Audio, pool: ThreadPoolExecutor, strict: bool
) -> Iterator[_Batch]:
    recipe, place = manifest.recipe, manifest.place
    count = len(plan.rows) * plan.views
    clips = _decode_in_order(audio, plan, pool, ahead=2 * manifest.batch_size // plan.views + 2 * pool._max_workers)
    held: dict[int, F32] = {}
    wanted_mark = True
    for start in range(0, count, manifest.batch_size):
        index = np.arange(start, min(start + manifest.batch_size, count))
        rows, views = index // plan.views, index % plan.views
        held = {row: clip for row, clip in held.items() if row >= rows[0]}
        for row in range(max(held, default=int(rows[0]) - 1) + 1, int(rows[-1]) + 1):
            clip = next(clips)
            if isinstance(clip, AudioError):
                if strict:
                    raise clip
                state.failed[row] = str(clip)
                clip = np.zeros(0, np.float32)
            held[row] = clip
        partners = _partners(manifest, plan, audio, state, rows, views, held) if recipe.has_mixup else None
        draws = Draws({name: values[rows, views] for name, values in state.draws.items()})
        padded, lengths = pad([held[int(row)] for row in rows], place.clip_samples)
        waveforms = replay(padded, lengths, recipe, draws, partners=partners, overwrite=True)
        spans = masks(recipe, draws)
        fingerprints = []
        readable = [i for i, row in enumerate(rows.tolist()) if row not in state.failed]
        if wanted_mark and readable:
            i = readable[0]
            span = None if spans is None else spans[i : i + 1]
            view = int(views[i]) + plan.view_start
            fingerprints.append(fingerprint(int(rows[i]), view, waveforms[i], span, manifest.sample_rate))
            wanted_mark = False
        yield _Batch(waveforms, spans, rows, views, fingerprints)


def _decode_in_order(
    audio: ClipAudio, plan: BlockPlan, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[F32 | AudioError]:
    """The clips of a block in their order, decoded by the pool at most ``ahead`` clips early."""

    def attempt(row: int) -> F32 | AudioError:
        try:
            return audio[row]
        except AudioError as error:
            return error

    pending: list[Future[F32 | AudioError]] = []
    try:
        for row in plan.rows:
            pending.append(pool.submit(attempt, row))
            if len(pending) > ahead:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()
    finally:
        for future in pending:
            future.cancel()


def _partners(
    manifest: Manifest,
    plan: BlockPlan,
    audio: ClipAudio,
    state: _Audio,
    rows: I64,
    views: I64,
    held: dict[int, F32],
) -> list[F32 | None]:
    """The partner of every view of a batch; one that cannot be decoded is recorded as weight 0."""
    weights, partners = state.draws["mixup_weight"], state.draws["mixup_partner"]
    found: list[F32 | None] = []
    for row, view in zip(rows.tolist(), views.tolist(), strict=True):
        clip: F32 | None = None
        if weights[row, view] and row not in state.failed:
            partner = int(partners[row, view])
            try:
                clip = held[partner] if len(held.get(partner, ())) else audio[plan.rows[partner]]
            except AudioError:
                clip = None
        if clip is None:
            weights[row, view] = partners[row, view] = 0
        found.append(clip)
    return found
