"""EfficientAT: MobileNetV3 (``mn``) and its dynamic kin (``dymn``), with the key names of the published checkpoints.

mn: inverted residuals with squeeze and excitation (Schmid et al., arXiv 2211.04772; Howard et al., arXiv 1905.02244).
dymn: blocks whose convolutions, activations and weights over time and frequency depend on the sound (Schmid et al.,
arXiv 2310.15648). Masks are filled with 0 on the normalised log-mel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.models.kaldi_mel import KaldiMel, KaldiMelFrontEnd
from logitstore.models.mobile import channels_at
from logitstore.models.tagger import Scores, Tagger, pad_frames
from logitstore.views.recipe import Masks

#: A block at width 1: inputs, kernel, expanded channels, outputs, squeeze and excitation, hard swish, stride.
_BLOCKS = (
    (16, 3, 16, 16, False, False, 1), (16, 3, 64, 24, False, False, 2), (24, 3, 72, 24, False, False, 1),
    (24, 5, 72, 40, True, False, 2), (40, 5, 120, 40, True, False, 1), (40, 5, 120, 40, True, False, 1),
    (40, 3, 240, 80, False, True, 2), (80, 3, 200, 80, False, True, 1), (80, 3, 184, 80, False, True, 1),
    (80, 3, 184, 80, False, True, 1), (80, 3, 480, 112, True, True, 1), (112, 3, 672, 112, True, True, 1),
    (112, 5, 672, 160, True, True, 2), (160, 5, 960, 160, True, True, 1), (160, 5, 960, 160, True, True, 1),
)  # fmt: skip
#: The blocks before which a stride of 2 can be another, in the order of ``strides``.
_STRIDED = (1, 3, 6, 12)
_LAST = 1280
_SQUEEZE, _CONTEXT = 4, 4
_KERNELS, _LINES = 4, 2
_LEAST_FRAMES = 32


class EfficientAt(Tagger):
    """A net of either kind.

    :param width: multiplier of all channels, which are rounded to multiples of 8.
    :param dynamic: "none" for mn; "all" blocks, or "se" for those that have squeeze and excitation in mn.
    :param temperature: of the softmax over the kernels of a dynamic convolution.
    :param convolutional: a head of one 1x1 convolution in the place of two linear layers.
    :param strides: of the four stages that halve time and frequency. :param hop: samples from frame to frame.
    """

    fill_stage = "log-mel, normalised"
    fill_value = 0.0
    head_name = "classifier"

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        width: float = 1.0,
        dynamic: str = "none",
        temperature: float = 1.0,
        convolutional: bool = False,
        strides: tuple[int, int, int, int] = (2, 2, 2, 2),
        mels: int = 128,
        hop: int = 320,
    ) -> None:
        front_end = KaldiMelFrontEnd(n_mels=mels, hop_length=hop)
        super().__init__(front_end, classes, scores, KaldiMel(front_end))
        self.stated = {"strides": list(strides)} | ({"temperature": temperature} if dynamic != "none" else {})
        self.convolutional = convolutional
        blocks: list[nn.Module] = []
        for number, (inputs, kernel, expanded, outputs, squeeze, swish, stride) in enumerate(_BLOCKS):
            first, wide, last = (channels_at(channels, width) for channels in (inputs, expanded, outputs))
            stride = strides[_STRIDED.index(number)] if number in _STRIDED else stride
            if dynamic == "all" or (dynamic == "se" and squeeze):
                low, high = channels_at(32, width), channels_at(128, width)
                context = min(max(channels_at(wide // _CONTEXT, 1.0), low), high)
                blocks.append(_Dynamic(first, wide, last, kernel, stride, swish, context, temperature))
            else:
                blocks.append(_Residual(first, wide, last, kernel, stride, swish, squeeze and dynamic == "none"))
        first, last = channels_at(_BLOCKS[0][0], width), channels_at(_BLOCKS[-1][3], width)
        head = _convolution(1, first, 3, 2, nn.Hardswish)
        tail = _convolution(last, 6 * last, 1, 1, nn.Hardswish)
        if dynamic == "none":
            self.features = nn.Sequential(head, *blocks, tail)
        else:
            self.in_c, self.layers, self.out_c = head, nn.ModuleList(blocks), tail
        hidden = channels_at(_LAST, width)
        self.classifier = (
            nn.Sequential(nn.Conv2d(6 * last, classes, 1, bias=False), nn.BatchNorm2d(classes))
            if convolutional
            else nn.Sequential(
                nn.Identity(), nn.Identity(), nn.Linear(6 * last, hidden), nn.Hardswish(), nn.Dropout(0.2),
                nn.Linear(hidden, classes),
            )
        )  # fmt: skip

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        features = pad_frames(self.masked(self.log_mel(waveforms), masks, mix), _LEAST_FRAMES)
        maps: torch.Tensor = features[:, None]  # (B, 1, F, T)
        if hasattr(self, "features"):
            maps = self.features(maps)
        else:
            maps = self.in_c(maps)
            for layer in self.layers:
                maps = layer(maps)
            maps = self.out_c(maps)
        return maps.mean(dim=2).transpose(1, 2)  # (B, T', D)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = frames.mean(dim=1)
        if self.convolutional:
            pooled = pooled[:, :, None, None]
        logits: torch.Tensor = self.classifier(pooled)
        return logits.flatten(1)

    def contract(self) -> dict[str, Any]:
        return super().contract() | self.stated


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, activation: type[nn.Module] | None, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, _norm(outputs), *([] if activation is None else [activation()]))


class _Residual(nn.Module):
    """Widen, filter each channel, weigh the channels, narrow; beside a residual path where shape allows one."""

    def __init__(
        self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, swish: bool, squeeze: bool
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        activation = nn.Hardswish if swish else nn.ReLU
        layers = [] if expanded == inputs else [_convolution(inputs, expanded, 1, 1, activation)]
        layers.append(_convolution(expanded, expanded, kernel, stride, activation, groups=expanded))
        if squeeze:
            layers.append(_Squeeze(expanded))  # type: ignore[arg-type]
        layers.append(_convolution(expanded, outputs, 1, 1, None))
        self.block = nn.Sequential(*layers)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        narrow: torch.Tensor = self.block(maps)
        return narrow + maps if self.residual else narrow


class _Squeeze(nn.Module):
    """Each channel weighed by what all channels are on average over time and frequency."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = nn.Module()
        narrow = channels_at(channels // _SQUEEZE, 1.0)
        layer.fc1, layer.fc2 = nn.Linear(channels, narrow), nn.Linear(narrow, channels)
        self.conc_se_layers = nn.ModuleList([layer])

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        (layer,) = self.conc_se_layers
        hidden = F.relu(layer.fc1(maps.mean(dim=(2, 3))))  # type: ignore[operator]
        return torch.sigmoid(layer.fc2(hidden))[:, :, None, None] * maps  # type: ignore[operator]


class _Dynamic(nn.Module):
    """An inverted residual whose parts depend on a context of its input."""

    def __init__(
        self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, swish: bool, context: int,
        temperature: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.widens = expanded != inputs
        self.swish = swish
        if self.widens:
            self.exp_conv = _Kernels(inputs, expanded, 1, 1, context, temperature)
            self.exp_norm = _norm(expanded)
        self.depth_conv = _Kernels(expanded, expanded, kernel, stride, context, temperature, groups=expanded)
        self.depth_norm = _norm(expanded)
        self.depth_act = _Lines(expanded, context)
        self.proj_conv = _Kernels(expanded, outputs, 1, 1, context, temperature)
        self.proj_norm = _norm(outputs)
        self.context_gen = _Context(context, inputs, expanded, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        context, over_frequency, over_time = self.context_gen(maps)
        wide = maps
        if self.widens:
            wide = self.exp_norm(self.exp_conv(wide, context))
            wide = F.hardswish(wide) if self.swish else F.relu(wide)
        wide = self.depth_act(self.depth_norm(self.depth_conv(wide, context)), context)
        wide = wide * over_frequency.sigmoid() * over_time.sigmoid()
        narrow: torch.Tensor = self.proj_norm(self.proj_conv(wide, context))
        return narrow + maps if self.residual else narrow


class _Context(nn.Module):
    """Of maps (B, C, F, T): a context (B, H), and weights of each channel over frequency and over time."""

    def __init__(self, context: int, inputs: int, expanded: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.joint_conv = nn.Conv2d(inputs, context, 1, bias=False)
        self.joint_norm = _norm(context)
        self.conv_f, self.conv_t = nn.Conv2d(context, expanded, 1), nn.Conv2d(context, expanded, 1)

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        frequency, time = maps.mean(dim=3, keepdim=True), maps.mean(dim=2, keepdim=True).transpose(2, 3)
        joint = F.hardswish(self.joint_norm(self.joint_conv(torch.cat([frequency, time], dim=2))))
        bands, frames = torch.split(joint, [frequency.shape[2], time.shape[2]], dim=2)
        frames = frames.transpose(2, 3)
        if self.stride > 1:
            bands = F.avg_pool2d(bands, (3, 1), (self.stride, 1), (1, 0))
            frames = F.avg_pool2d(frames, (1, 3), (1, self.stride), (0, 1))
        return joint.mean(dim=(2, 3)), self.conv_f(bands), self.conv_t(frames)


class _Kernels(nn.Module):
    """A convolution by a mean of four kernels, weighed by the softmax of a layer on the context."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, context: int, temperature: float, groups: int = 1
    ) -> None:
        super().__init__()
        self.shape = (outputs, inputs // groups, kernel, kernel)
        self.stride, self.groups, self.temperature = stride, groups, temperature
        self.residuals = nn.Sequential(nn.Linear(context, _KERNELS))
        weight = torch.empty(_KERNELS, *self.shape)
        for each in weight:
            nn.init.kaiming_normal_(each, mode="fan_out")
        self.weight = nn.Parameter(weight.reshape(1, 1, _KERNELS, -1))

    def forward(self, maps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        clips = len(maps)
        share = torch.softmax(self.residuals(context) / self.temperature, dim=1)  # (B, K)
        weight = (share @ self.weight[0, 0]).reshape(clips * self.shape[0], *self.shape[1:])
        flat = maps.reshape(1, -1, *maps.shape[2:])
        padding = (self.shape[2] - 1) // 2
        output = F.conv2d(flat, weight, stride=self.stride, padding=padding, groups=self.groups * clips)
        return output.reshape(clips, self.shape[0], *output.shape[2:])


class _Lines(nn.Module):
    """The larger of two lines for each channel, whose slopes and offsets a layer on the context gives."""

    lambdas: torch.Tensor
    init_v: torch.Tensor

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context, 2 * _LINES * channels))
        self.register_buffer("lambdas", torch.tensor([1.0] * _LINES + [0.5] * _LINES))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * _LINES - 1)))

    def forward(self, maps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        theta = 2 * torch.sigmoid(self.coef_net(context)) - 1
        lines = theta.reshape(len(maps), maps.shape[1], 1, 1, -1) * self.lambdas + self.init_v
        return torch.maximum(maps * lines[..., 0] + lines[..., _LINES], maps * lines[..., 1] + lines[..., _LINES + 1])
