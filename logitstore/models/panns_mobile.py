"""The MobileNets of the PANNs (Kong et al., arXiv 1912.10211), with the key names of the published checkpoints.

Strides are averages: a convolution of stride 1 and then the mean of 2 x 2 cells. Masks are filled with 0 after ``bn0``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.panns import front_end_at
from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, pad_frames
from logitstore.views.recipe import Masks

#: Of each layer after the first: channels and stride (version 1).
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))
#: A stage: expansion, channels, blocks, stride of the first of them (version 2).
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 2), (6, 160, 3, 1), (6, 320, 1, 1))
_FIRST, _LAST_V2, _HIDDEN = 32, 1280, 1024
_LEAST_FRAMES = 32


class PannsMobile(Tagger):
    """``version`` 1 or 2; mean plus maximum over time, two layers. The other arguments are those of the PANNs."""

    fill_stage = AFTER_NORM
    head_name = "fc_audioset"

    def __init__(
        self,
        classes: int,
        *,
        version: int,
        scores: Scores = "sigmoid",
        sample_rate: int = 32000,
        mels: int = 64,
        hop: int | None = None,
    ) -> None:
        super().__init__(front_end_at(sample_rate, mels, hop), classes, scores)
        self.version = version
        self.bn0 = nn.BatchNorm2d(mels)
        activation = nn.ReLU if version == 1 else nn.ReLU6
        layers: list[nn.Module] = [nn.Sequential(*_pooled(1, _FIRST, 2, 1, activation))]
        inputs = _FIRST
        if version == 1:
            for outputs, stride in _V1:
                depthwise = _pooled(inputs, inputs, stride, inputs, activation)
                layers.append(nn.Sequential(*depthwise, *_pointwise(inputs, outputs, activation)))
                inputs = outputs
        else:
            for expansion, outputs, blocks, stride in _V2:
                for block in range(blocks):
                    layers.append(_InvertedResidual(inputs, outputs, expansion, stride if block == 0 else 1))
                    inputs = outputs
            layers.append(nn.Sequential(*_pointwise(inputs, _LAST_V2, activation)))
            inputs = _LAST_V2
        self.features = nn.Sequential(*layers)
        self.fc1 = nn.Linear(inputs, _HIDDEN)
        self.fc_audioset = nn.Linear(_HIDDEN, classes)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.bn0(self.log_mel(waveforms)[..., None])[..., 0]  # (B, F, T)
        features = pad_frames(self.masked(features, masks, mix), _LEAST_FRAMES)
        maps: torch.Tensor = self.features(features.transpose(1, 2)[:, None])  # (B, D, T', F')
        return maps.mean(dim=3).transpose(1, 2)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = F.dropout(frames.amax(dim=1) + frames.mean(dim=1), p=0.5, training=self.training)
        logits: torch.Tensor = self.fc_audioset(F.relu(self.fc1(pooled)))
        return logits


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; beside a residual path where shape allows one. (B, C, T, F) to the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *(() if expansion == 1 else _pointwise(inputs, hidden, nn.ReLU6)),
            *_pooled(hidden, hidden, stride, hidden, nn.ReLU6),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        narrow: torch.Tensor = self.conv(maps)
        return maps + narrow if self.residual else narrow


def _pooled(inputs: int, outputs: int, stride: int, groups: int, activation: type[nn.Module]) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    return convolution, nn.AvgPool2d(stride), nn.BatchNorm2d(outputs), activation()


def _pointwise(inputs: int, outputs: int, activation: type[nn.Module]) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), activation()
