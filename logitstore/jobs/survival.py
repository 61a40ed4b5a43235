"""Does a teacher still hear in augmented views what it hears in the clips? By recipe, and op by op.

A student learns what teachers say of views, so a recipe that a teacher was never trained for teaches its mistakes. Some
clips are asked about as they are and under the draws that a build gives them; counted is how often the most probable
class is the same, and how far the answers are apart. An op alone has the very draws that it has within the recipe.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.audio.ahead import decoded_ahead
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import samples_at
from logitstore.errors import AudioError
from logitstore.evaluation.agreement import divergence
from logitstore.views.ops import Place
from logitstore.views.recipe import GENTLE, NONE, Draws, Recipe, draw
from logitstore.views.render import Rendered, Renderer

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source
    from logitstore.store.format.manifest import Manifest
    from teachers.ensemble import Ensemble

#: A teacher that keeps its top class in fewer of the views than this is warned of.
LEAST_KEPT = 0.6
#: How many clips are asked about, at most.
CLIPS = 32
_TRIES = 4  # for each of them
_ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Kept:
    """How near the answers to some views are to those to their clips.

    ``top``: the share of views whose most probable class is the clip's, in [0, 1]. ``kl``: the mean divergence
    KL(clip || view) in nats, see :func:`logitstore.evaluation.agreement.divergence`.
    """

    top: float
    kl: float


@dataclass(frozen=True)
class Hearer:
    """What of one teacher, or of the ensemble, survives: under the ``recipe``, and under each of its ``ops`` alone;
    of those nothing where they were not asked about."""

    teacher: str
    recipe: Kept
    ops: dict[str, Kept]


@dataclass(frozen=True)
class Survival:
    """What of teachers' answers survives a recipe: of each teacher and, where there are several, of their ensemble.

    ``views`` views of ``clips`` clips were asked about. ``mixing``: ops that mix in another clip, which changes the
    sound by intent; the recipe is measured without them, they are measured alone.
    """

    recipe: str
    clips: int
    views: int
    mixing: tuple[str, ...]
    teachers: tuple[Hearer, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """A line for every teacher that keeps its top class in too few views: which op costs most, and what to do."""
        return [
            f"{'the ensemble' if each.teacher == _ENSEMBLE else f'teacher {each.teacher!r}'} keeps its top class in "
            f"{each.recipe.top:.2f} of the views of recipe {self.recipe!r}{self._worst(each)}; a student would learn "
            f"answers to sounds that its teacher mistakes: {self._remedy(each)}"
            for each in self.teachers
            if each.recipe.top < LEAST_KEPT
        ]

    def _costs(self, hearer: Hearer) -> str | None:
        """The op that changes the answers most, of those that do not mean to."""
        alone = {name: kept for name, kept in hearer.ops.items() if name not in self.mixing}
        return min(alone, key=lambda name: (alone[name].top, -alone[name].kl), default=None)

    def _worst(self, hearer: Hearer) -> str:
        name = self._costs(hearer)
        return "" if name is None else f", and in {hearer.ops[name].top:.2f} under {name} alone, which costs most"

    def _remedy(self, hearer: Hearer) -> str:
        name = self._costs(hearer)
        without = "with milder ops" if name is None else f"without {name}, or with less of it"
        if self.recipe == GENTLE:
            return f"use a YAML file {without}"
        return f"use --recipe {GENTLE}, or a YAML file {without}"

    def lines(self) -> list[str]:
        """The table for people: a teacher a line, a column for the recipe and for each op, top (KL)."""
        ops = list(self.teachers[0].ops)
        rows = [["", self.recipe, *ops]]
        for each in self.teachers:
            cells = [each.recipe, *each.ops.values()]
            rows.append([each.teacher, *(f"{kept.top:.2f} ({kept.kl:.2g})" for kept in cells)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"share of {self.views:,} views of {self.clips:,} clips that keep the clip's top class (and the mean KL to "
            "its answer, in nats)",
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        ]
        if self.mixing:
            lines.append(
                f"{', '.join(self.mixing)} mixes in another clip by intent, so the top class may rightly change: "
                f"{self.recipe} is measured without it"
            )
        return lines

    def headed(self) -> list[str]:
        """The table and the warnings as the last lines of a build."""
        table = [f"{'' if number else 'survival':<11}{line}" for number, line in enumerate(self.lines())]
        return table + [f"warning    {line}" for line in self.warnings()]


@dataclass(frozen=True)
class Sample:
    """Views of some clips that can be decoded, as a store of a clip table would have them.

    ``clips`` int64 (n,), the clip of each view, whose ``draws`` are of the ``recipe``; ``heard`` the decoded clips by
    their numbers.
    """

    recipe: Recipe
    place: Place
    audio: ClipAudio
    clips: I64
    draws: Draws
    heard: dict[int, F32 | AudioError]
    pool: Executor | None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        place: Place,
        table: pa.Table,
        audio: ClipAudio,
        *,
        seed: int = 0,
        clips: int = CLIPS,
        views: int = CLIPS,
        pool: Executor | None = None,
    ) -> Sample | None:
        """Views of clips spread over a table; None where no clip can be decoded.

        :param place: of the store: length and rate of views, clips of a shard. :param table: the clip table.
        :param audio: the clips of that table, at the rate of ``place``. :param seed: of the store.
        :param clips: of how many, fewer where fewer can be decoded. :param views: how many in all; at least one a clip.
        """
        heard = _decoded(audio, table, clips, pool)
        if not heard:
            return None
        chosen = sorted(heard)
        each = max(1, views // len(chosen))
        draws = Draws.joined([_draws(recipe, place, table, seed, clip, each) for clip in chosen])
        return cls(recipe, place, audio, np.repeat(np.array(chosen), each), draws, heard, pool)

    def views(self, at: slice | I64, recipe: Recipe | None = None, draws: Draws | None = None) -> Rendered:
        """Some of the views; or other views of their clips, by a recipe and its draws, of all the views."""
        used, drawn = (self.recipe, self.draws) if recipe is None or draws is None else (recipe, draws)
        renderer = Renderer(self.audio, used, self.place, pool=self.pool, mix_without=True)
        clips, here = self.clips[at], drawn[at]
        rows = used.partners(here)
        partners = None if rows is None else np.where(rows < 0, -1, clips - clips % self.place.shard_clips + rows)
        return renderer.batch(clips, here, partners, self.heard)


def survival(ensemble: Ensemble, sample: Sample, *, by_op: bool = True, batch_size: int = 32) -> Survival | None:
    """Ask an ensemble about some clips, about views of them, and about as many views again for each op.

    :param by_op: whether to ask op by op in any case. If not, only where a teacher keeps too little.
    :returns: None of a recipe without ops.
    :raises ModelOutputError: a teacher failed, or gave no probabilities.
    """
    recipe, draws = sample.recipe, sample.draws
    if not recipe.ops:
        return None

    def kept(part: Recipe, drawn: Draws) -> list[Kept]:
        return _kept(clean, _answers(ensemble, sample, part, drawn, batch_size), ensemble.scores)

    chosen, each_clip = np.unique(sample.clips, return_counts=True)
    once = replace(sample, clips=chosen)
    clean = np.repeat(_answers(ensemble, once, NONE, Draws({}), batch_size), each_clip, axis=1)
    whole = kept(recipe, recipe.without_partner(draws, np.ones(len(sample.clips), dtype=bool)))
    ops: dict[str, list[Kept]] = {}
    if by_op or any(each.top < LEAST_KEPT for each in whole):
        for op in recipe.ops:
            ops[op.name] = kept(Recipe(recipe.name, (op,)), Draws({name: draws.columns[name] for name in op.columns}))
    names = [teacher.spec for teacher in ensemble.members] + [_ENSEMBLE] * (len(ensemble.members) > 1)
    return Survival(
        recipe.name,
        len(sample.heard),
        len(sample.clips),
        tuple(op.name for op in recipe.ops if op.mixes),
        tuple(
            Hearer(name, whole[number], {op: each[number] for op, each in ops.items()})
            for number, name in enumerate(names)
        ),
    )


def of_build(
    manifest: Manifest,
    table: pa.Table,
    source: Source,
    ensemble: Ensemble,
    workers: int,
    *,
    clips: int = CLIPS,
    by_op: bool = True,
) -> Survival | None:
    """What of an ensemble's answers survives the recipe of a store, told from one view of so many clips.

    :param table: the clip table, of ``source``. :param by_op: see :func:`survival`.
    :returns: None of a recipe without ops, and where no clip can be decoded.
    :raises ModelOutputError: a teacher failed, or gave no probabilities.
    """
    if not manifest.recipe.ops:
        return None
    audio = ClipAudio(source, table, manifest.sample_rate)
    with ThreadPoolExecutor(max(1, workers), "decode") as pool:
        sample = Sample.of(
            manifest.recipe, manifest.place, table, audio, seed=manifest.seed, clips=clips, views=clips, pool=pool
        )
        return None if sample is None else survival(ensemble, sample, by_op=by_op, batch_size=manifest.batch_size)


def _answers(ensemble: Ensemble, sample: Sample, recipe: Recipe, draws: Draws, batch_size: int) -> F32:
    """What is said of all views of a sample: float32 (M, n, C), the ensemble's last where M > 1."""
    said = []
    for start in range(0, len(sample.clips), batch_size):
        views = sample.views(slice(start, start + batch_size), recipe, draws)
        mean, members = ensemble.probabilities(views.waveforms, views.masks, members=True)
        answers = members.cpu().numpy()
        said.append(answers if len(answers) == 1 else np.concatenate([answers, mean[None].cpu().numpy()]))
    return np.concatenate(said, axis=1)


