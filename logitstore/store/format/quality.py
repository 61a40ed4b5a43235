"""How much of what an ensemble says a block keeps, by one number: what a view may lose, in nats.

What is stored of a view are its most probable classes, as codes of few bits, and one probability that stands for each
class that is not kept, its *rest*. What that loses is the Kullback-Leibler divergence of what the ensemble said to what
is read back, over all C classes: of sigmoid scores the sum of the classes' Bernoulli divergences, of softmax scores the
divergence of the distributions, both sides divided by their sums. Its mean over the views of a block is what
``--quality`` bounds.

A block has the fewest bits a code that can hold the number. Then every view keeps k classes where loss + lambda * k is
least, and lambda is the largest that holds it: so a class costs the same anywhere, and is kept where it says most.
Nothing but the block's own answers decides.

A view keeps no more than ``topk`` classes. Where what lies beyond these costs more than half of the number already, the
block may lose the other half on top of it: the number is then not held, and what was lost is recorded all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, F64, I64, U8, U16, Bool
from logitstore.store.format.codec import Quantizer, quantizer, top_k

#: Nats a view that can be asked for.
LEAST, MOST = 1e-3, 1e3
#: Classes of a view that are kept at most, unless ``--topk`` says otherwise.
MOST_CLASSES_KEPT = 128
#: What codes are read as: bits of the manifest. A block has codes of fewer, each of which stands for some of these.
VALUE_BITS = 8
BITS = (3, 4, 5, 6, 7, 8)
#: The scale of rests.
REST = Quantizer("log", 5)
_STEPS = 40  # halvings of the logarithm of lambda
_LAMBDA = (1e-9, 1e3)
_CHUNK = 1 << 22  # probabilities at a time


@dataclass(frozen=True)
class Answers:
    """What an ensemble says of N views, as far as it can be kept.

    ``classes`` uint16 and ``probabilities`` float32 (N, k), the k highest, falling. If the first j + 1 of them are
    kept: ``rests`` uint8 (N, k), the code of the rest, and ``lost`` float32 (N, k), what all others lose by it, in
    nats. ``sums`` float64 (N,), of all C probabilities: of softmax scores 1, but for rounding, and less where classes
    were left out.
    """

    classes: U16
    probabilities: F32
    rests: U8
    lost: F32
    sums: F64

    @classmethod
    def of_views(cls, count: int, k: int) -> Answers:
        """Room for so many views and classes of each."""
        shape = (count, k)
        return cls(
            np.zeros(shape, np.uint16), np.zeros(shape, np.float32), np.zeros(shape, np.uint8),
            np.zeros(shape, np.float32), np.ones(count),
        )  # fmt: skip

    def put(self, here: slice, probabilities: F32, scores: str, *, whole: bool = True) -> None:
        """Take in what is said of some of the views.

        :param probabilities: float32 (n, C), finite, in [0, 1]. :param scores: "sigmoid" or "softmax".
        :param whole: whether rests and what is lost are asked for; only classes and probabilities are otherwise.
        """
        k, classes = self.classes.shape[1], probabilities.shape[1]
        self.classes[here], self.probabilities[here] = top_k(probabilities, k)
        if not whole:
            return
        kept, everything = self.probabilities[here].astype(np.float64), probabilities.astype(np.float64)
        left = np.arange(classes - 1, classes - 1 - k, -1)  # classes that are not kept
        mass = np.maximum(_left(everything, kept), 0)
        mass[:, left == 0] = 0
        self.rests[here] = REST.encode(mass / np.maximum(left, 1))
        rest = REST.table().astype(np.float64)[self.rests[here]]
        lost = _left(_negative_entropy(everything, scores), _negative_entropy(kept, scores)) - mass * np.log(rest)
        if scores == "sigmoid":
            lost = np.maximum(lost - (left - mass) * np.log1p(-rest), 0)
        lost[:, left == 0] = 0
        self.lost[here], self.sums[here] = lost, everything.sum(axis=1)


@dataclass(frozen=True)
class Chosen:
    """What N views keep: ``counts`` uint16 (N,), in [1, k]; ``codes`` uint16 (N, k) as they are read back; ``rests``
    uint8 (N,); the ``bits`` of the block; and its ``loss``, the mean over its readable views in nats."""

    counts: U16
    codes: U16
    rests: U8
    bits: int
    loss: float


def coarse(codes: U16, bits: int) -> U16:
    """Codes as a block of so many bits stores them, of codes as they are read."""
    stored: U16 = codes >> np.uint16(VALUE_BITS - bits)
    return stored


def fine(codes: U16, bits: int) -> U16:
    """The inverse of :func:`coarse`: the middle of the codes that one stands for."""
    shift = VALUE_BITS - bits
    read: U16 = (codes << np.uint16(shift)) + np.uint16(1 << shift >> 1)
    return read


def answers(probabilities: F32, k: int, scores: str) -> Answers:
    """What an ensemble says of N views, float32 (N, C), of each the k highest; see :meth:`Answers.put`."""
    count, classes = probabilities.shape
    found, rows = Answers.of_views(count, k), max(1, _CHUNK // classes)
    for low in range(0, count, rows):
        found.put(slice(low, low + rows), probabilities[low : low + rows], scores)
    return found


def choose(said: Answers, asked: float, scores: str, class_count: int, readable: Bool) -> Chosen:
    """What the views of a block keep so that they lose no more than ``asked`` in the mean; see this module.

    :param asked: nats. :param readable: which of the N views count, bool (N,).
    """
    count, k = said.classes.shape
    counted = np.flatnonzero(readable)
    best = quantizer(scores, VALUE_BITS)
    read, table = best.encode(said.probabilities), best.table().astype(np.float64)
    exact = _losses(said, said.probabilities.astype(np.float64), scores, class_count)
    bound = float(exact[counted, -1].mean()) if len(counted) else 0.0
    target = max(asked, bound + asked / 2) if k < class_count else asked
    for bits in BITS:
        codes = fine(coarse(read, bits), bits)
        losses = _losses(said, table[codes], scores, class_count)
        if not len(counted) or float(losses[counted].min(axis=1).mean()) <= target:
            break
    places = np.arange(1, k + 1)

    def kept_at(price: float) -> tuple[I64, float]:
        kept = np.argmin(losses[counted] + price * places, axis=1)
        return kept, float(losses[counted, kept].mean()) if len(kept) else 0.0

    kept, loss = kept_at(0.0)
    low, high = _LAMBDA
    for _ in range(_STEPS):
        price = (low * high) ** 0.5
        fewer, more = kept_at(price)
        if more <= target:
            kept, loss, low = fewer, more, price
        else:
            high = price
    places_kept = np.zeros(count, np.int64)
    places_kept[counted] = kept
    rests = said.rests[np.arange(count), places_kept]
    return Chosen((places_kept + 1).astype(np.uint16), codes, rests, bits, loss)


def _losses(said: Answers, read: F64, scores: str, class_count: int) -> F64:
    """What views lose, float64 (N, k), if the first j + 1 classes are kept and read back as ``read`` (N, k)."""
    p = said.probabilities.astype(np.float64)
    lost = np.cumsum(_terms(p, read), axis=1) + said.lost
    if scores == "sigmoid":
        return np.asarray(lost + np.cumsum(_terms(1 - p, 1 - read), axis=1))
    left = np.arange(class_count - 1, class_count - 1 - p.shape[1], -1)
    total = np.cumsum(read, axis=1) + left * REST.table().astype(np.float64)[said.rests]
    sums = np.maximum(said.sums[:, None], 1e-300)
    return np.maximum(lost / sums - np.log(sums) + np.log(total), 0)  # of p / sum(p) to q / sum(q), which is never less


def _terms(p: F64, q: F64) -> F64:
    return np.asarray(p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-12)))


def _negative_entropy(p: F64, scores: str) -> F64:
    terms = p * np.log(np.maximum(p, 1e-300))
    return np.asarray(terms + (1 - p) * np.log(np.maximum(1 - p, 1e-300)) if scores == "sigmoid" else terms)


def _left(everything: F64, kept: F64) -> F64:
    """The sums (N, k) of what is left of each row (N, C) without the first j + 1 of its ``kept`` ones (N, k)."""
    return np.asarray(everything.sum(axis=1, keepdims=True) - np.cumsum(kept, axis=1))


def loss(probabilities: F32, read: F32, scores: str) -> npt.NDArray[np.float64]:
    """What views lose, float64 (N,), nats: of what was said to what is read back, each float32 (N, C)."""
    p, q = probabilities.astype(np.float64), read.astype(np.float64)
    if scores == "softmax":
        p, q = (each / each.sum(axis=1, keepdims=True) for each in (p, q))
        return np.asarray(_terms(p, q).sum(axis=1))
    return np.asarray((_terms(p, q) + _terms(1 - p, 1 - q)).sum(axis=1))


def dense(classes: npt.NDArray[np.integer[Any]], probabilities: F32, class_count: int, rests: F32 | None) -> F32:
    """What is read back of n views as one probability a class, float32 (n, C).

    :param classes: integers (n, k), C in places that a view does not use. :param probabilities: float32 (n, k).
    :param rests: what stands for classes that are not kept, float32 (n,); None for 0.
    """
    whole = np.zeros((len(classes), class_count + 1), dtype=np.float32)  # what is not used falls beside the classes
    if rests is not None:
        whole += rests[:, None]
    np.put_along_axis(whole, classes.astype(np.int64), probabilities, axis=1)
    return whole[:, :class_count]


def addable(classes: U16, class_count: int) -> U16:
    """Classes (…, k) with a view's first one in the places that it does not use: their probability 0 adds nothing."""
    return np.where(classes == class_count, classes[..., :1], classes)


def nearest(codes: U16, stored: U16, bits: int | None) -> U16:
    """Of what a stored code may have been, the nearest to another code: both as they are read, in one shape.

    :param bits: of the block's codes; None of a store without a quality, whose codes stand for themselves alone.
    """
    if bits is None:
        return stored
    shift = np.uint16(VALUE_BITS - bits)
    low = coarse(stored, bits) << shift
    return np.clip(codes, low, low + np.uint16((1 << int(shift)) - 1)).astype(np.uint16)
