"""PaSST: a vision transformer on overlapping 16 x 16 patches of a log-mel (Koutini et al., arXiv 2110.05069).

Two tokens go before the patches; the head reads their mean. Time has so many positions, 99 for 10 s at a stride of 10:
a shorter view takes the first, a longer one is heard as the authors' package hears scenes, in windows of 10 s every
2.5 s of the view with 5 s reflected at both ends, whose logits are averaged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.ced import Block
from logitstore.models.kaldi_mel import KaldiMel, KaldiMelFrontEnd
from logitstore.models.tagger import Scores, Tagger
from logitstore.views.recipe import Masks

_PATCH = 16
_LONGER = "windows of half a reflected view more, every 2.5 s, their logits averaged"
#: Seconds from window to window of a view that is longer than the time positions.
_HOP_SECONDS = 2.5


class Passt(Tagger):
    """The net, whose weights have the names of the published checkpoints.

    :param dim: width of a token; ``depth``: blocks; ``heads``: of each; ``hidden``: width of a block's hidden layer.
    :param stride: frames and bands from patch to patch; ``times``, ``bands``: positions of patches.
    """

    fill_stage = "log-mel, normalised"
    fill_value = 0.0
    head_name = "classifier"

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        stride: int = 10,
        times: int = 99,
        bands: int = 12,
    ) -> None:
        front_end = KaldiMelFrontEnd()
        super().__init__(front_end, classes, scores, KaldiMel(front_end))
        self.stride, self.times = stride, times
        self.cls_token, self.dist_token = (nn.Parameter(torch.zeros(1, 1, dim)) for _ in range(2))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, dim, bands, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, times))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(1, dim, _PATCH, stride)))
        self.blocks = nn.Sequential(*(Block(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.classifier = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    @property
    def most_frames(self) -> int:
        """The frames of the longest view that is heard as a whole."""
        return (self.times - 1) * self.stride + _PATCH + self.stride - 1

    @property
    def window_samples(self) -> int:
        """Length of the windows of a longer view: a multiple of 10 s where the positions reach that, else of 1 s."""
        seconds: int = self.most_frames * self.front_end.hop_length // self.front_end.sample_rate
        samples: int = (seconds // 10 * 10 or max(1, seconds)) * self.front_end.sample_rate
        return samples

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), and patches averaged over frequency (B, T, D); of a long view, those of one window after those
        of another."""
        if self.front_end.n_frames(waveforms.shape[1]) <= self.most_frames:
            return self._window(waveforms, masks, mix)
        said = [self._window(window, own, mix) for window, own in self._windows(waveforms, masks)]
        return torch.stack([logits for logits, _ in said]).mean(dim=0), torch.cat([frames for _, frames in said], dim=1)

    def _windows(self, waveforms: torch.Tensor, masks: Masks | None) -> Iterator[tuple[torch.Tensor, Masks | None]]:
        rate, length = self.front_end.sample_rate, self.window_samples
        half = length // 2
        padded = F.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
        for start in range(0, padded.shape[1] - length + 1, round(_HOP_SECONDS * rate)):
            own = None
            if masks is not None:
                shift = (start - half) / rate
                own = Masks(masks.time_start - shift, masks.time_end - shift, masks.freq_low, masks.freq_high)
            yield padded[:, start : start + length], own

    def _window(
        self, waveforms: torch.Tensor, masks: Masks | None, mix: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.masked(self.log_mel(waveforms), masks, mix)  # (B, F, T)
        features = F.pad(features, (0, max(0, _PATCH - features.shape[2])))
        patches = self.patch_embed(features[:, None])  # (B, D, F', T')
        times = patches.shape[3]
        patches = patches + self.time_new_pos_embed[..., :times] + self.freq_new_pos_embed
        tokens = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        tokens = torch.cat([tokens.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.norm(self.blocks(tokens))
        frames = tokens[:, 2:].reshape(len(tokens), -1, times, tokens.shape[2]).mean(dim=1)
        return self.head(tokens), frames

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of tokens (B, 2 + N, D)."""
        logits: torch.Tensor = self.classifier(frames[:, :2].mean(dim=1))
        return logits

    def contract(self) -> dict[str, Any]:
        return super().contract() | {"stride": self.stride, "times": self.times, "longer": _LONGER}