def _decoded(audio: ClipAudio, table: pa.Table, most: int, pool: Executor | None) -> dict[int, F32 | AudioError]:
    """Up to so many clips that can be decoded, spread over the table, by their numbers."""
    candidates = np.flatnonzero(table["rate"].to_numpy())
    if not len(candidates):
        return {}
    spread = np.linspace(0, len(candidates), min(most, len(candidates)), endpoint=False).astype(int)
    tries = dict.fromkeys((np.add.outer(np.arange(_TRIES), spread).reshape(-1) % len(candidates)).tolist())
    heard: dict[int, F32 | AudioError] = {}
    with closing(decoded_ahead(audio, candidates[list(tries)].tolist(), pool, most)) as decoding:
        for clip, sound in decoding:
            if not isinstance(sound, AudioError):
                heard[clip] = sound
            if len(heard) == most:
                break
    return heard


def _draws(recipe: Recipe, place: Place, table: pa.Table, seed: int, clip: int, views: int) -> Draws:
    """The draws of the first views of a clip, as in a store of the table's clips."""
    row = table.slice(clip, 1).to_pylist()[0]
    shard = clip - clip % place.shard_clips
    length = min(int(samples_at(row["length"], row["rate"], place.sample_rate)), place.clip_samples)
    return draw(
        recipe,
        seed=seed,
        keys=[(row["path"], row["start"], row["length"])] * views,
        view=np.arange(views),
        lengths=np.full(views, length),
        place=place,
        rows=np.full(views, clip - shard),
        shard_rows=min(place.shard_clips, table.num_rows - shard),
    )


def _kept(clean: F32, said: F32, scores: str) -> list[Kept]:
    """Of each teacher, what its answers (M, n, C) to views keep of those to their clips, of the same shape."""
    every = np.ones(clean.shape[1:], dtype=bool)
    return [
        Kept(float((one.argmax(1) == other.argmax(1)).mean()), float(divergence(one, other, every, scores).mean()))
        for one, other in zip(clean, said, strict=True)
    ]
