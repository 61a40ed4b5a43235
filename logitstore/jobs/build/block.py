"""One block's work: render its views from its clips, ask the ensemble, and gather what it said.

A batch never crosses a block, and its make-up depends only on the block and the batch size: views are taken clip by
clip, and a clip that cannot be decoded keeps its place as silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, U8, Bool
from logitstore.audio.ahead import Prefetched
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import samples_at
from logitstore.errors import AudioError, ModelOutputError
from logitstore.stages import Stages
from logitstore.store.format.frames import Runs, encode_frames
from logitstore.store.format.layout import Kept, Targets
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.parts import Part
from logitstore.store.format.quality import Answers, choose
from logitstore.store.writer import BlockContent
from logitstore.views.fingerprint import Fingerprint, fingerprint
from logitstore.views.recipe import Draws, Masks, draw
from logitstore.views.render import Rendered, Renderer

if TYPE_CHECKING:
    import torch

    from teachers.ensemble import Ensemble, Outputs


@dataclass(frozen=True)
class Said:
    """What an ensemble says of B views: ``probabilities`` (B, C); ``members`` (M, B, C) and ``relations``, uint8 codes
    (B, width), and ``frames`` (B, T, C), where the store keeps them."""

    probabilities: torch.Tensor
    members: torch.Tensor | None = None
    relations: U8 | None = None
    frames: torch.Tensor | None = None


def said_by(
    ensemble: Ensemble,
    manifest: Manifest,
    relations: Callable[[Sequence[torch.Tensor]], U8] | None,
    waveforms: torch.Tensor,
    masks: Masks | None,
    heard: Bool | None = None,
    known: Outputs | None = None,
    by_rate: Mapping[int, torch.Tensor] | None = None,
) -> Said:
    """What an ensemble says of B views, as far as a store keeps it.

    :param relations: what is kept of the members' features, where the store keeps that.
    :param heard: bool (B,), which views hold a clip that could be decoded; all of them by default.
    :param known: what the ensemble has said of them already.
    :param by_rate: the waveforms as the members take them, where they are known already; see
        :meth:`teachers.ensemble.Ensemble.at_rates`.
    """
    said = known or ensemble.outputs(
        waveforms, masks, features=relations is not None, frames=manifest.frames, heard=heard, by_rate=by_rate
    )
    return Said(
        said.probabilities,
        said.members if manifest.keep_members else None,
        None if relations is None else relations(said.features),
        said.frames,
    )


#: What is said of waveforms (B, S) and their masks; the third, bool (B,), says which of them hold a clip; the fourth
#: are the waveforms as the teachers take them, by their rates, where that is known already.
Ask = Callable[["torch.Tensor", Masks | None, Bool, Mapping[int, "torch.Tensor"] | None], Said]

#: Batches that are rendered before they are asked about, at most.
AHEAD = 3
#: Stages of a build, see :mod:`logitstore.stages`: decoding and rendering beside these.
WAIT_AUDIO, FORWARD, TOP_K, WAIT_WRITE = "wait for audio", "forward", "top-k", "wait for writes"
ENCODE, WRITE = "encode", "write"


@dataclass(frozen=True)
class BlockPlan:
    """The clips of one shard and the views to make of them."""

    shard: int
    clips: range  # their numbers
    view_start: int
    view_stop: int

    @property
    def views(self) -> int:
        """Number of views."""
        return self.view_stop - self.view_start


def block_draws(manifest: Manifest, part: Part, plan: BlockPlan) -> dict[str, I64]:
    """Draw columns of a block, each int64 (R, V), a function of the seed and the clips' keys alone."""
    table = part.table.slice(plan.clips.start - part.first_clip, len(plan.clips))
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


def flat_draws(manifest: Manifest, part: Part, plan: BlockPlan) -> Draws:
    """The draws of a block, one after the other: clip by clip, view by view."""
    return Draws({name: values.reshape(-1) for name, values in block_draws(manifest, part, plan).items()})


@dataclass(frozen=True)
class BatchContent:
    """What a block holds of one batch of B of its views: ``first`` is the place of the batch's first view among them.

    ``answers`` of the views, and what is stored where the store asks for it: ``members``, uint16 codes (M, B, k),
    ``relations``, uint8 codes (B, width), and ``runs``. ``draws`` as they were rendered; ``failed`` the reasons by row;
    ``fingerprints`` of a few.
    """

    first: int
    answers: Answers
    members: npt.NDArray[np.uint16] | None
    relations: U8 | None
    runs: Runs | None
    draws: dict[str, I64]
    failed: dict[int, str]
    fingerprints: Sequence[Fingerprint]

    def __len__(self) -> int:
        return len(self.answers.classes)


