"""When a teacher says what: its answers frame by frame, and how they are laid on a store's frames.

Each frame of a teacher stands for the time that is nearest to its centre: from half way to the frame before to half way
to the one after, the first from the start of the view, the last to its end. A frame of the store is the mean of the
teacher's frames over its own time, each counting by how long it lies in it; so shorter frames are averaged, longer ones
repeated, and windows that overlap share the time between their centres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from logitstore.arrays import F32, F64
from logitstore.store.format.frames import FrameSpec
from logitstore.views.recipe import Masks
from teachers.contract import Window
from teachers.windows import masks_from, pool


class Frames(NamedTuple):
    """Probabilities (B, T, C) of T moments of B views; ``centers`` float64 (T,), the seconds of the view that they are
    about, not falling."""

    probabilities: torch.Tensor
    centers: F64


@dataclass(frozen=True)
class Answer:
    """What a teacher says of B views: ``probabilities`` (B, C); where asked for, ``features`` (B, T, D), and the frame
    probabilities."""

    probabilities: torch.Tensor
    features: torch.Tensor | None = None
    frames: Frames | None = None


def even_centers(count: int, seconds: float) -> F64:
    """The centres of frames that share a stretch of time evenly, float64 (count,)."""
    return np.asarray((np.arange(count) + 0.5) * (seconds / count), dtype=np.float64)


def shares(centers: F64, spec: FrameSpec, seconds: float) -> F32:
    """How much each of a teacher's frames counts in each of a store's, float32 (T of the store, T of the teacher).

    :param seconds: length of the view. Rows sum to 1.
    """
    bounds = np.clip(np.concatenate([[0.0], (centers[1:] + centers[:-1]) / 2, [seconds]]), 0.0, seconds)
    edges = np.minimum(np.arange(spec.count + 1) * spec.hop_ms / 1000, seconds)
    begun = np.maximum(edges[:-1, None], bounds[None, :-1])
    ended = np.minimum(edges[1:, None], bounds[None, 1:])
    overlap = np.maximum(ended - begun, 0.0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True), dtype=np.float32)


def lay(frames: Frames, spec: FrameSpec, seconds: float) -> torch.Tensor:
    """A teacher's frames on those of a store: float32 (B, T of the store, C) of (B, T, C)."""
    said = frames.probabilities.float()
    share = torch.from_numpy(shares(frames.centers, spec, seconds)).to(said.device)
    with torch.autocast(said.device.type, enabled=False):
        return torch.einsum("st,btc->bsc", share, said).clamp_(0.0, 1.0)


def answered(
    waveforms: torch.Tensor,
    masks: Masks | None,
    window: Window | None,
    pooling: str | None,
    rate: int,
    model: Callable[[torch.Tensor, Masks | None], torch.Tensor],
    centers: Callable[[int, float], F64] = even_centers,
) -> Answer:
    """What a model says of views, and frame by frame: of its windows, or of the frames that it answers with.

    :param waveforms: float32 (B, S) at ``rate`` (Hz). :param window: None for a model that hears a view whole.
    :param pooling: of frames, of a model that gives (B, T, C); None of one that gives (B, C).
    :param centers: of so many frames of a window, or view, of so many seconds.
    """
    samples = waveforms.shape[1]
    starts = [0] if window is None else window.starts(samples)
    length = samples if window is None else window.samples
    padded = F.pad(waveforms, (0, max(0, starts[-1] + length - samples)))
    said, frames, places = [], [], []
    for start in starts:
        own = model(padded[:, start : start + length].clone(), masks_from(masks, start / rate))
        by_frame = own[:, None] if own.ndim == 2 else own
        frames.append(by_frame)
        places.append(start / rate + centers(by_frame.shape[1], length / rate))
        said.append(own if own.ndim == 2 else pool(own, pooling or "mean"))
    order = np.argsort(np.concatenate(places), kind="stable")
    return Answer(
        said[0] if window is None else pool(torch.stack(said, dim=1), window.pooling),
        frames=Frames(torch.cat(frames, dim=1)[:, torch.from_numpy(order)], np.concatenate(places)[order]),
    )
