"""Log-mel features, and masks on them that mean the same sound in every front end.

A mask is in seconds and in Hz. Each front end says where the centres of its frames and bands lie; a frame or a band
whose centre lies between the mask's ends is filled. In CED's front end these are exactly the frames and bands
that CED draws; any other front end loses the same sound. The value of the fill and the stage at which it happens belong
to the model (CED: 0 dB on the log-mel, before its BatchNorm).

Everything here is per clip: the decibel floor follows the clip's own maximum, so that other clips of a batch cannot
change a feature.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
import torch

from logitstore.arrays import F64
from logitstore.errors import UsageError
from logitstore.views.ops import hz_to_mel as _htk_mel
from logitstore.views.ops import mel_to_hz as _htk_hz
from logitstore.views.recipe import Masks

_SLANEY_LINEAR_HZ = 200.0 / 3.0
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_LOG_STEP = math.log(6.4) / 27.0


class Axes(Protocol):
    """Where the frames and bands of a front end lie; all that a mask needs to know of it."""

    def frame_centers(self, n_frames: int) -> F64:
        """Centres of the frames in seconds from the start of the view, float64 (n_frames,)."""

    def band_centers(self) -> F64:
        """Centres of the bands in Hz, float64 (F,)."""


class Spectral(Axes, Protocol):
    """A front end: waveforms at ``sample_rate`` (Hz) become frames of bands."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    def to_dict(self) -> dict[str, Any]:
        """Its parameters, as plain JSON values."""

    def n_frames(self, samples: int) -> int:
        """Number of frames that a waveform of so many samples gives."""


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """A log-mel front end; the defaults are CED's.

    :param sample_rate: Hz of the waveforms it takes.
    :param n_fft: FFT length in samples; ``win_length``: length of the periodic Hann window, centred in it.
    :param hop_length: samples from one frame to the next.
    :param n_mels: number of triangular bands between ``f_min`` and ``f_max`` (Hz).
    :param mel_scale: "htk", or "slaney" (linear below 1 kHz, logarithmic above).
    :param norm: None for triangles of height 1, "slaney" for triangles of area 1 (per Hz).
    :param center: frames are centred on multiples of the hop, with reflected edges; otherwise no padding at all.
    :param top_db: a clip's cells lie at most so many dB below its own loudest one; None for no limit.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 512
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    mel_scale: Literal["htk", "slaney"] = "htk"
    norm: Literal["slaney"] | None = None
    center: bool = True
    floor: float = 1e-10
    top_db: float | None = 120.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"front end: {name} is {value!r}; it must be a whole number of at least 1")
        if self.win_length > self.n_fft:
            raise UsageError(f"front end: win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise UsageError(
                f"front end: bands from {self.f_min:g} to {self.f_max:g} Hz; allowed are 0 <= f_min < f_max <= "
                f"{self.sample_rate / 2:g} Hz, half of the sample rate"
            )
        if self.mel_scale not in ("htk", "slaney") or self.norm not in (None, "slaney"):
            raise UsageError(
                f"front end: mel_scale {self.mel_scale!r}, norm {self.norm!r}; allowed are htk or slaney, and None or "
                "slaney"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain JSON values; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FrontEnd:
        """A front end from :meth:`to_dict`.

        :raises UsageError: a field that no front end has.
        """
        allowed = [field.name for field in fields(cls)]
        for key in document:
            if key not in allowed:
                raise UsageError(f"front end: unknown field {key!r}; allowed are {', '.join(allowed)}")
        return cls(**document)

    def n_frames(self, samples: int) -> int:
        """Number of frames that a waveform of so many samples gives."""
        padded = samples + 2 * (self.n_fft // 2) if self.center else samples
        return max(0, (padded - self.n_fft) // self.hop_length + 1)

    def frame_centers(self, n_frames: int) -> F64:
        """Centres of the frames in seconds from the start of the view, float64 (n_frames,)."""
        offset = 0.0 if self.center else self.n_fft / 2
        return (np.arange(n_frames, dtype=np.float64) * self.hop_length + offset) / self.sample_rate

    def band_edges(self) -> F64:
        """Corners of the triangles in Hz, float64 (F + 2,): band b rises from b, peaks at b + 1, ends at b + 2."""
        low, high = _to_mel(self.f_min, self.mel_scale), _to_mel(self.f_max, self.mel_scale)
        steps = np.arange(self.n_mels + 2, dtype=np.float64) / (self.n_mels + 1)
        return _to_hz(low + (high - low) * steps, self.mel_scale)

    def band_centers(self) -> F64:
        """Peaks of the bands in Hz, float64 (F,)."""
        return self.band_edges()[1:-1]

    def filter_bank(self) -> F64:
        """Weights from power spectrum to bands, float64 (n_fft // 2 + 1, F)."""
        edges = self.band_edges()
        bins = np.arange(self.n_fft // 2 + 1, dtype=np.float64) * self.sample_rate / self.n_fft
        rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
        weights = np.maximum(0.0, np.minimum(rising, falling))
        return weights * (2.0 / (edges[2:] - edges[:-2])) if self.norm == "slaney" else weights


#: The CED front end: 16 kHz, 64 HTK-mel bands from 0 to 8 kHz, window 32 ms, hop 10 ms.
CED = FrontEnd()


class LogMel(torch.nn.Module):
    """Waveforms to decibels of mel power.

    ``forward``: float32 (B, S), about [-1, 1], to float32 (B, F, T): 10 log10 of the power of each band, not below
    10 log10(floor) nor below the clip's own maximum less ``top_db``. Runs in float32 whatever autocast says.
    """

    window: torch.Tensor
    bank: torch.Tensor

    def __init__(self, front_end: FrontEnd = CED) -> None:
        super().__init__()
        self.front_end = front_end
        self.register_buffer("window", torch.hann_window(front_end.win_length, device="cpu"), persistent=False)
        bank = torch.from_numpy(front_end.filter_bank().astype(np.float32))
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        front_end = self.front_end
        shortest = front_end.n_fft // 2 + 1 if front_end.center else front_end.n_fft
        if waveforms.ndim != 2 or waveforms.shape[1] < shortest:
            raise UsageError(
                f"waveforms of shape {tuple(waveforms.shape)}; this front end takes (clips, samples) of at least "
                f"{shortest} samples"
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(),
                n_fft=front_end.n_fft,
                hop_length=front_end.hop_length,
                win_length=front_end.win_length,
                window=self.window,
                center=front_end.center,
                pad_mode="reflect",
                return_complex=True,
            )  # (B, n_fft // 2 + 1, T)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = torch.matmul(self.bank.T, power)  # (B, F, T)
            decibels = mel.clamp_(min=front_end.floor).log10_().mul_(10.0)
            if front_end.top_db is None:
                return decibels
            return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - front_end.top_db)


@dataclass(frozen=True)
class Centers:
    """Where the frames and bands of a front end of your own lie: all that a mask needs to know of it.

    :param seconds: centres of the frames from the start of the view, (T,), counted in steps of 10 us, so that float32
        is near enough. :param hertz: centres of the bands, (F,).
    """

    seconds: Any
    hertz: Any

    def frame_centers(self, n_frames: int) -> F64:
        """The first ``n_frames`` centres.

        :raises UsageError: there are fewer.
        """
        return np.round(_centers(self.seconds, n_frames, "frames")[:n_frames], 5)

    def band_centers(self) -> F64:
        """Every centre."""
        return _centers(self.hertz, 0, "bands")


def time_mask(axes: Axes, masks: Masks, n_frames: int) -> torch.Tensor:
    """Which frames a mask hides, bool (B, T), on the device of the masks: centres in [time_start, time_end) seconds."""
    if isinstance(n_frames, torch.SymInt):  # of a graph that is traced for clips of any length
        first, second = torch.from_numpy(axes.frame_centers(2))  # tensors: a plain number is traced as float32
        centers = first + (second - first) * torch.arange(n_frames, dtype=torch.float64)
    else:
        centers = torch.from_numpy(axes.frame_centers(n_frames))
    return _inside(centers, masks.time_start, masks.time_end)


def band_mask(axes: Axes, masks: Masks) -> torch.Tensor:
    """Which bands a mask hides, bool (B, F), on the device of the masks: centres in [freq_low, freq_high) Hz."""
    return _inside(torch.from_numpy(axes.band_centers()), masks.freq_low, masks.freq_high)


def apply_masks(features: torch.Tensor, axes: Axes, masks: Masks | None, fill: float) -> torch.Tensor:
    """Features with the masked frames and bands filled.

    :param features: (B, F, T); not modified.
    :param axes: where its frames and bands lie: the front end that made them, or the :class:`Centers` of any other.
    :param masks: of B views, or None for no masks at all. Ends of float32 are compared with centres rounded to
        float32, so that an end that lay on a centre still does.
    :param fill: the value of masked cells.
    :returns: (B, F, T).
    :raises UsageError: another number of masks than of clips, or of centres than of frames or bands.
    """
    if masks is None:
        return features
    count = np.shape(masks.time_start)[0]
    if count != features.shape[0]:
        raise UsageError(f"{count} masks for {len(features)} clips; give one mask a clip")
    frames = time_mask(axes, masks, features.shape[2])[:, None, :]
    bands = band_mask(axes, masks)[:, :, None]
    if bands.shape[1] != features.shape[1]:
        raise UsageError(f"{bands.shape[1]} centres for {features.shape[1]} bands; features are (clips, bands, frames)")
    return features.masked_fill((frames | bands).to(features.device), fill)


def _centers(given: Any, least: int, what: str) -> F64:
    centers: F64 = torch.as_tensor(given, dtype=torch.float64, device="cpu").numpy()
    if centers.ndim != 1 or len(centers) < least:
        raise UsageError(f"centres of {what} of shape {centers.shape}; {least or 'some'} numbers are due, one of each")
    return centers


def _inside(centers: torch.Tensor, low: Any, high: Any) -> torch.Tensor:
    first, end = torch.as_tensor(low)[:, None], torch.as_tensor(high)[:, None]
    kind = torch.float32 if first.dtype == torch.float32 else torch.float64
    at = centers.to(first.device, kind)
    return (first.to(kind) <= at) & (at < end.to(kind))


def _to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return float(_htk_mel(hz))
    if hz < _SLANEY_BREAK_HZ:
        return hz / _SLANEY_LINEAR_HZ
    return _SLANEY_BREAK_HZ / _SLANEY_LINEAR_HZ + math.log(hz / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP


def _to_hz(mels: F64, scale: str) -> F64:
    if scale == "htk":
        return np.asarray(_htk_hz(mels), dtype=np.float64)
    first_log = _SLANEY_BREAK_HZ / _SLANEY_LINEAR_HZ
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (mels - first_log))
    return np.where(mels < first_log, mels * _SLANEY_LINEAR_HZ, above)
