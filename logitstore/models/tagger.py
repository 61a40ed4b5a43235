"""What every model here is: waveforms in, logits out, masks applied at the stage that its contract names."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from logitstore import notebook
from logitstore.arrays import F64
from logitstore.errors import RunError
from logitstore.views.mel import FrontEnd, LogMel, Spectral, apply_masks
from logitstore.views.recipe import Masks

Scores = Literal["sigmoid", "softmax"]

#: Stages at which a model can fill masked cells.
BEFORE_NORM = "log-mel in dB, before the BatchNorm"
AFTER_NORM = "log-mel, after the first BatchNorm"


class Tagger(nn.Module):
    """A model of ``classes`` classes on a log-mel front end.

    Attributes: ``front_end``; ``scores``, how its logits become probabilities; ``fill_stage`` and ``fill_value``, where
    and with what masked frames and bands are filled; ``head_name``, the module that knows the classes (the last linear
    layer in it has a row for each); ``head_modules``, all that only :meth:`head` uses, in its order, where that is
    more; ``no_weight_decay``, names of parameters that have axes as a matrix has and are none, as position embeddings:
    they never decay; ``pool``, a head of :mod:`logitstore.models.pooling` in place of its own, or None; ``frame_hops``,
    how many hops of the front end a frame of its features is long, or None where its frames share the clip evenly;
    ``first_hop``, the hop on which the first of them is centred, or None where that is the middle of its own. A
    subclass defines :meth:`frame_features`, or :meth:`outputs` in its place, and :meth:`head`.
    """

    fill_stage: str
    fill_value: float = 0.0
    head_name: str
    head_modules: tuple[str, ...] = ()
    no_weight_decay: tuple[str, ...] = ()
    frame_hops: int | None = None
    first_hop: float | None = None
    pool: Any

    def __init__(
        self, front_end: Spectral, classes: int, scores: Scores = "sigmoid", log_mel: nn.Module | None = None
    ) -> None:
        """:param log_mel: waveforms (B, S) to features (B, F, T), where the front end is not a plain one."""
        super().__init__()
        if scores not in ("sigmoid", "softmax"):
            raise RunError(f"scores {scores!r}; allowed are 'sigmoid' and 'softmax'")
        self.front_end: Any = front_end
        self.classes = classes
        self.scores: Scores = scores
        if log_mel is None:
            assert isinstance(front_end, FrontEnd), "a front end of another kind comes with its module"
            log_mel = LogMel(front_end)
        self.log_mel = log_mel
        self.pool = None

    def forward(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, C) of waveforms float32 (B, S) at the front end's rate, under B masks or none.

        :param mix: float32 (B,) in [0, 1], batch mixup: the log-mel of clip i, masked, is mixed with that of clip
            B - 1 - i, its own share being mix[i]. None for no mixup.
        """
        return self.outputs(waveforms, masks, mix)[0]

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and frame features (B, T, D) of one pass; the arguments are those of :meth:`forward`."""
        frames = self.frame_features(waveforms, masks, mix)
        return self.answers(frames), frames

    def answers(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of frame features (B, T, D), by whatever head the model has."""
        logits: torch.Tensor = self.head(frames) if self.pool is None else self.pool(frames)
        return logits

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The activations before pooling over time, (B, T, D); of a net that defines :meth:`outputs`, those of it."""
        if type(self).outputs is Tagger.outputs:
            raise NotImplementedError(f"{type(self).__name__} is an abstract model")
        return self.outputs(waveforms, masks, mix)[1]

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of frame features (B, T, D)."""
        raise NotImplementedError(f"{type(self).__name__} is an abstract model")

    def head_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) of :meth:`head`, and those of every frame (B, T, C) that it makes them of, where it does.

        :raises RunError: it does not.
        """
        raise RunError(f"a {type(self).__name__} says nothing of single frames; give it a head that does, as pool=mean")

    def answers_by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), and those of every frame (B, T, C), of frame features (B, T, D), under one dropout.

        :raises RunError: its head says nothing of single frames.
        """
        if self.pool is None:
            return self.head_by_frame(frames)
        both: tuple[torch.Tensor, torch.Tensor] = self.pool.by_frame(frames)
        return both

    def frame_logits(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, C) of every frame, of frame features (B, T, D).

        :raises RunError: as :meth:`answers_by_frame`.
        """
        return self.answers_by_frame(frames)[1]

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame_logits` can be called."""
        if self.pool is not None:
            return bool(self.pool.has_frames)
        return type(self).head_by_frame is not Tagger.head_by_frame

    def frame_centers(self, count: int, seconds: float) -> F64:
        """The seconds that ``count`` frames of its features of a clip of ``seconds`` are centred on, (count,)."""
        centers: F64 = self.centers(np.arange(count, dtype=np.float64), count, seconds)
        return centers

    def centers(self, frames: Any, count: int, seconds: float) -> Any:
        """The seconds that some of the ``count`` frames of its features are centred on, to half a hop of the front end.

        :param frames: their numbers, an array or a tensor of floats; what is given back is of its kind.
        """
        if self.frame_hops is None:
            return (frames + 0.5) * (seconds / count)
        first = self.frame_hops / 2 if self.first_hop is None else self.first_hop
        return (frames * self.frame_hops + first) * (self.front_end.hop_length / self.front_end.sample_rate)

    def masked(self, features: torch.Tensor, masks: Masks | None, mix: torch.Tensor | None = None) -> torch.Tensor:
        """Features (B, F, T) at the contract's stage, with the masked frames and bands filled, and then mixed."""
        filled = apply_masks(features, self.front_end, masks, self.fill_value)
        if mix is None:
            return filled
        own = mix[:, None, None]
        return own * filled + (1 - own) * filled.flip(0)

    def _repr_html_(self) -> str:
        facts = [
            ("parameters", f"{sum(each.numel() for each in self.parameters()):,}"),
            ("classes", f"{self.classes:,}, {self.scores}"),
            ("hears", f"{self.front_end.sample_rate:,} Hz"),
            ("masks", f"filled with {self.fill_value:g}: {self.fill_stage}"),
        ]
        return notebook.card(type(self).__name__, notebook.facts(facts))

    def contract(self) -> dict[str, Any]:
        """Front end, and stage and value of the fill, as plain JSON values; goes into a store's manifest."""
        return {"front_end": self.front_end.to_dict(), "fill": {"stage": self.fill_stage, "value": self.fill_value}}


