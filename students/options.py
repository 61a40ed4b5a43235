"""What trainings can be asked: the options that students and teachers share, those of students, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logitstore.errors import RunError
from students.data import CACHE_BYTES
from students.fit import FitOptions
from students.losses import TAILS
from students.objective import SIMILARITIES
from students.precision import PRECISIONS
from students.sampling import epoch_steps
from students.schedule import FLOOR, default_warm_up
from students.selection import MEASURES

#: Held out where --patience or --average-best need a loss to go by and --hold-out is not given.
DEFAULT_HOLD_OUT = 0.05
_MOST_LR = 1e30  # beyond any use; much above it float32 overflows within AdamW
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
        """The part of the options that :func:`students.fit.fit` takes; those that were None are resolved by now."""
        names = (
            "steps", "lr", "seed", "device", "warm_up", "floor", "precision", "accumulate", "clip_norm", "ema",
            "freeze_bn", "checkpoint_every",
        )  # fmt: skip
        return FitOptions(**{name: getattr(self, name) for name in names}, **more)


@dataclass(frozen=True, kw_only=True)
class StudentOptions(LoopOptions):
    """What ``train-student`` was asked; None means the default that the store or the model suggests.

    The stores ``also`` are read as one with ``store``; ``audio_root`` is one for all, or one for each in their order.
    """

    store: str
    audio_root: str | Sequence[str]
    student: str
    out: str
    also: Sequence[str] = ()
    model_args: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    new_head: bool = False
    where: str | None = None
    loss: str | None = None
    temperature: float = 1.0
    tail: str = "zero"
    inconsistent: bool = False
    similarity: str | None = None
    similarity_weight: float = 1.0
    label_weight: float = 0.0
    label_column: str | None = None
    mixup: float | None = None
    balance: bool = False
    weight_by: str | None = None
    hold_out: float | None = None
    patience: int | None = None
    average_best: int | None = None
    select_by: str = "loss"
    eval_manifest: str | None = None
    eval_audio_root: str | None = None
    eval_where: str | None = None

    @property
    def audio_roots(self) -> list[str]:
        """The audio roots, also where there is one."""
        return [self.audio_root] if isinstance(self.audio_root, str) else list(self.audio_root)


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


def check_student(options: StudentOptions) -> None:
    """Refuse what no student can be trained with, whatever its store holds.

    :raises RunError: naming the option.
    """
    check_loop(options)
    if options.tail not in TAILS:
        raise RunError(f"--tail is {options.tail!r}; allowed are {', '.join(TAILS)}")
    if options.select_by not in MEASURES:
        raise RunError(f"--select-by is {options.select_by!r}; allowed are {', '.join(MEASURES)}")
    require_at_least("patience", options.patience, 1)
    require_at_least("average_best", options.average_best, 1)
    if options.hold_out is not None and not 0 < options.hold_out < 1:
        raise RunError(f"--hold-out is {options.hold_out:g}; it is a share of the files, more than 0 and less than 1")
    if options.new_head and options.init is None:
        raise RunError("--new-head makes the head of a checkpoint anew, and there is no --init SPEC")
    if options.balance and options.weight_by is not None:
        raise RunError("--balance and --weight-by are both given; give one of them")
    if options.similarity is None and options.similarity_weight != 1:
        raise RunError(
            f"--similarity-weight {options.similarity_weight:g} is given without --similarity; say which: "
            f"{', '.join(SIMILARITIES)}"
        )
    if options.accumulate > 1 and options.similarity in ("sp", "both"):
        raise RunError(
            f"--accumulate {options.accumulate} with --similarity {options.similarity}: SP compares all clips of a "
            "batch with each other, so its parts are not the whole; leave --accumulate out, or use iusp"
        )
    if options.label_weight and options.label_column is None:
        raise RunError("--label-weight is given without --label-column; name the column of the store's clip table")
    _check_evaluation(options)


def _check_evaluation(options: StudentOptions) -> None:
    selecting = options.patience is not None or options.average_best is not None
    held_out = options.hold_out is not None or (selecting and options.select_by == "loss")
    if options.select_by == "mAP" and not selecting:
        raise RunError("--select-by mAP says what --patience and --average-best go by, and neither is given")
    if options.eval_manifest is None:
        if options.select_by == "mAP":
            raise RunError("--select-by mAP needs labelled audio; give --eval MANIFEST, or use --select-by loss")
        for name in ("eval_where", "eval_audio_root"):
            if getattr(options, name) is not None:
                raise RunError(f"{flag(name)} says how to evaluate, and there is no --eval MANIFEST")
        if options.eval_every is not None and not held_out:
            raise RunError("--eval-every says how often to evaluate, and there is no --eval MANIFEST and no --hold-out")
        if options.label_column is not None and not options.label_weight:
            raise RunError("--label-column is for --eval MANIFEST and --label-weight, and neither is given")
    elif options.eval_audio_root is None and len(options.audio_roots) > 1:
        raise RunError("--eval is given with several audio roots; say with --eval-audio-root which is its own")
    elif options.label_column is None:
        raise RunError("--eval is given without --label-column; name the manifest's column of labels")


def held_out_share(options: StudentOptions) -> float | None:
    """The share of files to hold out: as asked, or the default where the loss of held-out clips is needed."""
    selecting = options.patience is not None or options.average_best is not None
    needed = selecting and options.select_by == "loss"
    return DEFAULT_HOLD_OUT if options.hold_out is None and needed else options.hold_out


def require_at_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is given and too small."""
    if value is not None and value < least:
        raise RunError(f"{flag(name)} is {value}; it must be at least {least}")


def flag(name: str) -> str:
    """The option of the command for a field of its options."""
    return "--" + name.replace("_", "-")
