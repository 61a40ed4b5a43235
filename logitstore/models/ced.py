"""ced-tiny, ced-mini, ced-small, ced-base: the ViT on 16x16 patches of CED (arXiv 2308.11957).

Key names are those of the published checkpoints, so that their weights load as they are. Masks are filled with 0 dB on
the log-mel, before the BatchNorm.

Clips of more frames than the model has positions for are cut, after the BatchNorm, into pieces of that many frames; a
shorter last piece is zero-padded; the pieces' probabilities are averaged. As in the original, a last piece that is
exactly full is left out: 2,024 frames are heard as their first 1,012 only.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.errors import RunError
from logitstore.models.tagger import BEFORE_NORM, Scores, Tagger, at_least, average, in_range, pad_frames
from logitstore.views.mel import CED as CED_FRONT_END
from logitstore.views.recipe import Masks

#: Its nets and their learning rates; see :mod:`logitstore.models.registry`.
NETS = {
    "ced-tiny": ("Ced", 1e-3),
    "ced-mini": ("Ced", 1e-3),
    "ced-small": ("Ced", 3e-4),
    "ced-base": ("Ced", 3e-4),
}  # CED's own

PATCH = 16
TARGET_FRAMES = 1012
_SIZES = {"ced-tiny": (192, 3), "ced-mini": (256, 4), "ced-small": (384, 6), "ced-base": (768, 12)}


# Of whole numbers, and of the lengths in a graph that is traced for clips of any length.
_minimum: Any = torch.sym_min
_maximum: Any = torch.sym_max


class Ced(Tagger):
    """The transformer.

    :param name: "ced-tiny", "ced-mini", "ced-small" or "ced-base"; gives ``dim`` and ``heads`` unless they are given.
    :param dim: width of a token; ``depth``: number of blocks; ``heads``: attention heads; ``mlp``: width of the hidden
        layer of a block, four times ``dim`` unless given.
    :param pooling: "mean" of the tokens, or a "token" of its own.
    :param frames: longest piece in frames; a longer clip is cut.
    :param drop_path: stochastic depth of the last block, growing linearly from 0 at the first; training only.
    """

    fill_stage = BEFORE_NORM
    head_name = "outputlayer"
    no_weight_decay = ("time_pos_embed", "freq_pos_embed", "cls_token", "token_pos_embed")

    def __init__(
        self,
        classes: int,
        *,
        name: str = "ced-tiny",
        scores: Scores = "sigmoid",
        dim: int | None = None,
        depth: int = 12,
        heads: int | None = None,
        mlp: int | None = None,
        pooling: Literal["mean", "token"] = "mean",
        frames: int = TARGET_FRAMES,
        drop_path: float = 0.0,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(CED_FRONT_END, classes, scores)
        dim = at_least("dim", _SIZES[name][0] if dim is None else dim, 1)
        heads = at_least("heads", _SIZES[name][1] if heads is None else heads, 1)
        mlp = at_least("mlp", 4 * dim if mlp is None else mlp, 1)
        at_least("depth", depth, 1)
        self.frames = at_least("frames", frames, PATCH)
        in_range("drop_path", drop_path, 0.0, 0.9)
        if dim % heads:
            raise RunError(f"model arguments dim {dim} and heads {heads}: heads must divide dim")
        if pooling not in ("mean", "token"):
            raise RunError(f"model argument pooling is {pooling!r}; allowed are 'mean' and 'token'")
        bands = self.front_end.n_mels
        self.pooling = pooling
        self.heads = heads
        self.init_bn = nn.Sequential(nn.Identity(), nn.BatchNorm1d(bands, momentum=0.01))
        self.patch_embed = _Patches(dim)
        self.time_pos_embed = nn.Parameter(torch.randn(1, dim, 1, frames // PATCH).mul_(0.02))
        self.freq_pos_embed = nn.Parameter(torch.randn(1, dim, bands // PATCH, 1).mul_(0.02))
        rates = torch.linspace(0.0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp, qkv_bias, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.outputlayer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if pooling == "token":
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim).mul_(1e-6))
            self.token_pos_embed = nn.Parameter(torch.randn(1, dim).mul_(0.02))

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), and tokens averaged over frequency (B, T, D), one every 16 frames of what the model hears."""
        features = self._features(waveforms, masks, mix)
        batch, bands, heard = features.shape
        pieces, count = self._pieces(features)
        tokens = self._tokens(pieces)  # (B P, N, D)
        patches = tokens[:, 1:] if self.pooling == "token" else tokens
        frames = patches.reshape(batch * count, bands // PATCH, -1, patches.shape[2]).mean(dim=1)  # (B P, T, D)
        steps = frames.shape[1]
        # Those of the last piece that are not its padding; an exported graph rounds quotients towards 0.
        last = (heard - (count - 1) * pieces.shape[2] + PATCH - 1) // PATCH
        frames = frames.reshape(batch, count * steps, -1)
        frames = frames[:, : (count - 1) * steps + _minimum(steps, last)]
        # which an exported graph would not know of frames of any number
        torch._check(frames.shape[1] > 0)  # type: ignore[no-untyped-call]
        if self.pool is not None:
            return self.answers(frames), frames
        said = self.head(tokens)
        # A traced count is no int: an exported graph averages always.
        alone = isinstance(count, int) and count == 1
        return said if alone else average(said.reshape(batch, count, self.classes), self.scores), frames

    def head(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of tokens (B, N, D), the pooling token first where there is one."""
        pooled = tokens[:, 0] if self.pooling == "token" else tokens.mean(dim=1)
        logits: torch.Tensor = self.outputlayer(pooled)
        return logits

    def centers(self, frames: Any, count: int, seconds: float) -> Any:
        steps = self.frames // PATCH  # of a piece, whose last frames may be too few for another
        hops = frames // steps * self.frames + (frames % steps + 0.5) * PATCH
        return hops * (self.front_end.hop_length / self.front_end.sample_rate)

    def contract(self) -> dict[str, Any]:
        return super().contract() | {"heads": self.heads, "pooling": self.pooling, "frames": self.frames}

    def _features(self, waveforms: torch.Tensor, masks: Masks | None, mix: torch.Tensor | None) -> torch.Tensor:
        features = self.init_bn(self.masked(self.log_mel(waveforms), masks, mix))  # (B, F, T)
        return pad_frames(features, PATCH)

    def _pieces(self, features: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Features (B, F, T) in P pieces of L frames each, (B P, F, L), the pieces of a clip side by side; and P.

        Without branches on T, so that a graph exported for any length cuts as this does.
        """
        batch, bands, heard = features.shape
        length = _minimum(heard, self.frames)
        rest = (self.frames - 1 + heard % self.frames) // self.frames  # 1 where the last piece is not full, or 0
        count = _maximum(1, heard // self.frames + 2 * rest - 1)
        whole = F.pad(features, (0, self.frames))[..., : count * length]
        pieces = whole.reshape(batch, bands, count, length).transpose(1, 2)
        return pieces.reshape(batch * count, bands, length), count

    def _tokens(self, piece: torch.Tensor) -> torch.Tensor:
        grid = self.patch_embed(piece[:, None])  # (B, D, F / 16, T / 16)
        grid = grid + self.time_pos_embed[..., : grid.shape[3]] + self.freq_pos_embed
        tokens = grid.flatten(2).transpose(1, 2)  # (B, N, D)
        if self.pooling == "token":
            token = (self.cls_token + self.token_pos_embed).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat((token, tokens), dim=1)
        out: torch.Tensor = self.norm(self.blocks(tokens))
        return out


class _Patches(nn.Module):
    """Patches of 16 bands by 16 frames to vectors: (B, 1, F, T) to (B, D, F / 16, T / 16)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        grid: torch.Tensor = self.proj(features)
        return grid


class _Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, count, dim = tokens.shape
        parts: torch.Tensor = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined


class _Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a LayerNorm and beside a residual path."""

    def __init__(self, dim: int, heads: int, mlp: int, qkv_bias: bool = True, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim, mlp)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # (B, N, D)
        tokens = tokens + self._dropped(self.attn(self.norm1(tokens)))
        return tokens + self._dropped(self.mlp(self.norm2(tokens)))

    def _dropped(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        kept = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * kept / keep
