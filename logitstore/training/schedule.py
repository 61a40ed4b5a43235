"""The learning rate of every step, and which weights decay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

WEIGHT_DECAY = 0.01
#: Learning rate at the last step, as a share of the highest.
FLOOR = 0.01
#: Warm-up takes this share of the steps, and no more steps than this.
WARM_UP_SHARE, MOST_WARM_UP = 0.1, 5000


def default_warm_up(steps: int) -> int:
    """Steps of warm-up: a tenth of all, at most 5,000."""
    return min(MOST_WARM_UP, math.ceil(WARM_UP_SHARE * steps))


def learning_rate(step: int, steps: int, highest: float, *, warm_up: int | None = None, floor: float = FLOOR) -> float:
    """Linear warm-up, then a cosine down to a floor.

    :param step: in [0, steps).
    :param warm_up: steps that it takes; the first tenth (at most 5,000 steps) by default.
    :param floor: the rate at the last step, as a share of the highest.
    """
    rising = default_warm_up(steps) if warm_up is None else warm_up
    if step < rising:
        return highest * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising - 1)
    return highest * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and other vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def ema_decay(highest: float, step: int) -> float:
    """Decay of averaged weights: (1 + step) / (10 + step), up to the highest.

    So the random weights of the start are soon forgotten: of a constant 0.999 over 600 steps they would be 55 %.

    :param step: in [0, steps).
    """
    return min(highest, (1 + step) / (10 + step))