def batch_content(
    manifest: Manifest, plan: BlockPlan, first: int, batch: Rendered, fingerprints: Sequence[Fingerprint], said: Said
) -> BatchContent:
    """What a block holds of what was said of one batch of its views.

    :param first: the place of the batch's first view among the block's.
    """
    answers = Answers.of_views(len(batch.waveforms), manifest.topk)
    probabilities = said.probabilities.cpu().numpy()
    answers.put(slice(None), probabilities, manifest.scores, whole=manifest.quality is not None)
    members, runs = None, None
    if manifest.keep_members and said.members is not None:
        top = answers.classes[None].astype(np.int64)
        members = manifest.quantizer.encode(np.take_along_axis(said.members.cpu().numpy(), top, axis=2))
    if manifest.frames is not None and said.frames is not None:
        when = said.frames.cpu().numpy()
        when[~batch.readable] = 0
        runs = encode_frames(when, manifest.frames)
    failed = {clip - plan.clips.start: str(error) for clip, error in batch.errors.items()}
    return BatchContent(first, answers, members, said.relations, runs, dict(batch.draws.columns), failed, fingerprints)


class Gathering:
    """A block whose batches come in one after the other, in any order.

    :param manifest: of the store. :param plan: of the block.
    """

    def __init__(self, manifest: Manifest, plan: BlockPlan) -> None:
        self.manifest, self.plan = manifest, plan
        count = len(plan.clips) * plan.views
        self._answers = Answers.of_views(count, manifest.topk)
        self._draws = {name: np.zeros(count, np.int64) for name in manifest.recipe.columns}
        self._members: npt.NDArray[np.uint16] | None = None
        if manifest.keep_members:
            self._members = np.zeros((len(manifest.teachers), count, manifest.topk), np.uint16)
        spec = manifest.relations
        self._relations = None if spec is None else np.zeros((count, spec.width), np.uint8)
        self._runs: dict[int, Runs] = {}
        self._failed: dict[int, str] = {}
        self._fingerprints: dict[int, Sequence[Fingerprint]] = {}

    def put(self, batch: BatchContent) -> None:
        """Take in a batch; one that is there already changes nothing."""
        here = slice(batch.first, batch.first + len(batch))
        for name, values in vars(self._answers).items():
            values[here] = getattr(batch.answers, name)
        if self._members is not None and batch.members is not None:
            self._members[:, here] = batch.members
        if self._relations is not None and batch.relations is not None:
            self._relations[here] = batch.relations
        if batch.runs is not None:
            self._runs[batch.first] = batch.runs
        for name, drawn in batch.draws.items():
            self._draws[name][here] = drawn
        self._failed |= batch.failed
        self._fingerprints[batch.first] = batch.fingerprints

    def content(self) -> BlockContent:
        """Everything that the block holds, once all its batches are there."""
        manifest, clips, views = self.manifest, len(self.plan.clips), self.plan.views
        readable = np.ones(clips, dtype=bool)
        readable[list(self._failed)] = False

        def by_clip(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values.reshape(clips, views, *values.shape[1:])

        members, relations = self._members, self._relations
        if relations is not None:
            relations = by_clip(relations)
            relations[~readable] = 0
        stored = None
        if manifest.quality is None:
            codes = manifest.quantizer.encode(self._answers.probabilities)
        else:
            of_views = np.repeat(readable, views)
            chosen = choose(self._answers, manifest.quality, manifest.scores, len(manifest.classes), of_views)
            codes = chosen.codes
            counts, rests = (
                by_clip(np.where(of_views, each, 0).astype(each.dtype)) for each in (chosen.counts, chosen.rests)
            )
            stored = Kept(counts, rests, chosen.bits, chosen.loss)
        in_order = sorted(self._fingerprints)
        return BlockContent(
            Targets(by_clip(self._answers.classes), by_clip(codes), readable, stored),
            None if members is None else members.reshape(len(members), clips, views, manifest.topk),
            Draws({name: by_clip(values) for name, values in self._draws.items()}),
            self._failed,
            [each for first in in_order for each in self._fingerprints[first]],
            relations,
            None if manifest.frames is None else Runs.joined([self._runs[first] for first in in_order]),
        )


class Heard(NamedTuple):
    """A batch that is ready to be asked about: its views, what makes the fingerprints that belong to it, and the
    waveforms as the teachers take them, by their rates (see :meth:`teachers.ensemble.Ensemble.at_rates`)."""

    batch: Rendered
    fingerprints: list[Callable[[], Fingerprint]]
    by_rate: Mapping[int, torch.Tensor] | None


class Begun:
    """A block whose views are rendered, from now on, a few batches ahead of their use.

    :param at_rates: makes of a batch's waveforms what the teachers take, ahead of their use too.
    :param strict: whether a clip that cannot be decoded is an error.
    """

    def __init__(
        self,
        manifest: Manifest,
        part: Part,
        plan: BlockPlan,
        renderer: Renderer,
        *,
        at_rates: Callable[[torch.Tensor], Mapping[int, torch.Tensor]] | None = None,
        strict: bool = False,
    ) -> None:
        self.manifest, self.plan, self.renderer = manifest, plan, renderer

        def ready() -> Iterator[Heard]:
            draws = flat_draws(manifest, part, plan)
            rendered = view_batches(manifest, plan, renderer.audio, draws, None, strict, renderer)
            with closing(rendered) as batches:
                for batch, fingerprints in batches:
                    yield Heard(batch, fingerprints, None if at_rates is None else at_rates(batch.waveforms))

        self.batches = Prefetched(ready(), AHEAD)

    def close(self) -> None:
        """Render no more."""
        self.batches.close()


def asked(
    begun: Begun,
    ask: Ask,
    *,
    advance: Callable[[int], None] = lambda views: None,
    ending: Callable[[], None] = lambda: None,
) -> Gathering:
    """What the ensemble says of a block that was begun.

    :param advance: told how many views were just finished. :param ending: called once, when the last batches of the
        block are being asked about: the time to begin another.
    :raises AudioError: of a block that is begun as strict, the first clip that cannot be decoded, by name.
    :raises ModelOutputError: a teacher did not give probabilities; the clip is named.
    """
    manifest, plan, stages = begun.manifest, begun.plan, begun.renderer.stages
    gathering, done = Gathering(manifest, plan), 0
    last = len(plan.clips) * plan.views - AHEAD * manifest.batch_size
    ended = False
    with closing(begun):
        while True:
            with stages.of(WAIT_AUDIO):
                heard = next(begun.batches, None)
            if heard is None:
                break
            batch = heard.batch
            # not by the thread that renders: torch would start threads of its own for it, and OpenMP, with more threads
            # than there are cores, would put the teachers' to sleep after every step, which took YAMNet 40 % longer
            fingerprints = [make() for make in heard.fingerprints]
            with stages.of(FORWARD), naming(begun.renderer.audio, plan, done):
                said = ask(batch.waveforms, batch.masks, batch.readable, heard.by_rate)
                said = replace(said, probabilities=said.probabilities.cpu())  # which waits for a GPU
            with stages.of(TOP_K):
                gathering.put(batch_content(manifest, plan, done, batch, fingerprints, said))
            done += len(batch.waveforms)
            advance(len(batch.waveforms))
            if not ended and done >= last:
                ended = True
                ending()
    return gathering


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
    stages: Stages | None = None,
) -> BlockContent:
    """Everything that one block holds; the arguments and errors are those of :func:`asked`."""
    renderer = Renderer(audio, manifest.recipe, manifest.place, pool=pool, mix_without=True, stages=stages)
    return asked(Begun(manifest, part, plan, renderer, strict=strict), ask, advance=advance).content()


