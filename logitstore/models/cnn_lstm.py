"""cnn-lstm: one convolution and one LSTM, the student of a public implementation of distillation on SONYC-UST.

Facts of hardhat5/knowledge-distillation-ust: 20 bands from 125 to 7,500 Hz of the magnitudes of frames of 25 ms every
10 ms at 16 kHz, log(x + 0.01); a convolution of 5x5 with stride 2 and no padding, without norm or activation; one LSTM
over time, whose last output a linear layer maps to the classes. There, maps (channels, time, bands) were read as (time,
channels x bands) without moving the axes, which mixes time with channels; here they are moved. The magnitudes, and the
two smaller sizes, are this project's.

Parameters for 8 classes: 83,784; 21,416 of ``-small``; 5,592 of ``-tiny``. 117,519 for 527.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.recurrent import recurrent
from logitstore.models.tagger import Scores, Tagger, at_least
from logitstore.models.yamnet import YamnetFrontEnd, YamnetLogMel
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {"cnn-lstm": ("CnnLstm", 5e-3), "cnn-lstm-small": ("CnnLstm", 5e-3), "cnn-lstm-tiny": ("CnnLstm", 5e-3)}

#: Channels of the convolution, and outputs of the LSTM.
_SIZES = {"cnn-lstm": (32, 64), "cnn-lstm-small": (16, 32), "cnn-lstm-tiny": (8, 16)}
_KERNEL, _STRIDE = 5, 2


@dataclass(frozen=True, kw_only=True)
class MagnitudeFrontEnd(YamnetFrontEnd):
    """YAMNet's frames and triangles, fewer of them, of a view as long as it is."""

    n_mels: int = 20
    floor: float = 0.01

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "magnitudes"} | asdict(self)

    def padded(self, samples: int) -> int:
        """As many samples as there are, and one frame at least."""
        return max(samples, self.win_length)


class CnnLstm(Tagger):
    """One of three sizes; its frame features are the LSTM's outputs, one for two frames (20 ms).

    :param width: channels of the convolution; ``hidden``: outputs of the LSTM; the size's unless given.
    :param mels: bands, at least 5.
    """

    fill_stage = "log(mel + 0.01)"
    fill_value = math.log(0.01)
    head_name = "output"
    frame_hops = _STRIDE

    def __init__(
        self,
        classes: int,
        *,
        name: str = "cnn-lstm",
        scores: Scores = "sigmoid",
        width: int | None = None,
        hidden: int | None = None,
        mels: int = 20,
    ) -> None:
        front_end = MagnitudeFrontEnd(n_mels=at_least("mels", mels, _KERNEL))
        super().__init__(front_end, classes, scores, YamnetLogMel(front_end))
        width = at_least("width", _SIZES[name][0] if width is None else width, 1)
        hidden = at_least("hidden", _SIZES[name][1] if hidden is None else hidden, 1)
        self.convolution = nn.Conv2d(1, width, _KERNEL, stride=_STRIDE)
        bands = (mels - _KERNEL) // _STRIDE + 1
        self.lstm = nn.LSTM(width * bands, hidden, batch_first=True)
        self.output = nn.Linear(hidden, classes)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.masked(self.log_mel(waveforms), masks, mix)  # (B, F, T)
        silence = F.pad(features, (0, max(0, _KERNEL - features.shape[2])), value=self.fill_value)
        maps = self.convolution(silence.transpose(1, 2)[:, None])  # (B, C, T', F')
        return recurrent(self.lstm, maps.transpose(1, 2).flatten(2))

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(frames[:, -1])
        return logits
