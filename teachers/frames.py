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

from logitstore.arrays import F64
from logitstore.store.format.frames import FrameSpec, bounds_around, even_centers, frame_bounds, shares
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


def lay(frames: Frames, spec: FrameSpec, seconds: float) -> torch.Tensor:
    """A teacher's frames on those of a store: float32 (B, T of the store, C) of (B, T, C)."""
    said = frames.probabilities.float()
    there, here = frame_bounds(spec.count, spec.hop_ms, seconds), bounds_around(frames.centers, seconds)
    share = torch.from_numpy(shares(there, here)).to(said.device)
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