@contextmanager
def naming(audio: ClipAudio, plan: BlockPlan, done: int) -> Iterator[None]:
    """Around the asking of a batch that begins after ``done`` views of a block: an error names the clip it is about."""
    try:
        yield
    except ModelOutputError as error:
        if error.row is None:
            raise
        clip, view = divmod(done + error.row, plan.views)
        place = f"{audio.place(plan.clips.start + clip)}, view {plan.view_start + view}"
        raise ModelOutputError(f"{place}: {error}") from error


def view_batches(
    manifest: Manifest,
    plan: BlockPlan,
    audio: ClipAudio,
    draws: Draws,
    pool: ThreadPoolExecutor | None,
    strict: bool,
    renderer: Renderer | None = None,
) -> Generator[tuple[Rendered, list[Callable[[], Fingerprint]]], None, None]:
    """The views of a block, clip by clip, in batches; with the first readable one of each half goes what makes its
    fingerprint.

    :param renderer: of these clips; one for several blocks, so that its memory is used again.
    :raises AudioError: with ``strict``, the first clip that cannot be decoded, by name.
    """
    renderer = renderer or Renderer(audio, manifest.recipe, manifest.place, pool=pool, mix_without=True)
    clips = np.repeat(np.arange(plan.clips.start, plan.clips.stop), plan.views)
    rows = manifest.recipe.partners(draws)
    partners = None if rows is None else np.where(rows < 0, -1, plan.clips.start + rows)
    ahead = 2 * manifest.batch_size // plan.views + 2 * (os.cpu_count() or 1)
    done, due = 0, sorted({0, len(clips) // 2})
    with closing(renderer.batches(clips, draws, partners, manifest.batch_size, ahead)) as batches:
        for batch in batches:
            if strict:
                raise_first(audio, batch.errors)
            fingerprints: list[Callable[[], Fingerprint]] = []
            while due and batch.readable[max(0, due[0] - done) :].any():
                first = max(0, due[0] - done)
                first += int(batch.readable[first:].argmax())
                row, view = divmod(done + first, plan.views)
                masks = None if batch.masks is None else batch.masks[first : first + 1]
                waveform, view = batch.waveforms[first], plan.view_start + view
                fingerprints.append(partial(fingerprint, row, view, waveform, masks, manifest.sample_rate))
                due = [place for place in due if place > done + first]
            yield batch, fingerprints
            done += len(batch.waveforms)


def raise_first(audio: ClipAudio, errors: dict[int, AudioError]) -> None:
    """Raise the first of the reasons why clips cannot be decoded, with the clip's place; nothing without any.

    :raises AudioError: there is one.
    """
    for clip, error in errors.items():
        raise AudioError(
            f"{audio.place(clip)}: {error}; without --strict it is recorded, and the build goes on"
        ) from error
