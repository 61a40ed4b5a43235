"""What a student's training minimises: its distance from the targets, and, where asked, from relations and labels.

    total = target + W (iusp + sp) + L labels

``target``  BCE with the stored probabilities (sigmoid teachers), or T² KL at temperature T (softmax teachers)
``iusp``    :func:`students.similarity.iusp` of every clip, their mean
``sp``      :func:`students.similarity.sp` of the batch; the only term that is no mean over its clips
``labels``  the same loss against labels, at temperature 1; the sum over labelled clips divided by all clips of the
            batch, so that a clip without label adds nothing, and parts of a batch add up to the whole

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
from collections.abc import Callable

import torch

from logitstore.errors import RunError
from logitstore.models.losses import ClipLoss, Parts, bce, kl, mixed
from logitstore.training.batches import Batch
from students import similarity

SIMILARITIES = {"iusp": ("frames",), "sp": ("clips",), "both": ("frames", "clips")}  # -> relations that it needs


class Objective:
    """The loss of a batch, from one pass of the student.

    :param loss: "bce" or "kl"; see :func:`students.losses.loss_for`. :param temperature: of "kl".
    :param similarity: None, "iusp", "sp" or "both". :param similarity_weight: W, at least 0.
    :param label_weight: L, at least 0; with 0 labels are not looked at.
    :param frames: T, the frames that the store's teachers were pooled to; "sp" and "both" need it.
    :param mixup: A of ``--mixup``, or None; checked here, used by :func:`mix_weights`.
    :raises RunError: a number that cannot be right, an unknown similarity, or one together with batch mixup.
    """

    def __init__(
        self,
        loss: str,
        temperature: float = 1.0,
        *,
        similarity: str | None = None,
        similarity_weight: float = 1.0,
        label_weight: float = 0.0,
        frames: int | None = None,
        mixup: float | None = None,
    ) -> None:
        if similarity is not None and similarity not in SIMILARITIES:
            raise RunError(f"no similarity {similarity!r}; allowed are {', '.join(SIMILARITIES)}")
        for name, weight in (("similarity", similarity_weight), ("label", label_weight)):
            if not (math.isfinite(weight) and weight >= 0):
                raise RunError(f"--{name}-weight is {weight:g}; it must be a number of at least 0")
        if mixup is not None and not (math.isfinite(mixup) and mixup > 0):
            raise RunError(f"--mixup is {mixup:g}; it must be more than 0, the A of Beta(A, A)")
        if mixup is not None and similarity is not None:
            raise _mixed_relations(similarity)
        self.loss, self.temperature = loss, temperature
        self.similarity, self.similarity_weight = similarity, similarity_weight
        self.label_weight, self.frames, self.mixup = label_weight, frames, mixup

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations of the store that batches must bring: of "frames" and "clips"."""
        return () if self.similarity is None else SIMILARITIES[self.similarity]

    @property
    def needs_frames(self) -> bool:
        """Whether the student's frame features are used."""
        return self.similarity is not None

    def __call__(
        self,
        logits: torch.Tensor,
        frames: torch.Tensor | None,
        batch: Batch,
        mix: torch.Tensor | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> Parts:
        """The loss of a batch that is on the student's device.

        :param logits: (B, C). :param frames: the student's frame features (B, Ts, D), where they are needed.
        :param mix: float32 (B,), each clip's own share of the mix with clip B - 1 - i that the student heard; or None.
        :param gather: for the term ``sp`` in one of several processes: from a tensor (b, …) of this process to that of
            all, (B, …), differentiable; the term is then that of the whole batch in every process.
        :raises RunError: a mix together with a similarity.
        """
        if mix is not None and self.similarity is not None:
            raise _mixed_relations(self.similarity)
        terms = {"target": mixed(self._target_loss(logits), mix, batch.targets).mean()}
        total = terms["target"]
        for name, term in self._similarities(frames, batch, gather).items():
            terms[name] = term
            total = total + self.similarity_weight * term
        if self.label_weight:
            terms["labels"] = self._labels(logits, batch, mix)
            total = total + self.label_weight * terms["labels"]
        return Parts(total, {name: term.detach() for name, term in terms.items()})

    def _target_loss(self, logits: torch.Tensor) -> ClipLoss:
        if self.loss == "bce":
            return lambda targets: bce(logits, targets)
        return lambda targets: kl(logits, targets, self.temperature)

    def _similarities(
        self, frames: torch.Tensor | None, batch: Batch, gather: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        if "frames" in self.relations:
            found["iusp"] = similarity.iusp(_given(frames, "frames"), _given(batch.frame_grams, "frame_grams")).mean()
        if "clips" in self.relations:
            if self.frames is None:
                raise ValueError("the similarity 'sp' was made without the teachers' number of frames")
            student = similarity.pooled(_given(frames, "frames"), self.frames)
            teacher = _given(batch.clip_vectors, "clip_vectors")
            if gather is not None:
                student, teacher = gather(student), gather(teacher)
            found["sp"] = similarity.sp(student, teacher, self.frames)
        return found

    def _labels(self, logits: torch.Tensor, batch: Batch, mix: torch.Tensor | None) -> torch.Tensor:
        def clip_loss(labels: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
            if self.loss == "bce":
                return labelled * bce(logits, labels)
            # a clip without label has no distribution to compare with; any will do, for its loss counts nothing
            return labelled * kl(logits, torch.where(labelled[:, None], labels, 1.0))

        return mixed(clip_loss, mix, _given(batch.labels, "labels"), _given(batch.labelled, "labelled")).mean()


def _given(value: torch.Tensor | None, name: str) -> torch.Tensor:
    if value is None:
        raise ValueError(f"the objective needs {name}, and the batch was made without them")
    return value


def _mixed_relations(similarity: str) -> RunError:
    return RunError(
        f"--mixup and --similarity {similarity} are both given: batch mixup makes clips that no teacher heard, and no "
        "store has relations of them; leave one out, or put the op mixup into the recipe of the build, which replays"
    )
