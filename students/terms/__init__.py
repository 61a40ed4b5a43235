"""The terms of a student's loss, one a file; what is minimised is their weighted sum (:mod:`students.objective`).

A file here is a term by the name of the file: it defines a subclass of :class:`Term`, and says at its top level

    TERM = ("MyTerm", "What it holds the student to, in a sentence.")

which is all that makes it known. Other packages add terms by entry points of the group ``logitstore.terms``, each the
name of a term and its class. ``--term NAME=W`` takes one into a training, ``--term NAME`` at its own weight;
``--similarity`` is short for ``iusp`` and ``sp`` at theirs, ``--label-weight`` for ``labels``, and ``target`` is there
unless it is given another weight.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logitstore.errors import RunError
from logitstore.plugins import calling, declared, offered

if TYPE_CHECKING:
    import torch

    from logitstore.arrays import F64
    from logitstore.training.batches import Batch

ENTRY_POINTS = "logitstore.terms"
TARGET = "target"
#: What ``--similarity`` is short for, each term at its own weight.
SIMILARITIES = {"iusp": ("iusp",), "sp": ("sp",), "both": ("iusp", "sp")}


@dataclass(frozen=True)
class Setting:
    """What a term may depend on, the same for a whole training.

    :param loss: "bce" or "kl", which fits the score kind; see :func:`students.targets.loss_for`.
    :param temperature: of "kl".
    :param frames: T, the frames that the store's teachers were pooled to; None of a store without relations.
    :param view_seconds: the length of a view. :param target_seconds: of a frame of the store's frame targets; None of a
        store without them.
    :param frame_centers: :meth:`logitstore.models.tagger.Tagger.frame_centers` of the student.
    """

    loss: str
    temperature: float = 1.0
    frames: int | None = None
    view_seconds: float | None = None
    target_seconds: float | None = None
    frame_centers: Callable[[int, float], F64] | None = None


@dataclass(frozen=True)
class Pass:
    """What a term is taken of: what the student said of a batch, and the batch, all on the student's device.

    :param logits: (B, C). :param frames: the student's frame features (B, Ts, D), or None where they were not kept.
    :param mix: float32 (B,), each clip's own share of the mix with clip B - 1 - i that the student heard; or None.
    :param gather: in one of several processes, for terms that compare the clips of a batch: from a tensor (b, …) of
        this process to that of all, (B, …), differentiable.
    :param frame_logits: the student's logits of every frame, (B, Ts, C), or None where no term needs them.
    """

    logits: torch.Tensor
    frames: torch.Tensor | None
    batch: Batch
    mix: torch.Tensor | None = None
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None
    frame_logits: torch.Tensor | None = None

    def given(self, name: str) -> torch.Tensor:
        """The student's ``frames`` or ``frame_logits``, or a tensor of the batch.

        :raises ValueError: it was made without.
        """
        value: torch.Tensor | None = getattr(self if name in ("frames", "frame_logits") else self.batch, name)
        if value is None:
            raise ValueError(f"the objective needs {name}, and the batch was made without them")
        return value

    def mixed(self, clip_loss: Callable[..., torch.Tensor], *targets: torch.Tensor) -> torch.Tensor:
        """Losses (B,) of clips against their targets, (B, …) each, or mixed with those against the batch reversed."""
        own = clip_loss(*targets)
        if self.mix is None:
            return own
        return self.mix * own + (1 - self.mix) * clip_loss(*(each.flip(0) for each in targets))


class Term(ABC):
    """One term of the loss.

    Class attributes say what it needs: ``relations`` of the store, "frames" (``batch.frame_grams``) or "clips"
    (``batch.clip_vectors``); ``labels`` (``batch.labels``, ``batch.labelled``); ``by_frame``, what is said of frames
    (``batch.frame_targets``, ``frame_logits``); ``mixes``, whether it can be taken of the mixes of ``--mixup``;
    ``whole_batch``, whether it compares a batch's clips, so that parts do not add up to it.
    ``weight`` is its weight unless another is asked for.
    """

    weight: ClassVar[float] = 1.0
    relations: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[bool] = False
    by_frame: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def __call__(self, said: Pass) -> torch.Tensor:
        """The term, a float32 scalar with gradients; a mean over the clips unless ``whole_batch``."""


def names() -> dict[str, str]:
    """The terms, each with what it holds the student to; torch is not imported."""
    own = {module.rpartition(".")[2]: about for module, (_, about) in declared(__name__, "TERM").items()}
    return own | {name: f"of {entry.value}" for name, entry in offered(ENTRY_POINTS).items() if name not in own}


def find(name: str) -> type[Term]:
    """The term of a name.

    :raises RunError: there is none.
    """
    own = declared(__name__, "TERM").get(f"{__name__}.{name}")
    if own is not None:
        kind: Any = getattr(importlib.import_module(f"{__name__}.{name}"), own[0])
    elif name in offered(ENTRY_POINTS):
        with calling(offered(ENTRY_POINTS)[name].load, whose=f"--term {name}", error=RunError):
            kind = offered(ENTRY_POINTS)[name].load()
    else:
        raise RunError(f"no term {name!r}; allowed are {', '.join(names())}")
    found: type[Term] = kind
    return found


def selected(terms: Sequence[str] = (), *, label_weight: float = 0.0) -> dict[str, float]:
    """The weight of every term of a training, in the order in which they are added.

    :param terms: as ``NAME=W``, or ``NAME`` for its own weight.
    :param label_weight: of ``labels``; 0 for none.
    :raises RunError: an unknown name, a weight that is no number of at least 0, or a term that is asked for twice.
    """
    _check_weight("--label-weight", label_weight)
    weights = {"labels": label_weight} if label_weight else {}
    asked: dict[str, float] = {}
    for text in terms:
        name, weight = _weight(text)
        if name in asked or name in weights:
            raise RunError(f"--term {text!r}: the term {name!r} has a weight already; give one for each")
        asked[name] = weight
    return {TARGET: asked.pop(TARGET, 1.0)} | weights | asked


def weighed(terms: Sequence[str]) -> list[str]:
    """Terms as ``NAME=W``, each with its weight and alike where they mean the same.

    :raises RunError: as :func:`selected`.
    """
    return [f"{name}={weight:.12g}" for name, weight in map(_weight, terms)]


def _weight(text: str) -> tuple[str, float]:
    """The name of a term, and the weight that is asked for."""
    name, equals, number = text.partition("=")
    if name not in names():
        raise RunError(f"--term {text!r}: no term {name!r}; allowed are {', '.join(names())}, as NAME or NAME=W")
    try:
        weight = float(number) if equals else find(name).weight
    except ValueError:
        raise RunError(f"--term {text!r}: the weight {number!r} is no number; give it as {name}=0.5") from None
    _check_weight(f"--term {text!r}: the weight", weight)
    return name, weight


def _check_weight(what: str, weight: float) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise RunError(f"{what} is {weight:g}; it must be a number of at least 0")
