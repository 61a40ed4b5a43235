"""Heads that pool frame features over time, in the place of a net's own: ``--model-arg pool=attention``.

All but ``feature-attention`` and ``multi-attention``, whose last layer gives logits, average or choose among the
probabilities c of frames. Students give logits, so these are made of log c and log (1 - c) by sums of exponentials: a
probability of 1e-30 or of 1 - 1e-30 keeps its float32 digits. Of softmax scores, c is the softmax of a frame, and the
logits are the logarithms of its mean; the softmax over them restores the sum of 1 where weights differ by class.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.errors import RunError
from logitstore.models.tagger import Scores, Tagger, average, probabilities

_LEAST = 1e-7  # of an attention weight
_LOG_RANGE = (math.log(_LEAST), math.log1p(-_LEAST))
_DROPOUT = 0.5
_PANNS_RANGE, _PANNS_FRAMES = 10.0, 3


def weighted(log_weights: torch.Tensor, logits: torch.Tensor, scores: Scores) -> torch.Tensor:
    """Logits (B, C) whose probabilities are the weighted means over time of those of frames.

    :param log_weights: logarithms of weights (B, T, C), of any sum over T. :param logits: of frames, (B, T, C).
    """
    log_weights, logits = log_weights.float(), logits.float()
    if scores == "softmax":
        log_weights = log_weights - torch.logsumexp(log_weights, dim=1, keepdim=True)
        return torch.logsumexp(log_weights + F.log_softmax(logits, dim=-1), dim=1)
    yes = torch.logsumexp(log_weights + F.logsigmoid(logits), dim=1)
    return yes - torch.logsumexp(log_weights + F.logsigmoid(-logits), dim=1)


class Pool(nn.Module):
    """Frame features (B, T, D) to logits (B, C).

    :param size: D. Where ``one_layer`` is false, more than the last linear layer knows the order of the classes.
    """

    one_layer = True

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__()
        self.size, self.classes, self.scores = size, classes, scores

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`by_frame` can be called."""
        return type(self).by_frame is not Pool.by_frame

    def by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), and the (B, T, C) of frames that they are made of.

        :raises RunError: this head classifies no frames.
        """
        name = next((name for name, kind in POOLS.items() if type(self) is kind), type(self).__name__)
        raise RunError(f"a net with the head {name} says nothing of single frames; use pool=mean, max or attention")


class MeanPool(Pool):
    """The mean over time of the frames' probabilities."""

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__(size, classes, scores)
        self.output = nn.Linear(size, classes)

    def over_time(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of those of frames, (B, T, C)."""
        return average(logits, self.scores)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.by_frame(frames)[0]

    def by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits: torch.Tensor = self.output(frames)
        return self.over_time(logits), logits


class MaxPool(MeanPool):
    """The largest over time of the frames' probabilities, class by class."""

    def over_time(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        return (F.log_softmax(logits, dim=-1) if self.scores == "softmax" else logits).amax(dim=1)


class _Attention(Pool):
    """The mean over time of the frames' probabilities, weighted class by class."""

    one_layer = False

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__(size, classes, scores)
        self.weigh = nn.Linear(size, classes)
        self.output = nn.Linear(size, classes)

    def hidden_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """What the two layers read, (B, T, D)."""
        return frames

    def log_weights(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logarithms of the weights (B, T, C), of any sum over T."""
        raise NotImplementedError

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.by_frame(frames)[0]

    def by_frame(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.hidden_frames(frames)
        logits: torch.Tensor = self.output(hidden)
        return weighted(self.log_weights(hidden), logits, self.scores), logits


class AttentionPool(_Attention):
    """Weights are sigmoids, at least 1e-7 (Kong et al., arXiv 1711.00927, as its PyTorch code has them)."""

    def log_weights(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.logsigmoid(self.weigh(hidden).float()).clamp(*_LOG_RANGE)


class ClassAttention(_Attention):
    """Weights are a softmax over classes, at least 1e-7: the head of the net ``crnn``."""

    def log_weights(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.weigh(hidden).float(), dim=-1).clamp(min=_LOG_RANGE[0])


class PannsAttention(_Attention):
    """The end of the PANNs' Cnn14_DecisionLevelAtt: neighbouring frames, a layer, a softmax over time."""

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__(size, classes, scores)
        self.hidden = nn.Linear(size, size)

    def hidden_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return panns_frames(frames, self.hidden)

    def log_weights(self, hidden: torch.Tensor) -> torch.Tensor:
        return panns_range(self.weigh(hidden))


def panns_range(weights: torch.Tensor) -> torch.Tensor:
    """Logarithms of weights before their softmax over time, held within -10 and 10."""
    return weights.float().clamp(-_PANNS_RANGE, _PANNS_RANGE)


def panns_frames(frames: torch.Tensor, hidden: nn.Linear) -> torch.Tensor:
    """Frames (B, T, D), each the largest plus the mean of three, through dropout, a layer with ReLU, dropout."""
    around = frames.transpose(1, 2)
    size, edge = _PANNS_FRAMES, _PANNS_FRAMES // 2
    around = F.max_pool1d(around, size, 1, edge) + F.avg_pool1d(around, size, 1, edge)
    dropped = F.dropout(around.transpose(1, 2), _DROPOUT, hidden.training)
    return F.dropout(F.relu(hidden(dropped)), _DROPOUT, hidden.training)


class MultiAttention(Pool):
    """Attention on frames and on one more layer of them, by one pair of layers, and a linear layer on both answers.

    As the PyTorch code of Yu et al. (arXiv 1803.02353) has it; its Keras code has a pair for each.
    """

    one_layer = False

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__(size, classes, scores)
        self.hidden = nn.Linear(size, size, bias=False)
        self.norm = nn.BatchNorm1d(size)
        self.attention = AttentionPool(size, classes, scores)
        self.output = nn.Linear(2 * classes, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        normalised = self.norm(self.hidden(frames).transpose(1, 2)).transpose(1, 2)
        deeper = F.dropout(F.relu(normalised), _DROPOUT, self.training)
        said = [probabilities(self.attention(each), self.scores) for each in (frames, deeper)]
        logits: torch.Tensor = self.output(torch.cat(said, dim=1))
        return logits


class FeatureAttention(Pool):
    """Attention over time for each feature, and then one layer (Kong et al., arXiv 1903.00765)."""

    def __init__(self, size: int, classes: int, scores: Scores) -> None:
        super().__init__(size, classes, scores)
        self.weigh = nn.Linear(size, size)
        self.values = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)
        self.output = nn.Linear(size, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        weights = F.logsigmoid(self.weigh(frames).float()).clamp(*_LOG_RANGE).softmax(dim=1)
        pooled = (weights * self.values(frames).float()).sum(dim=1)
        logits: torch.Tensor = self.output(F.dropout(F.relu(self.norm(pooled)), _DROPOUT, self.training))
        return logits


POOLS: dict[str, type[Pool]] = {
    "mean": MeanPool,
    "max": MaxPool,
    "attention": AttentionPool,
    "multi-attention": MultiAttention,
    "feature-attention": FeatureAttention,
    "cnn14-attention": PannsAttention,
}


def replace_head(model: Tagger, pool: Any) -> None:
    """Give a new net another head, with random weights: its own, and what only that used, is taken away.

    :param pool: a name of :data:`POOLS`.
    :raises RunError: there is none of that name.
    """
    if pool not in POOLS:
        raise RunError(f"model argument pool is {pool!r}; allowed are {', '.join(POOLS)}")
    own = model.head_modules or (model.head_name,)
    layers = [layer for name in own for layer in model.get_submodule(name).modules()]
    size = next(layer.in_features for layer in layers if isinstance(layer, nn.Linear))
    for name in own:
        delattr(model, name)
    model.pool = POOLS[pool](size, model.classes, model.scores)
    model.head_name = "pool"
