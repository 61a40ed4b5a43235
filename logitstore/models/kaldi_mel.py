"""The log-mel of PaSST and EfficientAT: a pre-emphasised waveform, centred frames, Kaldi's mel bands, a fixed scale.

y[t] = x[t + 1] - 0.97 x[t], one sample shorter; an STFT of 1,024 points through a symmetric Hann window of 800 samples
every 320, centred, edges reflected; power; triangles that are linear in mel from 0 to 15,000 Hz, without the highest
bin; (ln(power + 1e-5) + 4.5) / 5.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F64
from logitstore.errors import UsageError
from logitstore.views.ops import hz_to_mel, mel_to_hz


@dataclass(frozen=True, kw_only=True)
class KaldiMelFrontEnd:
    """Its parameters: ``sample_rate``, ``f_min`` and ``f_max`` in Hz, lengths in samples; as both models have them."""

    sample_rate: int = 32000
    n_fft: int = 1024
    win_length: int = 800
    hop_length: int = 320
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 15000.0
    preemphasis: float = 0.97
    offset: float = 1e-5
    shift: float = 4.5
    scale: float = 5.0

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain JSON values."""
        return {"kind": "kaldi mel"} | asdict(self)

    def n_frames(self, samples: int) -> int:
        """Number of frames in so many samples."""
        return max(0, (samples - 1) // self.hop_length + 1)

    def frame_centers(self, n_frames: int) -> F64:
        """Centres of the frames in seconds from the start of the view, float64 (n_frames,)."""
        return np.arange(n_frames, dtype=np.float64) * self.hop_length / self.sample_rate

    def band_centers(self) -> F64:
        """Peaks of the bands in Hz, float64 (F,)."""
        return np.asarray(mel_to_hz(self._mel_edges()[1:-1]), dtype=np.float64)

    def filter_bank(self) -> F64:
        """Weights from power spectrum to bands, float64 (n_fft // 2 + 1, F); those of the highest bin are zero.

        Mels are rounded to float32 as in the originals, whose nets learnt from such bands: exact ones are off by 1e-5.
        """
        low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (self.f_min, self.f_max))
        steps = np.arange(self.n_mels + 2, dtype=np.float32)
        edges = np.float32(low) + steps * np.float32((high - low) / (self.n_mels + 1))
        hertz = np.arange(self.n_fft // 2 + 1, dtype=np.float32) * np.float32(self.sample_rate / self.n_fft)
        bins = np.float32(1127.0) * np.log(np.float32(1.0) + hertz / np.float32(700.0))
        rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
        bank = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float64)
        bank[-1] = 0.0
        return np.asarray(bank)

    def _mel_edges(self) -> F64:
        low, high = float(hz_to_mel(self.f_min)), float(hz_to_mel(self.f_max))
        return low + (high - low) * np.arange(self.n_mels + 2, dtype=np.float64) / (self.n_mels + 1)


class KaldiMel(torch.nn.Module):
    """Waveforms float32 (B, S) to normalised log-mel, float32 (B, F, T), whatever autocast says."""

    window: torch.Tensor
    bank: torch.Tensor

    def __init__(self, front_end: KaldiMelFrontEnd | None = None) -> None:
        super().__init__()
        self.front_end = front_end = front_end or KaldiMelFrontEnd()
        window = torch.hann_window(front_end.win_length, periodic=False)
        self.register_buffer("window", window, persistent=False)
        bank = torch.from_numpy(front_end.filter_bank().astype(np.float32))
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        front_end = self.front_end
        shortest = front_end.n_fft // 2 + 2
        if waveforms.ndim != 2 or waveforms.shape[1] < shortest:
            raise UsageError(
                f"waveforms of shape {tuple(waveforms.shape)}; this front end takes (clips, samples) of at least "
                f"{shortest} samples"
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            samples = waveforms.float()
            emphasised = samples[:, 1:] - front_end.preemphasis * samples[:, :-1]
            spectrum = torch.stft(
                emphasised,
                n_fft=front_end.n_fft,
                hop_length=front_end.hop_length,
                win_length=front_end.win_length,
                window=self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )  # (B, n_fft // 2 + 1, T)
            power = spectrum.real.square() + spectrum.imag.square()
            bands = torch.matmul(self.bank.T, power)  # (B, F, T)
            return (bands.add_(front_end.offset).log_() + front_end.shift) / front_end.scale
