"""``labels``: the same loss against labels of the store's own clips, for those that have some."""

from __future__ import annotations

import torch

from logitstore.models.losses import kl, known_bce
from students.terms import Pass, Term

TERM = ("Labels", "Say of a clip what its labels in --label-column say, where it has some.")


class Labels(Term):
    """The loss against labels, at temperature 1: the sum over labelled clips divided by all clips of the batch.

    So a clip without label adds nothing, and parts of a batch add up to the whole; nor does a class whose label is -1.
    """

    labels = True
    mixes = True

    def __call__(self, said: Pass) -> torch.Tensor:
        def clip_loss(labels: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
            if self.setting.loss == "bce":
                return labelled * known_bce(said.logits, labels)
            # a clip without label has no distribution to compare with; any will do, for its loss counts nothing
            return labelled * kl(said.logits, torch.where(labelled[:, None], labels, 1.0))

        return said.mixed(clip_loss, said.given("labels"), said.given("labelled")).mean()
