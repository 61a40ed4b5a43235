"""crnn: convolutions with gates, a bidirectional GRU, and attention over time; the baseline of DCASE's Task 4.

Facts of DESED_task (2021 to 2024): 128 mel bands from 0 to 8,000 Hz, window 2,048 and hop 256 at 16 kHz; seven blocks
of convolution, BatchNorm, gate, dropout and average pooling, which leave one band and a quarter of the frames; two
layers of GRU; frame probabilities whose mean is weighted by a softmax over classes. How its features are scaled is not
known here: decibels are normalised band by band, without weights.

Parameters: 1,111,392 for 8 classes, 1,112,420 for 10, 1,378,158 for 527.
"""

from __future__ import annotations

import torch
from torch import nn

from logitstore.models.pooling import ClassAttention
from logitstore.models.recurrent import recurrent
from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, in_range, pad_frames
from logitstore.views.mel import FrontEnd
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {"crnn": ("Crnn", 5e-4)}

_FRONT_END = FrontEnd(n_fft=2048, win_length=2048, hop_length=256, n_mels=128)
#: Of each block: channels, and how many frames and bands are averaged.
_BLOCKS = ((16, (2, 2)), (32, (2, 2)), (64, (1, 2)), *4 * ((128, (1, 2)),))
_HIDDEN, _LAYERS = 128, 2


class Crnn(Tagger):
    """The net; its frame features are the GRU's outputs, one for four frames (64 ms).

    :param dropout: after every gate, and before the last layers.
    """

    fill_stage = AFTER_NORM
    head_name = "attention"
    frame_hops = 4

    def __init__(self, classes: int, *, scores: Scores = "sigmoid", dropout: float = 0.5) -> None:
        super().__init__(_FRONT_END, classes, scores)
        in_range("dropout", dropout, 0.0, 1.0)
        self.bn0 = nn.BatchNorm1d(_FRONT_END.n_mels, affine=False)
        inputs, layers = 1, []
        for outputs, pooled in _BLOCKS:
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.99),
                _Gate(outputs),
                nn.Dropout(dropout),
                nn.AvgPool2d(pooled),
            ]
            inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.gru = nn.GRU(inputs, _HIDDEN, _LAYERS, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.attention = ClassAttention(2 * _HIDDEN, classes, scores)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.masked(self.bn0(self.log_mel(waveforms)), masks, mix)  # (B, F, T)
        maps = self.blocks(pad_frames(features, self.frame_hops).transpose(1, 2)[:, None])  # (B, D, T / 4, 1)
        return recurrent(self.gru, maps.squeeze(3).transpose(1, 2))

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head_by_frame(frames)[0]

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.attention.by_frame(self.dropout(frames))


class _Gate(nn.Module):
    """Maps (B, C, T, F) let through by themselves: sigmoid(x) times a linear map of x, cell by cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        through: torch.Tensor = maps.sigmoid() * self.linear(maps)
        return through
