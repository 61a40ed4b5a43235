"""What trainings can be asked: the options that students and teachers share, those of students, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logitstore.errors import RunError
from logitstore.training.options import LoopOptions, check_loop, flag, require_at_least
from logitstore.training.selection import MEASURES
from students.targets import TAILS
from students.terms import SIMILARITIES, selected

#: Held out where --patience or --average-best need a loss to go by and --hold-out is not given.
DEFAULT_HOLD_OUT = 0.05


@dataclass(frozen=True, kw_only=True)
class StudentOptions(LoopOptions):
    """What ``train-student`` was asked; None means the default that the store or the model suggests.

    The stores ``also`` are read as one with ``store``; ``audio_root`` is one for all, or one for each in their order.
    ``terms`` are further ones of the loss, as ``NAME=W``.
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
    terms: Sequence[str] = ()
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

    @property
    def weights(self) -> dict[str, float]:
        """The terms of the loss and their weights; see :func:`students.terms.selected`."""
        return selected(
            self.terms,
            similarity=self.similarity,
            similarity_weight=self.similarity_weight,
            label_weight=self.label_weight,
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
    if "labels" in options.weights and options.label_column is None:
        asked = "--label-weight" if options.label_weight else "--term labels"
        raise RunError(f"{asked} is given without --label-column; name the column of the store's clip table")
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
        if options.label_column is not None and "labels" not in options.weights:
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
