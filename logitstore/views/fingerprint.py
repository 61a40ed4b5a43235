"""Fingerprints: what a view sounded like when it was built, so that a replay can be compared with it.

A digest of the replayed waveform and of a reference log-mel under the draw's masks tell that a replay is bit for bit
the same; eight band levels tell, on a machine that rounds otherwise, that it is the same sound.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from logitstore.views.recipe import Masks

if TYPE_CHECKING:
    import torch


BANDS = 8
TOLERANCE_DB = 0.1


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One view: its ``row`` within the shard, digests of its waveform and features, and ``bands`` levels in dB."""

    row: int
    view: int
    waveform: str
    features: str
    bands: tuple[float, ...]


def fingerprint(row: int, view: int, waveform: torch.Tensor, spans: Masks | None, sample_rate: int) -> Fingerprint:
    """The fingerprint of one view.

    :param waveform: the replayed view, float32 (S,).
    :param spans: the view's masks, of one row, or None.
    """
    from logitstore.views.mel import FrontEnd, LogMel, apply_masks

    front_end = FrontEnd(sample_rate=sample_rate, hop_length=sample_rate // 100, f_max=min(8000.0, sample_rate / 2))
    features = LogMel(front_end)(waveform[None].cpu())
    features = apply_masks(features, front_end, None if spans is None else spans.to("cpu"), 0.0)[0]
    levels = features.double().mean(dim=1).reshape(BANDS, -1).mean(dim=1)
    return Fingerprint(
        row,
        view,
        _digest(waveform.cpu().numpy()),
        _digest(features.numpy()),
        tuple(round(float(level), 3) for level in levels),
    )


def difference(stored: Fingerprint, replayed: Fingerprint) -> str | None:
    """What differs beyond another machine's rounding, in words; None where the sound is the same."""
    if stored.waveform == replayed.waveform and stored.features == replayed.features:
        return None
    worst = max(abs(a - b) for a, b in zip(stored.bands, replayed.bands, strict=True))
    if worst <= TOLERANCE_DB:
        return None
    return f"band levels differ by up to {worst:.2f} dB"


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array, dtype="<f4").tobytes(), digest_size=16).hexdigest()
