"""Replay: a waveform and its draw give the view that teachers and students hear.

A pure function of its arguments, batched, on the CPU or a GPU. Every op is element by element, or a copy, so that the
other rows of a batch cannot change a result; what averages over a clip is computed for that clip alone, in NumPy.
Spectrogram ops are not here: each front end applies the draw's :class:`~logitstore.views.recipe.Masks` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.audio.resample import resample_clip
from logitstore.views.ops import DB_UNIT, WEIGHT_UNIT
from logitstore.views.philox import philox4x32
from logitstore.views.recipe import Draws, Recipe

if TYPE_CHECKING:
    import torch


_NOISE_STREAM = 0x6E6F6973  # "nois"
_BYTE_MEAN = 127.5
_NOISE_DEVIATION = float(np.sqrt(4 * (256.0**2 - 1) / 12))


def pad(clips: Sequence[F32], clip_samples: int) -> tuple[torch.Tensor, I64]:
    """Clips of any lengths as one batch: float32 (B, clip_samples), zeros at the end, and their int64 (B,) lengths."""
    import torch

    batch = np.zeros((len(clips), clip_samples), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip[:clip_samples]
    return torch.from_numpy(batch), np.array([min(len(clip), clip_samples) for clip in clips], dtype=np.int64)


def replay(
    waveforms: torch.Tensor,
    lengths: I64,
    recipe: Recipe,
    draws: Draws,
    *,
    partners: Sequence[F32 | None] | None = None,
    overwrite: bool = False,
) -> torch.Tensor:
    """The waveforms of B views.

    :param waveforms: float32 (B, S), clips at the store's rate, zero after their own length.
    :param lengths: int64 (B,), the clips' own lengths in samples; ops act on these samples alone.
    :param recipe: its waveform ops act in their order.
    :param draws: B rows.
    :param partners: for a recipe with mixup, the decoded partner of every row, or None where its weight is 0.
    :param overwrite: whether the result may take the place of ``waveforms``; they are not modified otherwise.
    :returns: float32 (B, S) on the same device, zero after each clip's own length.
    """
    batch = waveforms if overwrite else waveforms.clone()
    for op in recipe.ops:
        apply = _WAVEFORM_OPS.get(op.name)
        if apply is not None:
            apply(batch, lengths, draws, partners)
    return batch


def noise(key: int, samples: int) -> F32:
    """White noise of unit variance, float32 (samples,), from its key in [1, 2**32).

    Sample i is the sum of the four bytes of word i mod 4 of Philox block i // 4, less its mean, over its standard
    deviation: integers until the last step, near-Gaussian (Irwin-Hall of order 4), the same on every machine.
    """
    blocks = np.arange(-(-samples // 4), dtype=np.uint64)
    words = np.stack(philox4x32((blocks, 0, 0, 0), (key, _NOISE_STREAM)), axis=1).reshape(-1)[:samples]
    total = words.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32).astype(np.float32)
    centred: F32 = (total - np.float32(4 * _BYTE_MEAN)) / np.float32(_NOISE_DEVIATION)
    return centred


_Partners = Sequence[F32 | None] | None


def _roll(batch: torch.Tensor, lengths: I64, draws: Draws, _partners: _Partners) -> None:
    for row, (length, shift) in enumerate(zip(lengths.tolist(), draws.columns["roll"].tolist(), strict=True)):
        if length and shift % length:
            batch[row, :length] = batch[row, :length].roll(shift)


def _gain(batch: torch.Tensor, lengths: I64, draws: Draws, _partners: _Partners) -> None:
    import torch

    factors = np.power(10.0, draws.columns["gain_cdb"] / (20.0 * DB_UNIT)).astype(np.float32)
    batch *= torch.from_numpy(factors).to(batch.device)[:, None]


def _mixup(batch: torch.Tensor, lengths: I64, draws: Draws, partners: _Partners) -> None:
    import torch

    for row, weight in enumerate(draws.columns["mixup_weight"].tolist()):
        if not weight:
            continue
        partner = partners[row] if partners is not None else None
        if partner is None or not len(partner):
            raise ValueError(f"row {row} has mixup weight {weight}/{WEIGHT_UNIT} and no partner waveform")
        length = int(lengths[row])
        looped = torch.from_numpy(np.resize(partner, length)).to(batch.device)
        own = batch[row, :length] * np.float32((WEIGHT_UNIT - weight) / WEIGHT_UNIT).item()
        batch[row, :length] = own + looped * np.float32(weight / WEIGHT_UNIT).item()


def _noise(batch: torch.Tensor, lengths: I64, draws: Draws, _partners: _Partners) -> None:
    import torch

    keys, ratios = draws.columns["noise_key"].tolist(), draws.columns["noise_snr_cdb"].tolist()
    for row, (key, ratio) in enumerate(zip(keys, ratios, strict=True)):
        length = int(lengths[row])
        if not key or not length:
            continue
        clip = batch[row, :length].cpu().numpy().astype(np.float64)
        power = float(np.mean(clip * clip))
        scale = np.float32(np.sqrt(power * 10.0 ** (-ratio / (10.0 * DB_UNIT))))
        batch[row, :length] += torch.from_numpy(noise(key, length) * scale).to(batch.device)


_WAVEFORM_OPS: dict[str, Callable[[torch.Tensor, I64, Draws, _Partners], None]] = {
    "roll": _roll,
    "gain": _gain,
    "mixup": _mixup,
    "noise": _noise,
}


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
