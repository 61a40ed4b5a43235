"""Synthetic teacher outputs that look like those of AudioSet ensembles, for measuring stores without audio.

A clip is a point in a latent space of ``RANK`` dimensions; the logit of a class is a prior, skewed as AudioSet's class
counts are, plus a linear map of the latent; each view adds independent noise of ``noise`` logits to every class:

    logit[n, v, c] = (BASE + SKEW * normal[c] + SPREAD / sqrt(RANK) * sum_r normal[r, c] * normal[n, r]
                      + noise * normal[n, v, c])

With the defaults the highest probability of a view has a median near 0.95, the 20th near 0.11, and a clip's ten views
name about 27 classes in all; ``tail`` lowers BASE for ensembles that say less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RANK = 32
BASE = -9.5
SKEW = 1.76
SPREAD = 3.8


@dataclass(frozen=True)
class Case:
    """A set of targets to make: clips x views of the top ``k`` of ``classes``."""

    clips: int = 8192
    classes: int = 527
    k: int = 20
    views: int = 10
    noise: float = 0.35
    tail: float = 0.0
    seed: int = 0


def probabilities(case: Case, chunk: int = 512) -> Iterator[np.ndarray]:
    """Probabilities of successive clips, float32 (up to ``chunk``, views, classes)."""
    random = np.random.default_rng(case.seed)
    prior = BASE - case.tail + SKEW * random.standard_normal(case.classes)
    loadings = random.standard_normal((RANK, case.classes)) * SPREAD / np.sqrt(RANK)
    for start in range(0, case.clips, chunk):
        count = min(chunk, case.clips - start)
        clip = prior + random.standard_normal((count, RANK)) @ loadings
        noise = random.standard_normal((count, case.views, case.classes), dtype=np.float32)
        logits = clip[:, None, :].astype(np.float32) + np.float32(case.noise) * noise
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
