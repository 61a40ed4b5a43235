"""``frames``: what the teachers said of every frame of a view, which a store built with ``--frames`` holds.

Store and student cut time into frames of their own. What is compared are the student's: one stands for the time that is
nearest to its centre (from the start of the view for the first, to its end for the last), and its target is the mean of
the store's frames that lie in that time, each weighed by how long it does. So a student with longer frames learns
means, one with shorter frames the same value several times, and its logits are never averaged.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from logitstore.models.losses import kl
from logitstore.store.format.frames import bounds_around, frame_bounds, shares
from students.terms import Pass, Term

TERM = ("Frames", "Say of every frame what the teachers said of it (a store with --frames, a net with frame outputs).")


class Frames(Term):
    """The loss of ``target``, frame by frame: the mean over frames and clips."""

    weight = 1.0
    by_frame = True
    mixes = True

    def __call__(self, said: Pass) -> torch.Tensor:
        logits, targets, setting = said.given("frame_logits"), said.given("frame_targets"), self.setting
        if setting.target_seconds is None or setting.view_seconds is None or setting.frame_centers is None:
            raise ValueError("the term 'frames' was made without the times of its frames")
        seconds, hop_ms = setting.view_seconds, round(1000 * setting.target_seconds)
        here = bounds_around(setting.frame_centers(logits.shape[1], seconds), seconds)
        lies = shares(here, frame_bounds(targets.shape[1], hop_ms, seconds))
        with torch.autocast(logits.device.type, enabled=False):
            heard = torch.from_numpy(lies).to(logits.device) @ targets.float()  # (B, Ts, C)

        def clip_loss(targets: torch.Tensor) -> torch.Tensor:
            return frame_loss(logits, targets, setting.loss, setting.temperature).mean(dim=1)

        return said.mixed(clip_loss, heard).mean()


def frame_loss(logits: torch.Tensor, targets: torch.Tensor, loss: str, temperature: float = 1.0) -> torch.Tensor:
    """The loss of every frame, float32 (B, T).

    :param logits: (B, T, C), any float dtype. :param targets: probabilities float32 (B, T, C).
    :param loss: "bce", the mean over classes; or "kl" at a temperature, which is 0 where a target holds no class.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=2)
    known = targets.amax(dim=2) > 0
    some = torch.where(known[..., None], targets, 1.0)  # where there is none, any distribution will do
    return kl(logits.flatten(0, 1), some.flatten(0, 1), temperature).view(known.shape) * known
