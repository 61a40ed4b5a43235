"""What a student's training minimises: the weighted sum of its terms, see :mod:`students.terms`.

Batch mixup (``--mixup A``) is CED's published variant for its small set. The masked log-mels of a batch are mixed, in
dB, with those of the batch reversed: clip i with clip B - 1 - i. Each clip has a weight of its own, not folded at 1/2:
CED draws the other clip's share from Beta(A, A), so the own share, 1 minus it, is Beta(A, A) too, its mean 1/2, and at
A = 0.5 mostly near 0 or 1. So i with its partner and the partner with i are two different mixes. Levels are as they
come out: (1 - w) x + w y of decibels, which is a geometric mean of powers and not the sound of both; waveforms are not
touched, and the bars that masks leave are mixed like anything else. The losses are mixed with the same shares, clip by
clip, not the targets. No teacher heard such a mix. Mixup in the recipe is another thing: there the waveforms are mixed,
the teachers heard it, and it replays from the store; this module has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from logitstore.errors import RunError
from logitstore.training.batches import Batch
from logitstore.training.loop import Loss
from students.terms import Pass, Setting, Term, find


class Objective:
    """The loss of a batch, from one pass of the student.

    :param weights: of every term, by name; see :func:`students.terms.selected`.
    :param setting: what the terms may depend on.
    :param mixup: A of ``--mixup``, or None; checked here, used by :func:`logitstore.training.sampling.mix_weights`.
    :param accumulate: in how many parts a batch comes.
    :raises RunError: an unknown term, a mixup that cannot be, a term that cannot be taken of mixes or of parts.
    """

    def __init__(
        self, weights: Mapping[str, float], setting: Setting, *, mixup: float | None = None, accumulate: int = 1
    ) -> None:
        if mixup is not None and not (math.isfinite(mixup) and mixup > 0):
            raise RunError(f"--mixup is {mixup:g}; it must be more than 0, the A of Beta(A, A)")
        self.weights = dict(weights)
        self.terms: dict[str, Term] = {name: find(name)(setting) for name in weights}
        self.relations = tuple({relation: None for term in self.terms.values() for relation in term.relations})
        self.needs_labels = any(term.labels for term in self.terms.values())
        self.by_frame = tuple(name for name, term in self.terms.items() if term.by_frame)
        if mixup is not None:
            self._require_mixes()
        whole = [name for name, term in self.terms.items() if term.whole_batch]
        if accumulate > 1 and whole:
            raise RunError(
                f"--accumulate {accumulate} with the term {', '.join(whole)}: it compares all clips of a batch with "
                "each other, so its parts are not the whole; leave one of the two out"
            )

    def __call__(
        self,
        logits: torch.Tensor,
        frames: torch.Tensor | None,
        batch: Batch,
        mix: torch.Tensor | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
        frame_logits: torch.Tensor | None = None,
    ) -> Loss:
        """The loss of a batch that is on the student's device; the arguments are those of :class:`students.terms.Pass`.

        :raises RunError: a mix together with a term that cannot be taken of one.
        """
        if mix is not None:
            self._require_mixes()
        said = Pass(logits, frames, batch, mix, gather, frame_logits)
        terms = {name: term(said) for name, term in self.terms.items()}
        total: torch.Tensor | None = None
        for name, value in terms.items():
            weighted = value if self.weights[name] == 1 else self.weights[name] * value
            total = weighted if total is None else total + weighted
        if total is None:
            raise RunError("an objective without any term; give at least one")
        return Loss(total, {name: value.detach() for name, value in terms.items()})

    def _require_mixes(self) -> None:
        unmixed = [name for name, term in self.terms.items() if not term.mixes]
        if unmixed:
            raise RunError(
                f"--mixup and --term {', '.join(unmixed)} are both given: batch mixup makes clips that no teacher "
                "heard, and no store has relations of them; leave one out, or put the op mixup into the recipe of the "
                "build, which replays"
            )
