"""The learning rate of every step, and which weights decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Defaults:
    """What a training takes where nothing else is asked for.

    :param weight_decay: of AdamW. :param floor: the learning rate at the end of the cosine, as a share of the highest.
    :param warm_up: the share of the steps that the warm-up takes, at most :data:`MOST_WARM_UP` steps.
    :param spared: whether weights that a net names do not decay; see :func:`parameter_groups`.
    """

    weight_decay: float = 0.01
    floor: float = 0.01
    warm_up: float = 0.1
    spared: bool = True


#: Those of every release that had others, the newest last. A run folder names by number those that it was begun with
#: (the first where it names none), so that it goes on with them: what stands here is never changed, only added to.
DEFAULTS = (Defaults(spared=False), Defaults())
WEIGHT_DECAY, FLOOR, WARM_UP_SHARE = DEFAULTS[-1].weight_decay, DEFAULTS[-1].floor, DEFAULTS[-1].warm_up
MOST_WARM_UP = 5000
#: Highest learning rates that nets had of their own in earlier releases. A run that was begun with one goes on with it.
EARLIER_RATES = {"crnn": (1e-3,), "densenet-tiny": (5e-3,)}


def default_warm_up(steps: int, share: float = WARM_UP_SHARE) -> int:
    """Steps of warm-up: a share of all, at most :data:`MOST_WARM_UP`."""
    return min(MOST_WARM_UP, math.ceil(share * steps))


def learning_rate(
    step: int,
    steps: int,
    highest: float,
    *,
    warm_up: int | None = None,
    floor: float = FLOOR,
    cosine: str = "rest",
) -> float:
    """Linear warm-up, then a cosine down to a floor.

    :param step: in [0, steps).
    :param warm_up: steps that it takes; the first tenth (at most 5,000 steps) by default.
    :param floor: the rate at the end of the cosine, as a share of the highest.
    :param cosine: "rest": it takes the steps after the warm-up, so that the last step is at the floor. "all": it takes
        as many steps as there are in all, so that the warm-up cuts its end off and the last step is a little above the
        floor, as in CED's code: of a warm-up of 1/30 and a floor of 0.1, at 0.1025.
    """
    rising = default_warm_up(steps) if warm_up is None else warm_up
    if step < rising:
        return highest * (step + 1) / rising
    done = (step - rising) / (steps if cosine == "all" else max(1, steps - rising - 1))
    return highest * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def parameter_groups(
    model: nn.Module, weight_decay: float = WEIGHT_DECAY, *, spared: bool = True
) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms, other vectors, and what the model spares.

    :param spared: whether the parameters that ``model.no_weight_decay`` names, as position embeddings, do without.
    """
    names = set(getattr(model, "no_weight_decay", ())) if spared else set()
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in parameters if parameter.ndim > 1 and name not in names]
    others = [parameter for name, parameter in parameters if parameter.ndim <= 1 or name in names]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def ema_decay(highest: float, step: int) -> float:
    """Decay of averaged weights: (1 + step) / (10 + step), up to the highest.

    So the random weights of the start are soon forgotten: of a constant 0.999 over 600 steps they would be 55 %.

    :param step: in [0, steps).
    """
    return min(highest, (1 + step) / (10 + step))
