"""cnn4: four plain 3x3 convolution blocks, small enough to train on a CPU in minutes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, at_least, in_range, pad_frames, stated_front_end
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {"cnn4": ("Cnn4", 5e-3)}

_BLOCKS = 4


class Cnn4(Tagger):
    """Four blocks of 3x3 convolution, BatchNorm, ReLU, 2x2 maximum pooling; mean plus maximum over time; one layer.

    :param width: channels of the first block; every block doubles them.
    :param time_halvings: how many of the four blocks, the first ones, halve time too; the others halve bands alone. So
        there is a frame for 2 ** ``time_halvings`` frames of the log-mel.
    :param mels: mel bands; ``hop_ms``, ``window_ms``: ms; ``f_min``, ``f_max``: Hz (``f_max`` half of the rate unless
        given); ``sample_rate``: Hz.
    """

    fill_stage = AFTER_NORM
    head_name = "output"

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        width: int = 16,
        time_halvings: int = _BLOCKS,
        mels: int = 64,
        hop_ms: float = 20.0,
        window_ms: float = 32.0,
        f_min: float = 0.0,
        f_max: float | None = None,
        sample_rate: int = 16000,
        dropout: float = 0.2,
    ) -> None:
        at_least("width", width, 1)
        in_range("time_halvings", at_least("time_halvings", time_halvings, 0), 0, _BLOCKS)
        in_range("dropout", dropout, 0.0, 1.0)
        front_end = stated_front_end(
            sample_rate=sample_rate, mels=mels, hop_ms=hop_ms, window_ms=window_ms, f_min=f_min, f_max=f_max,
            least_mels=1 << _BLOCKS,
        )  # fmt: skip
        super().__init__(front_end, classes, scores)
        self.frame_hops = 1 << time_halvings
        self.bn0 = nn.BatchNorm1d(mels)
        channels = [1, *(width << block for block in range(_BLOCKS))]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d((2, 2 if block < time_halvings else 1)),
                )
                for block, (inputs, outputs) in enumerate(pairwise(channels))
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels[-1], classes)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.maps(waveforms, masks, mix).mean(dim=2).transpose(1, 2)

    def maps(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the last block gives, (B, D, bands, T): the features before their mean over bands."""
        features = self.masked(self.bn0(self.log_mel(waveforms)), masks, mix)  # (B, F, T)
        found: torch.Tensor = self.blocks(pad_frames(features, self.frame_hops or 1)[:, None])
        return found

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.dropout(frames.mean(dim=1) + frames.amax(dim=1)))
        return logits
