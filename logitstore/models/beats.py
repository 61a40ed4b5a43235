"""BEATs: a transformer on 16 x 16 patches of Kaldi's filter bank (Chen et al., arXiv 2212.09058).

Positions come from one wide grouped convolution and from a bias of relative positions that each head gates by its own
queries; residual paths are scaled up by (2 layers)^(1/4) (deep norm). Logits are averaged over the patches.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.fbank import KaldiFbank, KaldiFrontEnd
from logitstore.models.tagger import Scores, Tagger
from logitstore.views.recipe import Masks

#: What the filter bank is normalised by: (x - mean) / (2 deviations), of AudioSet.
_MEAN, _TWICE_DEVIATION = 15.41663, 2 * 6.55582


@dataclass(frozen=True, kw_only=True)
class BeatsSize:
    """Widths and counts of a BEATs net, as its checkpoint states them; those of the published ones by default."""

    layers: int = 12
    dim: int = 768
    hidden: int = 3072
    heads: int = 12
    patch: int = 16
    patch_dim: int = 512
    conv_positions: int = 128
    conv_groups: int = 16
    buckets: int = 320
    max_distance: int = 800
    gated: bool = True
    deep_norm: bool = True
    norm_first: bool = False
    patch_bias: bool = False


class Beats(Tagger):
    """The net, whose weights have the names of the published checkpoints."""

    fill_stage = "filter bank, normalised"
    fill_value = 0.0
    head_name = "predictor"

    def __init__(self, classes: int, *, scores: Scores = "sigmoid", size: BeatsSize | None = None) -> None:
        self.size = size = size or BeatsSize()
        self.frame_hops = size.patch
        front_end = KaldiFrontEnd(window="povey", scale=32768.0)
        super().__init__(front_end, classes, scores, KaldiFbank(front_end))
        self.patch_embedding = nn.Conv2d(1, size.patch_dim, size.patch, size.patch, bias=size.patch_bias)
        self.layer_norm = nn.LayerNorm(size.patch_dim)
        self.post_extract_proj = nn.Linear(size.patch_dim, size.dim) if size.patch_dim != size.dim else None
        self.encoder = _Encoder(size)
        self.predictor = nn.Linear(size.dim, classes)

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), and patches averaged over frequency (B, T, D), one every 16 frames."""
        bank = (self.log_mel(waveforms) - _MEAN) / _TWICE_DEVIATION
        features = self.masked(bank, masks, mix)  # (B, F, T)
        side = self.size.patch
        features = F.pad(features, (0, max(0, side - features.shape[2])))  # a very short view still gives a patch
        patches = self.patch_embedding(features.transpose(1, 2)[:, None])  # (B, E, T', F')
        bands = patches.shape[3]
        tokens = self.layer_norm(patches.flatten(2).transpose(1, 2))  # (B, T' F', E)
        if self.post_extract_proj is not None:
            tokens = self.post_extract_proj(tokens)
        tokens = self.encoder(tokens)
        frames = tokens.reshape(len(tokens), -1, bands, tokens.shape[2]).mean(dim=2)
        return self.head(tokens), frames

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.predictor(frames).mean(dim=1)
        return logits

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """And class activations (B, T, C) of patches averaged over frequency, whose mean is the clip's logit."""
        return self.head(frames), self.predictor(frames)

    def contract(self) -> dict[str, Any]:
        return super().contract() | {"size": asdict(self.size)}


class _Encoder(nn.Module):
    """Tokens (B, N, D) to the same."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.size = size
        self.pos_conv = nn.Sequential(
            nn.Conv1d(
                size.dim, size.dim, size.conv_positions, padding=size.conv_positions // 2, groups=size.conv_groups
            )
        )
        self.layer_norm = nn.LayerNorm(size.dim)
        self.layers = nn.ModuleList(_Layer(size) for _ in range(size.layers))
        self.relative_attention_bias = nn.Embedding(size.buckets, size.heads)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = tokens.shape[1]
        places = self.pos_conv(tokens.transpose(1, 2))[..., :count]  # of an even kernel, the last is dropped
        tokens = tokens + F.gelu(places).transpose(1, 2)
        tokens = tokens if self.size.norm_first else self.layer_norm(tokens)
        buckets = _buckets(count, self.size.buckets, self.size.max_distance).to(tokens.device)
        bias = self.relative_attention_bias(buckets).permute(2, 0, 1)  # (H, N, N)
        for layer in self.layers:
            tokens = layer(tokens, bias)
        return self.layer_norm(tokens) if self.size.norm_first else tokens


class _Layer(nn.Module):
    """Attention and two linear layers, each on a residual path."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.norm_first = size.norm_first
        self.self_attn = _Attention(size)
        self.self_attn_layer_norm = nn.LayerNorm(size.dim)
        self.fc1 = nn.Linear(size.dim, size.hidden)
        self.fc2 = nn.Linear(size.hidden, size.dim)
        self.final_layer_norm = nn.LayerNorm(size.dim)
        self.factor = math.pow(2 * size.layers, 0.25) if size.deep_norm else 1.0

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            tokens = tokens + self.self_attn(self.self_attn_layer_norm(tokens), bias)
            return tokens + self._wide(self.final_layer_norm(tokens))
        tokens = self.self_attn_layer_norm(tokens * self.factor + self.self_attn(tokens, bias))
        normed: torch.Tensor = self.final_layer_norm(tokens * self.factor + self._wide(tokens))
        return normed

    def _wide(self, tokens: torch.Tensor) -> torch.Tensor:
        wide: torch.Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return wide


class _Attention(nn.Module):
    """Attention with a bias of relative positions, which each query's own gates scale where the net is gated."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.q_proj, self.k_proj = nn.Linear(size.dim, size.dim), nn.Linear(size.dim, size.dim)
        self.v_proj, self.out_proj = nn.Linear(size.dim, size.dim), nn.Linear(size.dim, size.dim)
        self.gated = size.gated
        if size.gated:
            self.grep_linear = nn.Linear(size.dim // size.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, size.heads, 1, 1))

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, count, dim = tokens.shape
        query, key, value = (
            layer(tokens).reshape(batch, count, self.heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, H, N, D / H)
        bias = bias[None]
        if self.gated:
            gates = torch.sigmoid(self.grep_linear(query).reshape(batch, self.heads, count, 2, 4).sum(dim=4))
            first, second = gates[..., :1], gates[..., 1:]
            bias = (first * (second * self.grep_a - 1.0) + 2.0) * bias
        heard = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.expand(batch, -1, -1, -1).to(query.dtype)
        )
        mixed: torch.Tensor = self.out_proj(heard.transpose(1, 2).reshape(batch, count, dim))
        return mixed


def _buckets(count: int, buckets: int, max_distance: int) -> torch.Tensor:
    """The bucket of each pair of query and key by their distance, int64 (N, N): T5's, with half of them for keys that
    come later; near distances have buckets of their own, far ones share them by their logarithm."""
    at = torch.arange(count)
    distance = at[None] - at[:, None]  # key less query
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    far = (
        exact + (torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)).long()
    )
    return (distance > 0).long() * half + torch.where(size < exact, size, far.clamp(max=half - 1))
