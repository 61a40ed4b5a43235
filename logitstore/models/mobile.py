"""mobile: MobileNetV2's inverted residuals (Sandler et al., arXiv 1801.04381) on a log-mel, with a width multiplier.

Each block widens its channels with a 1x1 convolution, filters every channel alone with a 3x3 one (depthwise), and
narrows them again with a 1x1 one; the strides are the paper's, 32 in all. Unlike in the paper the last layer shrinks
with ``width`` too, since at widths below 1 it would hold most of the weights.

Parameters for 527 classes: 0.11 M at width 0.1, 0.33 M at 0.25, 0.92 M at 0.5, 2.90 M at 1, 10.0 M at 2.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, in_range, stated_front_end
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {"mobile": ("Mobile", 5e-3)}

#: A stage of the paper's table 2: expansion, channels at width 1, blocks, stride of the first of them.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_FIRST, _LAST = 32, 1280
_MULTIPLE = 8


class Mobile(Tagger):
    """MobileNetV2; mean plus maximum over time; one layer. Frame i of its features is centred on hop 32 i.

    :param width: multiplier of all channels, 0.05 to 4; they are rounded to multiples of 8.
    :param mels: mel bands, at least 8; ``hop_ms``, ``window_ms``: ms; ``f_min``, ``f_max``: Hz (``f_max`` half of the
        rate unless given); ``sample_rate``: Hz. A frame of the features is 32 hops long, a short last one too.
    """

    fill_stage = AFTER_NORM
    head_name = "output"
    frame_hops, first_hop = 32, 0.0

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        width: float = 1.0,
        mels: int = 64,
        hop_ms: float = 10.0,
        window_ms: float = 32.0,
        f_min: float = 0.0,
        f_max: float | None = None,
        sample_rate: int = 16000,
        dropout: float = 0.2,
    ) -> None:
        in_range("width", width, 0.05, 4.0)
        in_range("dropout", dropout, 0.0, 1.0)
        front_end = stated_front_end(
            sample_rate=sample_rate, mels=mels, hop_ms=hop_ms, window_ms=window_ms, f_min=f_min, f_max=f_max,
            least_mels=8,
        )  # fmt: skip
        super().__init__(front_end, classes, scores)
        self.bn0 = nn.BatchNorm1d(mels)
        inputs = channels_at(_FIRST, width)
        layers: list[nn.Module] = [_convolution(1, inputs, kernel=3, stride=2)]
        for expansion, channels, blocks, stride in _STAGES:
            outputs = channels_at(channels, width)
            for block in range(blocks):
                layers.append(_InvertedResidual(inputs, outputs, expansion, stride if block == 0 else 1))
                inputs = outputs
        layers.append(_convolution(inputs, channels_at(_LAST, width), kernel=1))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels_at(_LAST, width), classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.masked(self.bn0(self.log_mel(waveforms)), masks, mix)  # (B, F, T)
        maps: torch.Tensor = self.blocks(features[:, None])  # (B, D, F / 32, T / 32), both rounded up
        return maps.mean(dim=2).transpose(1, 2)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.dropout(frames.mean(dim=1) + frames.amax(dim=1)))
        return logits


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; beside a residual path where shape allows one. (B, C, F, T) to the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        widen = [] if expansion == 1 else [_convolution(inputs, hidden, kernel=1)]
        self.layers = nn.Sequential(
            *widen,
            _convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, kernel_size=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        narrow: torch.Tensor = self.layers(maps)
        return maps + narrow if self.residual else narrow


class _Strided(nn.Conv2d):
    """A convolution of single channels with stride 2, in training never of one frame alone.

    In bfloat16 on CPUs, channels last, oneDNN leaves the gradient of the weights beside such a frame as memory happens
    to be (torch 2.13). A second frame of zeros is what the padding is anyway.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.training and maps.shape[3] == 1:
            maps = F.pad(maps, (0, 1))
        return super().forward(maps)


class _Clamp(nn.Module):
    """ReLU6: bounded, so that 8 bits hold it well.

    As one operator, which exports faster than torch's own of two; but that is a third faster to train with, step for
    step, for the gradient of ``clamp`` goes over the maps three times.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.relu6(maps, inplace=True) if self.training else maps.clamp(0.0, 6.0)


def _convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    kind = _Strided if groups > 1 and stride > 1 else nn.Conv2d
    convolution = kind(
        inputs, outputs, kernel_size=kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), _Clamp())


def channels_at(at_width_1: int, width: float) -> int:
    """Channels at a width: the nearest multiple of 8, at least 8, never more than a tenth below (the paper's rule)."""
    wanted = at_width_1 * width
    rounded = max(_MULTIPLE, int(wanted + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)
    return rounded + _MULTIPLE if rounded < 0.9 * wanted else rounded
