"""What every training can be asked, whatever it learns from, and the checks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from logitstore.errors import RunError
from logitstore.training.loop import FitOptions
from logitstore.training.precision import PRECISIONS
from logitstore.training.sampling import epoch_steps
from logitstore.training.schedule import FLOOR, default_warm_up

_MOST_LR = 1e30  # beyond any use; much above it float32 overflows within AdamW


#: Decoded clips that are kept in memory by default, in bytes.
CACHE_BYTES = 1 << 30
#: Options that change nothing in what is learned.
INDIFFERENT = ("workers", "cache_bytes", "checkpoint_every", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How a training goes, whatever it learns from; None means the default that data or model suggest."""

    epochs: int | None = None
    steps: int | None = None
    epoch_steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    lr: float | None = None
    warm_up: int | None = None
    floor: float = FLOOR
    precision: str = "float32"
    clip_norm: float | None = None
    ema: float | None = None
    freeze_bn: bool = False
    eval_every: int | None = None
    checkpoint_every: int | None = None
    tensorboard: bool = False
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    cache_bytes: int = CACHE_BYTES

    def fitting(self, **more: Any) -> FitOptions:
        """The part of the options that the loop takes; those that were None are resolved by now."""
        names = (
            "steps", "lr", "seed", "device", "warm_up", "floor", "precision", "accumulate", "clip_norm", "ema",
            "freeze_bn", "checkpoint_every",
        )  # fmt: skip
        return FitOptions(**{name: getattr(self, name) for name in names}, **more)


def steps_of(views: int, options: LoopOptions) -> int:
    """Number of steps of an epoch over so many views."""
    return options.epoch_steps or epoch_steps(views, options.batch_size)


def warm_up_of(options: LoopOptions, steps: int) -> int:
    """Steps of warm-up of a training of so many steps.

    :raises RunError: they are more, so that the highest rate would never be reached.
    """
    if options.warm_up is None:
        return default_warm_up(steps)
    if options.warm_up > steps:
        raise RunError(f"--warm-up is {options.warm_up} steps and the training has {steps}; give at most as many")
    return options.warm_up


def check_loop(options: LoopOptions) -> None:
    """Refuse numbers that no training can use.

    :raises RunError: naming the option.
    """
    counts = (
        "batch_size", "epochs", "steps", "epoch_steps", "accumulate", "eval_every", "checkpoint_every", "workers",
    )  # fmt: skip
    for name in counts:
        require_at_least(name, getattr(options, name), 1)
    require_at_least("warm_up", options.warm_up, 0)
    if options.cache_bytes < 0:
        raise RunError(f"--cache-mib is {options.cache_bytes >> 20}; it must be at least 0")
    for name, most in (("lr", _MOST_LR), ("clip_norm", math.inf)):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and 0 < value <= most):
            allowed = "more than 0" if most == math.inf else f"more than 0, and at most {most:g}"
            raise RunError(f"{flag(name)} is {value:g}; it must be {allowed}")
    if not 0 <= options.floor <= 1:
        raise RunError(f"--floor is {options.floor:g}; it is a share of the highest learning rate, 0 to 1")
    if options.ema is not None and not 0 < options.ema < 1:
        raise RunError(f"--ema is {options.ema:g}; a decay lies between 0 and 1, as 0.999")
    if not 0 <= options.seed < 1 << 63:
        raise RunError(f"--seed is {options.seed}; allowed are 0 to 2**63 - 1")
    if options.precision not in PRECISIONS:
        raise RunError(f"--precision is {options.precision!r}; allowed are {', '.join(PRECISIONS)}")
    if options.epochs is not None and options.steps is not None:
        raise RunError("--epochs and --steps are both given; give one of them")
    if options.accumulate > options.batch_size:
        raise RunError(
            f"--accumulate {options.accumulate} asks for more parts than --batch-size {options.batch_size} has clips"
        )


def check_processes(clips: int, processes: int) -> None:
    """Refuse batches that are too small for each process to get a clip of everyone.

    :param clips: of the smallest batch.
    :raises RunError: they are.
    """
    if processes > 1 and clips < 2 * processes - 1:
        raise RunError(
            f"{processes} processes share each batch, and the smallest has {clips} clips; give a --batch-size of which "
            f"every batch has at least {2 * processes - 1}, or start fewer processes"
        )


def require_at_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is given and too small."""
    if value is not None and value < least:
        raise RunError(f"{flag(name)} is {value}; it must be at least {least}")


def flag(name: str) -> str:
    """The option of the command for a field of its options."""
    return "--" + name.replace("_", "-")
