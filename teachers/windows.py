"""Views through models that take one length only: window by window, batched, and pooled as the contract says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from logitstore.views.recipe import Masks
from teachers.contract import Window


def in_windows(
    waveforms: torch.Tensor,
    masks: Masks | None,
    window: Window,
    rate: int,
    model: Callable[[torch.Tensor, Masks | None], torch.Tensor],
) -> torch.Tensor:
    """What a model says of views that it hears window by window.

    :param waveforms: float32 (B, S) at ``rate`` (Hz); a last window that reaches past S is filled up with zeros.
    :param masks: of the views; a window gets the part of them that lies in it.
    :param model: probabilities (B, C), or features (B, T, D), of B windows and their masks. It is called once a window
        of the view, so that a batch is as large as the one of the views.
    :returns: (B, C), pooled over the windows; of features (B, N T, D), those of one window after those of another.
    """
    starts = window.starts(waveforms.shape[1])
    padded = F.pad(waveforms, (0, max(0, starts[-1] + window.samples - waveforms.shape[1])))
    said = [
        model(padded[:, start : start + window.samples].clone(), masks_from(masks, start / rate)) for start in starts
    ]
    if said[0].ndim == 3:
        return torch.cat(said, dim=1)
    return pool(torch.stack(said, dim=1), window.pooling)


def pool(said: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, C) of (B, T, C): the "mean" or "max" over time. One answer alone is given back to the bit."""
    if said.shape[1] == 1:
        return said[:, 0]
    return said.amax(dim=1) if pooling == "max" else said.mean(dim=1)


def masks_from(masks: Masks | None, start: float) -> Masks | None:
    """Masks as they are told from ``start`` (seconds) on; what ends before lies below 0, where no frame is."""
    if masks is None:
        return None
    return Masks(masks.time_start - start, masks.time_end - start, masks.freq_low, masks.freq_high)
