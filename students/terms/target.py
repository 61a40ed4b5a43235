"""``target``: the distance from what the teachers said of the same view, which a store holds of every view."""

from __future__ import annotations

import torch

from logitstore.models.losses import bce, kl
from students.terms import Pass, Term

TERM = ("Target", "Say of a view what the teachers said: BCE (sigmoid), or T² KL at temperature T (softmax).")


class Target(Term):
    """BCE with the stored probabilities, or T² KL at temperature T: the mean over the clips."""

    mixes = True

    def __call__(self, said: Pass) -> torch.Tensor:
        def clip_loss(targets: torch.Tensor) -> torch.Tensor:
            if self.setting.loss == "bce":
                return bce(said.logits, targets)
            return kl(said.logits, targets, self.setting.temperature)

        return said.mixed(clip_loss, said.batch.targets).mean()
