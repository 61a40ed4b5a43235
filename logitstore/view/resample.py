"""Waveforms at another rate, each clip alone, so that a batch cannot change a sample."""

from __future__ import annotations

import numpy as np
import torch

from logitstore.view.lengths import samples_at


def resample(waveforms: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Waveforms at ``new_rate`` (Hz), through soxr's HQ filter on the CPU, one clip after the other.

    :param waveforms: float32 (B, S) at ``rate`` (Hz), on any device.
    :returns: float32 (B, S') on the same device, S' being S * new_rate / rate rounded half up; the same tensor where
        the rates are equal.
    """
    if rate == new_rate:
        return waveforms
    import soxr

    samples = int(samples_at(waveforms.shape[1], rate, new_rate))
    clips = waveforms.detach().to("cpu", torch.float32).numpy()
    out = np.zeros((len(clips), samples), dtype=np.float32)
    for row, clip in zip(out, clips, strict=True):
        resampled = soxr.resample(clip, rate, new_rate, quality="HQ")[:samples]
        row[: len(resampled)] = resampled
    return torch.from_numpy(out).to(waveforms.device)
