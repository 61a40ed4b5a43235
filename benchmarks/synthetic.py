"""Synthetic teacher outputs that look like those of AudioSet ensembles, for measuring stores without audio.

A clip is a point in a latent space of ``rank`` dimensions; the logit of a class is a prior, skewed as AudioSet's class
counts are, plus a linear map of the latent. A view moves the point by ``wobble``, all logits together by ``shift``, and
each by itself by ``noise``; ``uneven`` says how much more the views of some clips differ than those of others:

    u[n] = exp(uneven * normal[n])
    logit[n, v, c] = (base + skew * normal[c]
                      + spread / sqrt(rank) * sum_r normal[r, c] * (normal[n, r] + u[n] * wobble * normal[n, v, r])
                      + u[n] * (shift * normal[n, v] + noise * normal[n, v, c]))

``YAMNET_CED`` and ``YAMNET_GENTLE`` are fitted to what YAMNet's published weights say of 400 recordings (ESC-10, 5 s,
ten views, the recipe ``ced`` and a gentler one of roll, gain and time mask): the mass of all classes and beyond the top
20, the 10th, 50th and 90th percentile of the highest and the 20th probability, the median of the 5th, how many classes
a clip's views name in all, and how many two successive ones share. ``SURE`` is what these benchmarks had before: five
times the mass, and views that nearly agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from logitstore.store.format.manifest import Manifest


@dataclass(frozen=True)
class Ensemble:
    """What an ensemble's logits are like, see above; in logits but for ``wobble``, ``uneven``, ``rank``."""

    base: float
    skew: float
    spread: float
    wobble: float
    noise: float
    shift: float
    uneven: float = 0.0
    rank: int = 32


SURE = Ensemble(base=-9.5, skew=1.76, spread=3.8, wobble=0.0, noise=0.35, shift=0.0)
YAMNET_CED = Ensemble(base=-9.04, skew=1.96, spread=1.34, wobble=0.97, noise=0.57, shift=0.71)
YAMNET_GENTLE = Ensemble(base=-10.5, skew=2.2, spread=2.45, wobble=0.22, noise=0.3, shift=0.36, uneven=0.5, rank=12)


@dataclass(frozen=True)
class Case:
    """A set of targets to make: clips x views of the top ``k`` of ``classes``."""

    clips: int = 8192
    classes: int = 527
    k: int = 20
    views: int = 10
    noise: float | None = None  # in place of the ensemble's
    tail: float = 0.0  # less than the ensemble's base
    seed: int = 0
    ensemble: Ensemble = SURE


def probabilities(case: Case, chunk: int = 512) -> Iterator[np.ndarray]:
    """Probabilities of successive clips, float32 (up to ``chunk``, views, classes)."""
    random, of = np.random.default_rng(case.seed), case.ensemble
    prior = of.base - case.tail + of.skew * random.standard_normal(case.classes)
    loadings = random.standard_normal((of.rank, case.classes)) * of.spread / np.sqrt(of.rank)
    size = np.float32(of.noise if case.noise is None else case.noise)
    for start in range(0, case.clips, chunk):
        count = min(chunk, case.clips - start)
        clip = prior + random.standard_normal((count, of.rank)) @ loadings
        noise = random.standard_normal((count, case.views, case.classes), dtype=np.float32)
        moved = size * noise
        if of.wobble or of.shift:
            common = of.shift * random.standard_normal((count, case.views, 1))
            moved += of.wobble * random.standard_normal((count, case.views, of.rank)) @ loadings + common
        if of.uneven:
            moved *= np.exp(of.uneven * random.standard_normal((count, 1, 1)))
        logits = clip[:, None, :].astype(np.float32) + moved.astype(np.float32)
        yield 1 / (1 + np.exp(-logits))


def top_k(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Classes uint16 and probabilities float32, each (clips, views, k), falling, ties by rising class."""
    classes, values = [], []
    for chunk in probabilities(case):
        best = np.argpartition(-chunk, case.k - 1, axis=-1)[..., : case.k]
        best.sort(axis=-1)
        p = np.take_along_axis(chunk, best, axis=-1)
        order = np.argsort(-p, axis=-1, kind="stable")
        classes.append(np.take_along_axis(best, order, axis=-1).astype(np.uint16))
        values.append(np.take_along_axis(p, order, axis=-1))
    return np.concatenate(classes), np.concatenate(values)


def clip_names(count: int, seed: int = 0) -> list[str]:
    """File names like AudioSet's: eleven letters of a YouTube id and a start time, sorted and unique."""
    random = np.random.default_rng(seed)
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    names: set[str] = set()
    while len(names) < count:
        ids = letters[random.integers(0, 64, (count, 11))]
        starts = random.integers(0, 60, count) * 10
        names |= {f"Y{''.join(row)}_{start}.wav" for row, start in zip(ids, starts, strict=True)}
    return sorted(sorted(names)[:count])


def synthetic_manifest(
    classes: int, topk: int, bits: int, rate: int, seconds: float, shard_clips: int, quality: float | None = None
) -> Manifest:
    """That of a store of one synthetic teacher under the recipe ``ced``.

    :param bits: of a value. :param rate: Hz. :param seconds: of a view. :param quality: nats.
    """
    from logitstore.store.format.layout import columns_for
    from logitstore.store.format.manifest import Manifest, Member, written_version
    from logitstore.views.ops import Place
    from logitstore.views.recipe import CED

    place = Place(int(rate * seconds), rate, shard_clips)
    return Manifest(
        format_version=written_version(quality=quality),
        quality=quality,
        classes=tuple(f"class {number}" for number in range(classes)),
        scores="sigmoid",
        teachers=(Member("synthetic", "0" * 32, "sigmoid", rate, 1.0, {}),),
        average="probability",
        recipe_document=CED.to_dict(),
        draw_columns=tuple(vars(column) for column in columns_for(CED.ranges(place))),
        seed=0,
        sample_rate=rate,
        clip_seconds=seconds,
        topk=topk,
        value_bits=bits,
        shard_clips=shard_clips,
        batch_size=32,
        device_kind="cpu",
        precision="float32",
        keep_members=False,
        made_by={},
    )
