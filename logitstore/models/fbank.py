"""Kaldi's log filter bank in torch, batched: the front end of the Audio Spectrogram Transformer and of BEATs.

Frames of 25 ms every 10 ms that lie wholly inside the clip; each loses its own mean, is pre-emphasised and windowed;
power spectrum of 512 points; triangles that are linear in mel from 20 Hz to half of the rate; natural logarithm. AST
has a symmetric Hann window and samples in [-1, 1]; BEATs Povey's window and samples of 16 bits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from logitstore.arrays import F64
from logitstore.errors import UsageError
from logitstore.views.ops import hz_to_mel, mel_to_hz


@dataclass(frozen=True, kw_only=True)
class KaldiFrontEnd:
    """Parameters of the filter bank: ``sample_rate`` and ``f_min`` in Hz, lengths in samples; as AST has them.

    :param window: "hann", symmetric, or "povey", which is that to the power 0.85.
    :param scale: what samples in [-1, 1] are multiplied by first.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 128
    f_min: float = 20.0
    preemphasis: float = 0.97
    floor: float = 1.1920928955078125e-07
    window: Literal["hann", "povey"] = "hann"
    scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain JSON values; those that AST never had to state only where they are not AST's."""
        stated = {"kind": "kaldi"} | asdict(self)
        return {key: value for key, value in stated.items() if (key, value) not in (("window", "hann"), ("scale", 1.0))}

    def n_frames(self, samples: int) -> int:
        """Number of whole frames in so many samples."""
        return max(0, (samples - self.win_length) // self.hop_length + 1)

    def frame_centers(self, n_frames: int) -> F64:
        """Centres of the frames in seconds from the start of the view, float64 (n_frames,)."""
        return (np.arange(n_frames, dtype=np.float64) * self.hop_length + self.win_length / 2) / self.sample_rate

    def band_centers(self) -> F64:
        """Peaks of the bands in Hz, float64 (F,)."""
        return np.asarray(mel_to_hz(self._mel_edges()[1:-1]), dtype=np.float64)

    def filter_bank(self) -> F64:
        """Weights from power spectrum to bands, float64 (n_fft // 2 + 1, F)."""
        edges = self._mel_edges()
        bins = hz_to_mel(np.arange(self.n_fft // 2 + 1, dtype=np.float64) * self.sample_rate / self.n_fft)
        rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
        return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))

    def _mel_edges(self) -> F64:
        low, high = float(hz_to_mel(self.f_min)), float(hz_to_mel(self.sample_rate / 2))
        return low + (high - low) * np.arange(self.n_mels + 2, dtype=np.float64) / (self.n_mels + 1)


class KaldiFbank(torch.nn.Module):
    """Waveforms float32 (B, S) to natural logarithms of band powers, float32 (B, F, T), whatever autocast says."""

    window: torch.Tensor
    bank: torch.Tensor

    def __init__(self, front_end: KaldiFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        window = torch.hann_window(front_end.win_length, periodic=False)
        window = window.pow(0.85) if front_end.window == "povey" else window
        self.register_buffer("window", window, persistent=False)
        bank = torch.from_numpy(front_end.filter_bank().astype(np.float32))
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        front_end = self.front_end
        if waveforms.ndim != 2 or waveforms.shape[1] < front_end.win_length:
            raise UsageError(
                f"waveforms of shape {tuple(waveforms.shape)}; this front end takes (clips, samples) of at least "
                f"{front_end.win_length} samples"
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            samples = waveforms.float() if front_end.scale == 1.0 else waveforms.float() * front_end.scale
            frames = samples.unfold(1, front_end.win_length, front_end.hop_length)  # (B, T, W), a view
            frames = frames - frames.mean(dim=2, keepdim=True)
            before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
            frames = (frames - front_end.preemphasis * before) * self.window
            spectrum = torch.fft.rfft(frames, n=front_end.n_fft, dim=2)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, T, n_fft // 2 + 1)
            bands = torch.matmul(power, self.bank).clamp_(min=front_end.floor).log_()
            return bands.transpose(1, 2)
