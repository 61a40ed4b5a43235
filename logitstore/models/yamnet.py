"""YAMNet: MobileNet-v1 on patches of .96 s of a log-mel, as Google published it for 521 classes of AudioSet.

16 kHz. Zeros are added at the end of a view until whole patches of 96 frames, one every 48, hold all of its samples;
each patch is heard alone, and a view's probabilities are the mean of those of its patches. Masked frames and bands are
filled with log(0.001) before the patches are cut: that is what silence gives, and what the added zeros give too.

A file of weights names 55 layers in the order of the net, whatever format it has: a convolution and its norm, 27 times,
and the linear layer. Here their variables are called by that number, as ``0/kernel``, ``1/moving_mean``; all are laid
out as TensorFlow has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from logitstore.arrays import F32, F64
from logitstore.errors import RunError
from logitstore.models.tagger import Scores, Tagger, average
from logitstore.views.mel import FrontEnd, LogMel
from logitstore.views.ops import hz_to_mel
from logitstore.views.recipe import Masks

PATCH_FRAMES, PATCH_HOP = 96, 48
#: Samples of the shortest view, one patch, and from one patch to the next.
PATCH_SAMPLES, HOP_SAMPLES = 15_600, 7_680
#: Channels after the first convolution and after each of the 13 pairs, and where they halve time and frequency.
CHANNELS = (32, 64, 128, 128, 256, 256, *6 * (512,), 1024, 1024)
_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_LAYERS = 2 * len(CHANNELS) - 1
_EPSILON = 1e-4
_AT_ONCE = 32  # patches: a view of an hour takes the memory of a minute, and 16 to 32 are the fastest on a core


@dataclass(frozen=True, kw_only=True)
class YamnetFrontEnd(FrontEnd):
    """Frames of 25 ms every 10 ms that begin with the view; triangles of its magnitude spectrum, linear in mel."""

    win_length: int = 400
    f_min: float = 125.0
    f_max: float = 7500.0
    center: bool = False
    floor: float = 1e-3
    top_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "yamnet"} | asdict(self)

    def padded(self, samples: int) -> int:
        """Samples of whole patches that hold so many samples."""
        return PATCH_SAMPLES + HOP_SAMPLES * -(-max(0, samples - PATCH_SAMPLES) // HOP_SAMPLES)

    def n_frames(self, samples: int) -> int:
        return (self.padded(samples) - self.win_length) // self.hop_length + 1

    def frame_centers(self, n_frames: int) -> F64:
        return (np.arange(n_frames, dtype=np.float64) * self.hop_length + self.win_length / 2) / self.sample_rate

    def filter_bank(self) -> F64:
        """Weights from magnitude spectrum to bands, float64 (n_fft // 2 + 1, F)."""
        edges = hz_to_mel(self.band_edges())
        bins = hz_to_mel(np.arange(self.n_fft // 2 + 1, dtype=np.float64) * self.sample_rate / self.n_fft)
        rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
        return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


class YamnetLogMel(LogMel):
    """Waveforms float32 (B, S), padded to whole patches, to log(mel + 0.001), natural, float32 (B, F, T)."""

    front_end: YamnetFrontEnd

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        front_end = self.front_end
        more = front_end.padded(waveforms.shape[1]) - waveforms.shape[1]
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = F.pad(waveforms.float(), (0, more)).unfold(1, front_end.win_length, front_end.hop_length)
            magnitude = torch.fft.rfft(frames * self.window, n=front_end.n_fft, dim=2).abs()  # (B, T, n_fft // 2 + 1)
            return torch.matmul(magnitude, self.bank).add_(front_end.floor).log_().transpose(1, 2)


class Yamnet(Tagger):
    """The net.

    :param channels: 14 widths: after the first convolution and after each of the 13 pairs of convolutions.
    """

    fill_stage = "log(mel + 0.001), before it is cut into patches"
    fill_value = math.log(1e-3)
    head_name = "output"

    def __init__(self, classes: int, *, scores: Scores = "sigmoid", channels: Sequence[int] = CHANNELS) -> None:
        front_end = YamnetFrontEnd()
        super().__init__(front_end, classes, scores)
        self.log_mel = YamnetLogMel(front_end)
        self.body = nn.Sequential(_Layer(1, channels[0], 3, _STRIDES[0]))
        for inputs, outputs, stride in zip(channels, channels[1:], _STRIDES[1:], strict=False):
            self.body.append(_Layer(inputs, inputs, 3, stride, depthwise=True))
            self.body.append(_Layer(inputs, outputs, 1, 1))
        self.output = nn.Linear(channels[-1], classes)

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) of the patches' mean probabilities, and embeddings (B, P, D) of the patches."""
        features = self.masked(self.log_mel(waveforms), masks, mix)  # (B, F, T)
        patches = features.unfold(2, PATCH_FRAMES, PATCH_HOP).permute(0, 2, 3, 1)  # (B, P, 96, F)
        apart = patches.flatten(0, 1)[:, None]  # (B P, 1, 96, F)
        embeddings = torch.cat([self.body(some).mean(dim=(2, 3)) for some in torch.split(apart, _AT_ONCE)])
        embeddings = embeddings.reshape(*patches.shape[:2], -1)
        return self.head(embeddings), embeddings

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head_by_frame(frames)[0]

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits: torch.Tensor = self.output(frames)
        return average(logits, self.scores), logits

    def centers(self, frames: Any, count: int, seconds: float) -> Any:
        return (frames * HOP_SAMPLES + PATCH_SAMPLES / 2) / self.front_end.sample_rate


class _Layer(nn.Module):
    """A convolution without a bias, padded as TensorFlow's SAME, a BatchNorm without a scale, and ReLU.

    SAME adds what the last window needs, the odd row of it after the maps: at stride 2 and even sizes nothing before.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.stride, self.groups = stride, inputs if depthwise else 1
        self.weight = nn.Parameter(torch.empty(outputs, inputs // self.groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out" if depthwise else "fan_in")
        self.beta = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("variance", torch.ones(outputs))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        rows, columns = (
            max(0, (-(-size // self.stride) - 1) * self.stride + self.weight.shape[-1] - size)
            for size in maps.shape[2:]
        )
        maps = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        maps = F.conv2d(maps, self.weight, stride=self.stride, groups=self.groups)
        maps = F.batch_norm(maps, self.mean, self.variance, None, self.beta, self.training, eps=_EPSILON)
        return F.relu(maps, inplace=True)


def variables(channels: Sequence[int], classes: int) -> dict[str, tuple[int, ...]]:
    """The variables of a file of weights with their shapes, in the order of the net."""
    found: dict[str, tuple[int, ...]] = {}
    for number in range(_LAYERS):
        inputs, outputs = channels[(number - 1) // 2] if number else 1, channels[(number + 1) // 2]
        depthwise = number % 2 == 1
        width = inputs if depthwise else outputs
        found[f"{2 * number}/depthwise_kernel" if depthwise else f"{2 * number}/kernel"] = (
            (3, 3, inputs, 1) if depthwise else (3 if number == 0 else 1, 3 if number == 0 else 1, inputs, outputs)
        )
        for what in ("beta", "moving_mean", "moving_variance"):
            found[f"{2 * number + 1}/{what}"] = (width,)
    head = 2 * _LAYERS
    return found | {f"{head}/kernel": (channels[-1], classes), f"{head}/bias": (classes,)}


def described(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], int]:
    """Channels and classes of a file of weights, from the shapes of its variables.

    :raises RunError: they are not those of a YAMNet; the first that differs is named.
    """
    kernels = ["0/kernel", *(f"{2 * number}/kernel" for number in range(2, _LAYERS, 2))]
    channels = tuple(shapes.get(name, (0,))[-1] for name in kernels)
    classes = shapes.get(f"{2 * _LAYERS}/bias", (0,))[-1]
    expected = variables(channels, classes)
    for name in [*expected, *(name for name in shapes if name not in expected)]:
        found, due = shapes.get(name), expected.get(name)
        if found != due or (due is not None and 0 in due):
            raise RunError(
                f"its variable {name!r} is {found or 'missing'}"
                + (f", and that of a YAMNet {due}" if due and 0 not in due else "; that is no YAMNet")
            )
    return channels, classes


def state_of(tensors: Mapping[str, F32]) -> dict[str, torch.Tensor]:
    """The state of a :class:`Yamnet` of a file's variables, which :func:`described` has found to be one."""
    ours = {"kernel": "weight", "depthwise_kernel": "weight", "moving_mean": "mean", "moving_variance": "variance"}
    state = {}
    for name, tensor in tensors.items():
        number, what = name.split("/")
        if int(number) == 2 * _LAYERS:
            state["output.weight" if what == "kernel" else "output.bias"] = torch.from_numpy(tensor.T.copy())
            continue
        axes = {"kernel": (3, 2, 0, 1), "depthwise_kernel": (2, 3, 0, 1)}.get(what, (0,))
        place = f"body.{int(number) // 2}.{ours.get(what, what)}"
        state[place] = torch.from_numpy(np.ascontiguousarray(tensor.transpose(axes)))
    return state
