"""``frames``: what the teachers said of every frame of a view, which a store built with ``--frames`` holds.

Store and student cut time into frames of their own. What is compared are the student's: one stands for the time that is
nearest to its centre (from the start of the view for the first, to its end for the last), and its target is the mean of
the store's frames that lie in that time, each weighed by how long it does. So a student with longer frames learns
means, one with shorter frames the same value several times, and its logits are never averaged.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from logitstore.arrays import F32, F64
from logitstore.models.losses import kl
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
        centers = setting.frame_centers(logits.shape[1], setting.view_seconds)
        lies = shares(centers, targets.shape[1], setting.target_seconds, setting.view_seconds)
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


def shares(centers: F64, count: int, hop: float, seconds: float) -> F32:
    """How much each of the store's frames counts in each of a student's: float32 (Ts, count), rows that sum to 1.

    :param centers: of the student's frames, float64 (Ts,), in seconds, rising.
    :param count: of the store's frames, each of ``hop`` seconds. :param seconds: the length of the view.
    """
    bounds = np.clip(np.concatenate([[0.0], (centers[1:] + centers[:-1]) / 2, [seconds]]), 0.0, seconds)
    edges = np.minimum(np.arange(count + 1) * hop, seconds)
    shared = np.minimum(bounds[1:, None], edges[None, 1:]) - np.maximum(bounds[:-1, None], edges[None, :-1])
    shared = np.maximum(shared, 0.0)
    total: F32 = (shared / np.maximum(shared.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return total
