"""densenet-121, -63, -small, -tiny: DenseNet-BC (Huang et al., arXiv 1608.06993) with global average pooling.

Each dense layer reads what all layers of its block gave: BatchNorm, ReLU, 1x1 to 4k channels, BatchNorm, ReLU, 3x3 to
k. A transition halves the channels, and averages 2x2 cells. A linear layer on the mean over bands and time ends it, so
the same layer on the mean over bands alone says when (Kao et al., arXiv 2008.03350): the mean over time of these class
activations is the clip's logit. That paper's own table and front end are not known here; the front end and the two
small sizes are this project's. Nothing is learnt before the first convolution: bands are normalised without weights.

Parameters for 527 classes: 7,487,759; 2,575,971; 431,839; 99,795.
"""

from __future__ import annotations

import torch
from torch import nn

from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, at_least, in_range, pad_frames, stated_front_end
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {
    "densenet-121": ("DenseNet", 1e-3),
    "densenet-63": ("DenseNet", 1e-3),
    "densenet-small": ("DenseNet", 5e-3),
    "densenet-tiny": ("DenseNet", 1e-2),
}

#: Channels of the first convolution, whether it is of 7x7 and with strides, layers of each block, channels of a layer.
_SIZES = {
    "densenet-121": (64, True, (6, 12, 24, 16), 32),
    "densenet-63": (64, True, (3, 6, 12, 8), 32),
    "densenet-small": (24, False, (3, 6, 12, 8), 12),
    "densenet-tiny": (16, False, (2, 4, 6, 4), 8),
}
_WIDEN = 4


class DenseNet(Tagger):
    """One of the four; a frame of its features is 32 hops long, or 8 in ``-small`` and ``-tiny``.

    :param time_poolings: how many of the three transitions halve time as they halve bands, the first ones; with
        fewer, frames are shorter.
    :param mels: mel bands, at least 32, or 8; ``hop_ms``, ``window_ms``: ms; ``f_min``, ``f_max``: Hz (``f_max`` half
        of the rate unless given); ``sample_rate``: Hz.
    """

    fill_stage = AFTER_NORM
    head_name = "output"

    def __init__(
        self,
        classes: int,
        *,
        name: str = "densenet-121",
        scores: Scores = "sigmoid",
        time_poolings: int = 3,
        mels: int = 64,
        hop_ms: float = 10.0,
        window_ms: float = 32.0,
        f_min: float = 0.0,
        f_max: float | None = None,
        sample_rate: int = 16000,
    ) -> None:
        channels, strides, blocks, growth = _SIZES[name]
        transitions = len(blocks) - 1
        in_range("time_poolings", at_least("time_poolings", time_poolings, 0), 0, transitions)
        front_end = stated_front_end(
            sample_rate=sample_rate, mels=mels, hop_ms=hop_ms, window_ms=window_ms, f_min=f_min, f_max=f_max,
            least_mels=(4 if strides else 1) << transitions,
        )  # fmt: skip
        super().__init__(front_end, classes, scores)
        self.frame_hops = (4 if strides else 1) << time_poolings
        self.first_hop = self.frame_hops / 2 - (2 if strides else 0)  # strides centre their windows on hops 0, 4, 8, …
        self.bn0 = nn.BatchNorm1d(mels, affine=False)
        layers: list[nn.Module] = [
            _convolution(1, channels, 7 if strides else 3, stride=2 if strides else 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(3, stride=2, padding=1)] if strides else []),
        ]
        for number, depth in enumerate(blocks):
            for _ in range(depth):
                layers.append(_Dense(channels, growth))
                channels += growth
            if number < transitions:
                layers.append(_activated(channels, channels // 2, 1))
                layers.append(nn.AvgPool2d((2, 2 if number < time_poolings else 1)))
                channels //= 2
        self.blocks = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.output = nn.Linear(channels, classes)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.masked(self.bn0(self.log_mel(waveforms)), masks, mix)  # (B, F, T)
        maps: torch.Tensor = self.blocks(pad_frames(features, self.frame_hops or 1)[:, None])  # (B, D, F', T')
        return maps.mean(dim=2).transpose(1, 2)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(frames.mean(dim=1))
        return logits

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """And class activations (B, T, C), whose mean over time is the clip's logit."""
        return self.head(frames), self.output(frames)


class _Dense(nn.Module):
    """A dense layer: (B, C, F, T) to itself and ``growth`` channels more."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        hidden = _WIDEN * growth
        self.layers = nn.Sequential(_activated(inputs, hidden, 1), _activated(hidden, growth, 3))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat((maps, self.layers(maps)), dim=1)


def _activated(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), _convolution(inputs, outputs, kernel))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return convolution
