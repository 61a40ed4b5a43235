"""cnn6, cnn10, cnn14: the PANNs (Kong et al., arXiv 1912.10211), with the key names of the published checkpoints.

cnn14-decision-level-att is cnn14 with attention over the probabilities of frames: 81,834,492 parameters for 527
classes.

32 kHz, 64 Slaney mel bands from 50 to 14,000 Hz, window 1,024, hop 320; masks are filled with 0 after ``bn0``. At
``sample_rate=16000`` or 8000 the window, hop and upper band edge shrink with it, as in the models published for those.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.errors import RunError
from logitstore.models.pooling import panns_frames, panns_range, weighted
from logitstore.models.tagger import AFTER_NORM, Scores, Tagger, at_least, pad_frames
from logitstore.views.mel import FrontEnd
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {
    "cnn6": ("Panns", 1e-3),
    "cnn10": ("Panns", 1e-3),
    "cnn14": ("Panns", 1e-3),
    "cnn14-decision-level-att": ("PannsDecisionLevel", 1e-3),
}

_CHANNELS = {"cnn6": (64, 128, 256, 512), "cnn10": (64, 128, 256, 512), "cnn14": (64, 128, 256, 512, 1024, 2048)}
_TOP_HZ = {32000: 14000.0, 16000: 8000.0, 8000: 4000.0}
_POOLED_BLOCKS = {"cnn6": 4, "cnn10": 4, "cnn14": 5}


def front_end_at(sample_rate: int, mels: int = 64, hop: int | None = None) -> FrontEnd:
    """The front end of the PANNs at one of their rates.

    :raises RunError: another rate; fewer than 32 bands, of which the deepest of the nets would leave none.
    """
    if sample_rate not in _TOP_HZ:
        allowed = ", ".join(str(rate) for rate in _TOP_HZ)
        raise RunError(f"model argument sample_rate is {sample_rate!r}; the PANNs exist at {allowed} Hz")
    return FrontEnd(
        sample_rate=sample_rate,
        n_fft=1024 * sample_rate // 32000,
        win_length=1024 * sample_rate // 32000,
        hop_length=320 * sample_rate // 32000 if hop is None else at_least("hop", hop, 1),
        n_mels=at_least("mels", mels, 32),
        f_min=50.0,
        f_max=_TOP_HZ[sample_rate],
        mel_scale="slaney",
        norm="slaney",
        top_db=None,
    )


class Panns(Tagger):
    """One of the three; ``name`` is "cnn6", "cnn10" or "cnn14", ``sample_rate`` 32000, 16000 or 8000 Hz.

    :param mels: mel bands, at least 32. :param hop: samples from frame to frame; 10 ms unless given.
    """

    fill_stage = AFTER_NORM
    head_name = "fc_audioset"
    head_modules = ("fc1", "fc_audioset")

    def __init__(
        self,
        classes: int,
        *,
        name: str,
        scores: Scores = "sigmoid",
        sample_rate: int = 32000,
        mels: int = 64,
        hop: int | None = None,
    ) -> None:
        super().__init__(front_end_at(sample_rate, mels, hop), classes, scores)
        channels = (1, *_CHANNELS[name])
        self.bn0 = nn.BatchNorm2d(mels)
        self.pooled_blocks = _POOLED_BLOCKS[name]
        self.frame_hops = 1 << self.pooled_blocks
        self.n_blocks = len(channels) - 1
        for number, (inputs, outputs) in enumerate(pairwise(channels), start=1):
            self.add_module(f"conv_block{number}", _Block(inputs, outputs, kernels=(5,) if name == "cnn6" else (3, 3)))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], classes)
        for layer in (self.fc1, self.fc_audioset):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = self.bn0(self.log_mel(waveforms)[..., None])[..., 0]  # (B, F, T)
        features = pad_frames(self.masked(features, masks, mix), self.frame_hops or 1)
        maps = features.transpose(1, 2)[:, None]  # (B, 1, T, F)
        for number in range(1, self.n_blocks + 1):
            maps = self.get_submodule(f"conv_block{number}")(maps)
            if number <= self.pooled_blocks:
                maps = F.avg_pool2d(maps, 2)
            maps = F.dropout(maps, p=0.2, training=self.training)
        return maps.mean(dim=3).transpose(1, 2)  # (B, T, D)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = F.dropout(frames.amax(dim=1) + frames.mean(dim=1), p=0.5, training=self.training)
        hidden = F.dropout(F.relu(self.fc1(pooled)), p=0.5, training=self.training)
        logits: torch.Tensor = self.fc_audioset(hidden)
        return logits


class PannsDecisionLevel(Panns):
    """cnn14, its logits those of frames' probabilities averaged by attention over time; the arguments are the same."""

    head_name = "att_block"
    head_modules = ("fc1", "att_block")

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        sample_rate: int = 32000,
        mels: int = 64,
        hop: int | None = None,
    ) -> None:
        super().__init__(classes, name="cnn14", scores=scores, sample_rate=sample_rate, mels=mels, hop=hop)
        self.att_block = _AttentionBlock(self.fc_audioset.in_features, classes)
        del self.fc_audioset

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head_by_frame(frames)[0]

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = panns_frames(frames, self.fc1).transpose(1, 2)  # (B, D, T)
        weights, logits = (layer(hidden).transpose(1, 2) for layer in (self.att_block.att, self.att_block.cla))
        return weighted(panns_range(weights), logits, self.scores), logits


class _AttentionBlock(nn.Module):
    """What each frame (B, D, T) weighs and says, class by class; and a BatchNorm of the files, never used."""

    one_layer = False

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.att, self.cla = nn.Conv1d(size, classes, 1), nn.Conv1d(size, classes, 1)
        for layer in (self.att, self.cla):
            nn.init.xavier_uniform_(layer.weight)
        self.bn_att = nn.BatchNorm1d(classes).requires_grad_(False)


class _Block(nn.Module):
    """Convolutions with BatchNorm and ReLU: one of 5x5 (cnn6) or two of 3x3 (cnn10, cnn14)."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = len(kernels)
        for number, kernel in enumerate(kernels, start=1):
            convolution = nn.Conv2d(inputs, outputs, kernel_size=kernel, padding=kernel // 2, bias=False)
            nn.init.xavier_uniform_(convolution.weight)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            inputs = outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        for number in range(1, self.layers + 1):
            maps = F.relu(self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(maps)))
        return maps
