"""Another sample rate, each clip alone, so that a batch cannot change a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from logitstore.view.lengths import samples_at

if TYPE_CHECKING:
    import torch

F32 = npt.NDArray[np.float32]


def resample_clip(clip: F32, rate: int, new_rate: int) -> F32:
    """One clip at ``new_rate`` (Hz) through soxr's HQ filter.

    :param clip: float32 (n,) at ``rate`` (Hz).
    :returns: float32 of exactly n * new_rate / rate samples, rounded half up.
    :raises ValueError, RuntimeError: soxr cannot go from the one rate to the other.
    """
    import soxr

    samples = int(samples_at(len(clip), rate, new_rate))
    out = np.zeros(samples, dtype=np.float32)
    resampled = (clip if rate == new_rate else soxr.resample(clip, rate, new_rate, quality="HQ"))[:samples]
    out[: len(resampled)] = resampled
    return out


def resample(waveforms: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """A batch at ``new_rate`` (Hz), one clip after the other on the CPU.

    :param waveforms: float32 (B, S) at ``rate`` (Hz), on any device.
    :returns: float32 (B, S') on the same device; the same tensor where the rates are equal.
    """
    import torch

    if rate == new_rate:
        return waveforms
    clips = waveforms.detach().to("cpu", torch.float32).numpy()
    return torch.from_numpy(np.stack([resample_clip(clip, rate, new_rate) for clip in clips])).to(waveforms.device)
