"""What is looked at before a build writes anything: that there is sound, and that the teachers give what they state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logitstore.audio.clips import ClipAudio
from logitstore.audio.found import named
from logitstore.errors import AudioError, LogitstoreError
from logitstore.jobs.build.block import BlockPlan, block_draws, flat_draws, naming, view_batches
from logitstore.jobs.options import BuildOptions, Extension
from logitstore.store.format.parts import Part

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from logitstore.audio.source import Source
    from logitstore.store.format.manifest import Manifest
    from logitstore.views.recipe import Masks
    from teachers.ensemble import Ensemble, Outputs

_LOOKED_AT = 1024  # clips
_VIEWS_LOOKED_AT = 8
_MOST_NAMED = 3


@dataclass(frozen=True)
class Answer:
    """What was said of a batch that was asked about ahead of its time."""

    waveforms: torch.Tensor
    masks: Masks | None
    outputs: Outputs

    def of(self, waveforms: torch.Tensor, masks: Masks | None) -> Outputs | None:
        """What was said of a batch, where it is the same; None for another."""
        import torch

        if not torch.equal(waveforms, self.waveforms) or (masks is None) != (self.masks is None):
            return None
        if masks is not None and self.masks is not None:
            pairs = zip(vars(masks).values(), vars(self.masks).values(), strict=True)
            if not all(np.array_equal(here, there) for here, there in pairs):
                return None
        return self.outputs


def try_out(
    options: BuildOptions, manifest: Manifest, source: Source, clip_table: pa.Table, ensemble: Ensemble, *, begun: bool
) -> Answer | None:
    """Decode until a clip can be, and ask the teachers about the first batch that holds one.

    :param begun: whether the store has blocks of these teachers already: then only the audio is tried.

    :raises AudioError: not one clip of the source can be decoded.
    :raises ModelOutputError: a teacher failed, or gave no probabilities; the clip is named.
    """
    from teachers import checks

    audio = ClipAudio(source, clip_table, manifest.sample_rate)
    reasons: dict[int, AudioError] = {}
    part = Part("", "", clip_table, 0, 0)
    with ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "decode") as pool:
        for plan in _plans(options, manifest, clip_table.num_rows):
            draws = flat_draws(manifest, part, plan)
            done = 0
            with closing(view_batches(manifest, plan, audio, draws, pool, options.strict and not begun)) as batches:
                for batch, _ in batches:
                    if not batch.readable.any():
                        reasons |= batch.errors
                    elif begun:
                        return None
                    else:
                        with naming(audio, plan, done):
                            outputs = checks.try_out(
                                ensemble, batch.waveforms, batch.masks, features=manifest.relations is not None,
                                frames=manifest.frames, heard=batch.readable,
                            )  # fmt: skip
                        return Answer(batch.waveforms, batch.masks, outputs)
                    done += len(batch.waveforms)
    raise none_decodes(
        [(audio.place(clip), str(error)) for clip, error in sorted(reasons.items())],
        named(options.source or str(options.audio_root)),
    )


def none_decodes(reasons: list[tuple[str, str]], where: str) -> LogitstoreError:
    """The error of audio of which nothing can be heard.

    :param reasons: the place of each clip, and why it cannot be decoded. :param where: what names the audio.
    """
    some = "; ".join(f"{place}: {reason}" for place, reason in reasons[:_MOST_NAMED])
    more = "; …" if len(reasons) > _MOST_NAMED else ""
    return AudioError(
        f"not one of the {len(reasons):,} clips of {where} can be decoded ({some}{more}), so there is nothing to ask "
        "teachers about; see that these files are audio, and whole"
    )


def _plans(options: BuildOptions, manifest: Manifest, clips: int) -> Iterator[BlockPlan]:
    """The shards as a new store would have them, from the first that ``--shards`` names on, and then the others."""
    shards = list(range(-(-clips // manifest.shard_clips)))
    low = (options.shards or "").partition(":")[0]
    first = int(low) if low.isdecimal() and not isinstance(options, Extension) else 0
    for shard in (*shards[first:], *shards[:first]):
        stop = min((shard + 1) * manifest.shard_clips, clips)
        yield BlockPlan(shard, range(shard * manifest.shard_clips, stop), 0, options.views or 1)


def alike(manifest: Manifest, clip_table: pa.Table, views: int) -> str | None:
    """A line on views that are all the same, going by the draws of the first clips; None where they differ."""
    if views < 2 or not clip_table.num_rows:
        return None
    part = Part("", "", clip_table.slice(0, _LOOKED_AT), 0, 0)
    plan = BlockPlan(0, range(part.table.num_rows), 0, min(views, _VIEWS_LOOKED_AT))
    drawn = block_draws(manifest, part, plan)
    if any(bool((values != values[:, :1]).any()) for values in drawn.values()):
        return None
    why = "has no op" if not manifest.recipe.ops else "draws the same for every view"
    return (
        f"all {views} views of a clip are alike, for the recipe {manifest.recipe.name!r} {why}; --views 1 stores as "
        f"much in 1/{views} of the time, and another --recipe makes them differ"
    )
