"""Band stop: a band of frequencies filtered out, for teachers that take no masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from logitstore.arrays import F32, F64, I64
from logitstore.views.ops.base import Columns, SqlColumn, WaveformOp
from logitstore.views.ops.spans import Band

_SLOPE = 0.01  # half of what a slope takes, as a share of the frequency of its edge


@dataclass(frozen=True, kw_only=True)
class BandStop(Band, WaveformOp):
    """Less than ``max_steps`` / 64 of the HTK-mel axis is filtered out: the counterpart of ``frequency_mask``.

    The filter has no phase. It acts on the clip as a whole, which it takes for a circle, as ``roll`` does.
    """

    name: ClassVar[str] = "band_stop"
    columns: ClassVar[dict[str, str]] = {
        "stop_low": "lower end of the band in 1/64 of the HTK-mel axis from the op's min_hz to max_hz; "
        "0 where nothing is filtered out",
        "stop_steps": "its width in the same steps; 0 where nothing is filtered out",
    }

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        for position, (low, high) in enumerate(zip(*(ends.tolist() for ends in self.band(draws)), strict=True)):
            length = int(lengths[position])
            if length and low < min(high, sample_rate / 2):
                own = without_band(waveforms[position, :length], low, high, sample_rate)
                waveforms[position, :length] = own

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn(
                "stop_low_step", "lower end of the band in steps of its axis", lambda draws: self.steps(draws)[0]
            ),
            SqlColumn(
                "stop_high_step",
                "its upper end; equal to the lower where nothing is filtered out",
                lambda draws: self.steps(draws)[1],
            ),
            SqlColumn("stop_low_hz", "lower end of the band in Hz", lambda draws: self.band(draws)[0]),
            SqlColumn("stop_high_hz", "its upper end in Hz", lambda draws: self.band(draws)[1]),
        )


def without_band(clip: F32, low: float, high: float, sample_rate: int) -> F32:
    """A clip, float32 (n,), less what it holds between two frequencies (Hz); a new array.

    Its spectrum, all n samples at once in float64, is multiplied by 0 in the band and by 1 outside. Between, over 1 %
    of the edge's frequency to either side and at most a quarter of the band's width, lies the slope 3 t² - 2 t³. An
    edge at 0 Hz or from half of the rate on has none.
    """
    hz = np.arange(len(clip) // 2 + 1, dtype=np.float64) * sample_rate / len(clip)
    below = _rising(low - hz, min(_SLOPE * low, (high - low) / 4)) if low > 0 else np.zeros(len(hz))
    above = _rising(hz - high, min(_SLOPE * high, (high - low) / 4)) if high < sample_rate / 2 else np.zeros(len(hz))
    spectrum = np.fft.rfft(clip.astype(np.float64)) * (below + above)
    return np.fft.irfft(spectrum, len(clip)).astype(np.float32)


def _rising(hz: F64, half: float) -> F64:
    """0 up to ``-half``, 1 from ``half`` on."""
    t = np.clip((hz + half) / (2 * half), 0.0, 1.0)
    slope: F64 = t * t * (3.0 - 2.0 * t)
    return slope
