"""Does a teacher still hear in augmented views what it hears in the clips? By recipe, and op by op.

A student learns what teachers say of views, so a recipe that a teacher was never trained for teaches its mistakes. Some
clips are asked about as they are and under the draws that a build gives them; counted is how often the most probable
class is the same, and how far the answers are apart. An op alone has the very draws that it has within the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.audio.ahead import decoded_ahead
from logitstore.audio.clips import ClipAudio
from logitstore.audio.lengths import samples_at
from logitstore.errors import AudioError
from logitstore.views.ops import Op, Place
from logitstore.views.recipe import BUILT_IN, GENTLE, NONE, Draws, Recipe, draw
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

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
    KL(clip || view) in nats, see :func:`logitstore.models.losses.divergence`.
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


def survival(
    ensemble: Ensemble,
    recipe: Recipe,
    place: Place,
    table: pa.Table,
    audio: ClipAudio,
    *,
    seed: int = 0,
    clips: int = CLIPS,
    views: int = CLIPS,
    by_op: bool = True,
    batch_size: int = 32,
    pool: Executor | None = None,
) -> Survival | None:
    """Ask an ensemble about some clips, and about views of them.

    That is ``clips + views`` asked, and ``views`` more for each op.

    :param place: of the store: length and rate of views, clips of a shard. :param table: the clip table.
    :param audio: the clips of that table, at the rate of ``place``. :param seed: of the store.
    :param clips: of how many, spread over the table; fewer where fewer can be decoded.
    :param views: how many in all; at least one a clip.
    :param by_op: whether to ask op by op in any case. If not, only where a teacher keeps too little.
    :returns: None of a recipe without ops, and where no clip can be decoded.
    :raises ModelOutputError: a teacher failed, or gave no probabilities.
    """
    if not recipe.ops:
        return None
    known = _readable(audio, table, clips, pool)
    if not known:
        return None
    asked = _Asked(ensemble, place, audio, known, batch_size, pool)
    chosen = np.array(sorted(known))
    each = max(1, views // len(chosen))
    numbers = np.repeat(chosen, each)
    draws = Draws.joined([_draws(recipe, place, table, seed, clip, each) for clip in chosen.tolist()])
    clean = np.repeat(asked.answers(chosen, NONE, Draws({})), each, axis=1)
    alone = recipe.without_partner(draws, np.ones(len(numbers), dtype=bool))
    whole = _kept(clean, asked.answers(numbers, recipe, alone), ensemble.scores)
    ops: dict[str, list[Kept]] = {}
    if by_op or any(kept.top < LEAST_KEPT for kept in whole):
        for op in recipe.ops:
            own = Draws({name: draws.columns[name] for name in op.columns})
            said = asked.answers(numbers, Recipe(recipe.name, (op,)), own)
            ops[op.name] = _kept(clean, said, ensemble.scores)
    names = [teacher.spec for teacher in ensemble.members] + [_ENSEMBLE] * (len(ensemble.members) > 1)
    return Survival(
        recipe.name,
        len(chosen),
        len(numbers),
        tuple(op.name for op in recipe.ops if op.mixes),
        tuple(
            Hearer(name, whole[number], {op: kept[number] for op, kept in ops.items()})
            for number, name in enumerate(names)
        ),
    )


@dataclass(frozen=True)
class _Asked:
    """What is asked about whom. ``known``: decoded clips by their numbers."""

    ensemble: Ensemble
    place: Place
    audio: ClipAudio
    known: dict[int, F32 | AudioError]
    batch_size: int
    pool: Executor | None

    def answers(self, clips: I64, recipe: Recipe, draws: Draws) -> np.ndarray:
        """What is said of views of some clips, int64 (n,): float32 (M, n, C), the ensemble's last where M > 1."""
        renderer = Renderer(self.audio, recipe, self.place, pool=self.pool, mix_without=True)
        rows = recipe.partners(draws)
        partners = None if rows is None else np.where(rows < 0, -1, clips - clips % self.place.shard_clips + rows)
        said = []
        for start in range(0, len(clips), self.batch_size):
            here = slice(start, start + self.batch_size)
            views = renderer.batch(clips[here], draws[here], None if partners is None else partners[here], self.known)
            mean, members = self.ensemble.probabilities(views.waveforms, views.masks, members=True)
            answers = members.cpu().numpy()
            said.append(answers if len(answers) == 1 else np.concatenate([answers, mean[None].cpu().numpy()]))
        return np.concatenate(said, axis=1)


def _readable(audio: ClipAudio, table: pa.Table, most: int, pool: Executor | None) -> dict[int, F32 | AudioError]:
    """Up to so many clips that can be decoded, spread over the table, by their numbers."""
    candidates = np.flatnonzero(table["rate"].to_numpy())
    if not len(candidates):
        return {}
    spread = np.linspace(0, len(candidates), min(most, len(candidates)), endpoint=False).astype(int)
    tries = dict.fromkeys(np.add.outer(np.arange(_TRIES), spread).reshape(-1) % len(candidates))
    found: dict[int, F32 | AudioError] = {}
    with closing(decoded_ahead(audio, candidates[list(tries)].tolist(), pool, most)) as decoding:
        for clip, sound in decoding:
            if not isinstance(sound, AudioError):
                found[clip] = sound
            if len(found) == most:
                break
    return found


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


def _kept(clean: np.ndarray, said: np.ndarray, scores: str) -> list[Kept]:
    """Of each teacher, what its answers (M, n, C) to views keep of those to their clips, of the same shape."""
    from logitstore.models.losses import divergence

    import torch

    same = (clean.argmax(axis=2) == said.argmax(axis=2)).mean(axis=1)
    apart = divergence(torch.from_numpy(clean), torch.from_numpy(said), scores).mean(dim=1)
    return [Kept(float(top), float(kl)) for top, kl in zip(same, apart, strict=True)]
