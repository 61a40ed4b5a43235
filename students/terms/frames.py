"""``frames``: what the teachers said of every frame of a view, which a store built with ``--frames`` holds.

Teachers, store and student cut time into frames of their own lengths, each from the beginning of the view on. What is
compared are the student's own frames: the target of one is the mean of the store's frames that it shares time with,
each weighed by the time shared. So a student with longer frames learns means, one with shorter frames the same value
several times, and the student's logits are never averaged. A frame beyond the store's last one counts nothing.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional as F

from logitstore.models.losses import kl
from students.terms import Pass, Term

TERM = ("Frames", "Say of every frame what the teachers said of it (a store with --frames, a net with frame outputs).")


class Frames(Term):
    """The loss of ``target``, frame by frame: the mean over frames and clips."""

    by_frame = True
    mixes = True

    def __call__(self, said: Pass) -> torch.Tensor:
        logits, targets = said.given("frame_logits"), said.given("frame_targets")
        setting, count = self.setting, logits.shape[1]
        if setting.target_seconds is None or setting.view_seconds is None or setting.frame_seconds is None:
            raise ValueError("the term 'frames' was made without the lengths of views and frames")
        own = setting.frame_seconds(count, setting.view_seconds)
        shares, covered = shared_time(targets.shape[1], setting.target_seconds, count, own)
        covered = covered.to(logits.device)
        with torch.autocast(logits.device.type, enabled=False):
            heard = shares.to(logits.device) @ targets.float()  # (B, Ts, C)

        def clip_loss(targets: torch.Tensor) -> torch.Tensor:
            losses = frame_loss(logits, targets, self.setting.loss, self.setting.temperature)
            return (losses * covered).sum(dim=1) / covered.sum().clamp(min=1)

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


@functools.lru_cache(maxsize=64)
def shared_time(there: int, there_seconds: float, here: int, here_seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of ``there`` frames of some length share time with each of ``here`` frames of another.

    :returns: float32 (here, there), the shares of each of theirs, rows that sum to 1, or to 0 where none is; and
        float32 (here,), 1 where there is any, 0 elsewhere.
    """
    ends = torch.arange(1, here + 1, dtype=torch.float64)[:, None] * here_seconds
    others = torch.arange(1, there + 1, dtype=torch.float64)[None] * there_seconds
    shared = torch.minimum(ends, others) - torch.maximum(ends - here_seconds, others - there_seconds)
    shared = shared.clamp(min=0)
    total = shared.sum(dim=1, keepdim=True)
    covered = total > 1e-6 * here_seconds
    return (shared / total.clamp(min=1e-12) * covered).float(), covered[:, 0].float()