def at_least(name: str, value: Any, least: int) -> int:
    """Check that an argument of a net is a whole number of at least ``least``, and give it back.

    :raises RunError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RunError(f"model argument {name} is {value!r}; it must be a whole number of at least {least}")
    return value


def in_range(name: str, value: Any, low: float, high: float) -> float:
    """Check that an argument of a net is a number in [low, high], and give it back.

    :raises RunError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RunError(f"model argument {name} is {value!r}; it must be a number from {low:g} to {high:g}")
    return float(value)


def stated_front_end(
    *, sample_rate: int, mels: int, hop_ms: float, window_ms: float, f_min: float, f_max: float | None, least_mels: int
) -> FrontEnd:
    """The log-mel front end of a model that leaves it to its arguments: HTK mel bands, FFT of the next power of two.

    :param sample_rate: Hz; ``hop_ms``, ``window_ms``: ms, 1 to 1000; ``f_min``, ``f_max``: Hz, ``f_max`` None for half
        of the rate; ``mels``: bands, at least ``least_mels``.
    :raises RunError: a value out of its range.
    """
    at_least("mels", mels, least_mels)
    at_least("sample_rate", sample_rate, 1)
    in_range("hop_ms", hop_ms, 1.0, 1000.0)
    in_range("window_ms", window_ms, 1.0, 1000.0)
    in_range("f_min", f_min, 0.0, sample_rate / 2)
    top = sample_rate / 2 if f_max is None else in_range("f_max", f_max, 0.0, sample_rate / 2)
    window = round(window_ms * sample_rate / 1000)
    return FrontEnd(
        sample_rate=sample_rate,
        n_fft=1 << max(1, math.ceil(math.log2(max(window, 1)))),
        win_length=window,
        hop_length=round(hop_ms * sample_rate / 1000),
        n_mels=mels,
        f_min=float(f_min),
        f_max=top,
    )


def pad_frames(features: torch.Tensor, least: int) -> torch.Tensor:
    """Features (..., T) with zeros at their end up to ``least`` frames; a very short clip still gives one output."""
    return F.pad(features, (0, max(0, least - features.shape[-1])))


def probabilities(logits: torch.Tensor, scores: str) -> torch.Tensor:
    """Float32 probabilities of logits (..., C)."""
    return torch.softmax(logits.float(), dim=-1) if scores == "softmax" else torch.sigmoid(logits.float())


def average(logits: torch.Tensor, scores: str) -> torch.Tensor:
    """Logits (B, C) whose probabilities are the mean of those of P pieces, (B, P, C); computed in log space."""
    logits = logits.float()
    if scores == "softmax":
        return torch.logsumexp(F.log_softmax(logits, dim=-1), dim=1)
    return torch.logsumexp(F.logsigmoid(logits), dim=1) - torch.logsumexp(F.logsigmoid(-logits), dim=1)
