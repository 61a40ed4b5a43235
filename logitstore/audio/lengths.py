"""Lengths in samples, computed in integers so that they are the same everywhere."""

from __future__ import annotations

from typing import Any


def clip_samples(clip_seconds: float, sample_rate: int) -> int:
    """Length of a view in samples at ``sample_rate`` (Hz): seconds times rate, rounded half up."""
    return int(clip_seconds * sample_rate + 0.5)


def samples_at(length: Any, rate: Any, sample_rate: int) -> Any:
    """Length at ``sample_rate`` (Hz) of ``length`` frames at ``rate`` (Hz), rounded half up; integers or arrays."""
    return (2 * length * sample_rate + rate) // (2 * rate)
