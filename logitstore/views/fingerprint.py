"""Fingerprints: what a view sounded like when it was built, so that it can be compared when it is rendered again.

A digest of the waveform and one of a reference log-mel under the draw's masks tell that the view is bit for bit the
same; eight band levels tell, on a machine that rounds otherwise, that it is the same sound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from logitstore.arrays import F32
from logitstore.digests import digest
from logitstore.errors import AudioError
from logitstore.views.recipe import Draws, Masks

if TYPE_CHECKING:
    import torch

    from logitstore.views.render import Renderer


BANDS = 8
TOLERANCE_DB = 0.1


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One view: its ``row`` within the shard, digests of its waveform and features, and ``bands`` levels in dB."""

    row: int
    view: int
    waveform: str
    features: str
    bands: tuple[float, ...]


@dataclass(frozen=True)
class Recorded:
    """A view of a store and how it sounded: all that rendering it again and comparing takes.

    :param clip: its number. :param path: what messages call it. :param draws: of this one view.
    :param partner: the clip that it is mixed with, -1 for none.
    """

    clip: int
    path: str
    draws: Draws
    partner: int
    fingerprint: Fingerprint


def compare(renderer: Renderer, recorded: Iterable[Recorded]) -> list[str]:
    """Render views again and compare them: one line for each that is not the sound that the teachers heard."""
    problems = []
    for each in recorded:
        stored = each.fingerprint
        try:
            waveform, masks = renderer.view(each.clip, each.draws, each.partner)
        except AudioError as error:
            problems.append(f"clip {each.clip} ({each.path}): {error}")
            continue
        now = fingerprint(stored.row, stored.view, waveform, masks, renderer.place.sample_rate)
        different = difference(stored, now)
        if different:
            problems.append(f"clip {each.clip} ({each.path}), view {stored.view}: {different}")
    return problems


def fingerprint(row: int, view: int, waveform: torch.Tensor, masks: Masks | None, sample_rate: int) -> Fingerprint:
    """The fingerprint of one view.

    :param row: of its clip within the shard. :param waveform: the rendered view, float32 (S,).
    :param masks: the view's masks, of one row, or None.
    """
    features = reference_log_mel(waveform, masks, sample_rate)
    levels = features.double().mean(dim=1).reshape(BANDS, -1).mean(dim=1)
    return Fingerprint(
        row,
        view,
        _digest(waveform.cpu().numpy()),
        _digest(features.numpy()),
        tuple(round(float(level), 3) for level in levels),
    )


def reference_log_mel(waveform: torch.Tensor, masks: Masks | None, sample_rate: int) -> torch.Tensor:
    """Decibels of 64 mel bands every 10 ms, float32 (64, T), of one view; what is masked is 0 dB.

    :param waveform: float32 (S,) at ``sample_rate`` (Hz). :param masks: of one row, or None.
    """
    import torch

    from logitstore.views.mel import FrontEnd, LogMel, apply_masks

    front_end = FrontEnd(sample_rate=sample_rate, hop_length=sample_rate // 100, f_max=min(8000.0, sample_rate / 2))
    short = max(0, front_end.n_fft // 2 + 1 - len(waveform))  # of a view: such as 0.1 s at 2 kHz
    features = LogMel(front_end)(torch.nn.functional.pad(waveform.cpu(), (0, short))[None])
    return apply_masks(features, front_end, None if masks is None else masks.to("cpu"), 0.0)[0]


def difference(stored: Fingerprint, rendered: Fingerprint) -> str | None:
    """What differs beyond another machine's rounding, in words; None where the sound is the same."""
    if stored.waveform == rendered.waveform and stored.features == rendered.features:
        return None
    worst = max(abs(a - b) for a, b in zip(stored.bands, rendered.bands, strict=True))
    if worst <= TOLERANCE_DB:
        return None
    return f"band levels differ by up to {worst:.2f} dB"


def _digest(array: F32) -> str:
    return digest(np.ascontiguousarray(array, dtype="<f4").tobytes())
