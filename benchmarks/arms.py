"""The arms of the ablation and the five experiments that compare them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

VIEWS = (1, 2, 5, 10, 20)  # beside all of them
BATCH_MIXUP = 0.5  # A of Beta(A, A), as in the published configs


@dataclass(frozen=True)
class Arm:
    """What a student hears and learns.

    ``sound``    "stored": what the teachers heard; "fresh": draws of its own; "still": no roll, fresh masks
    ``store``    "masks": CED's masks; "strong": wider ones; "mixup": CED's masks after a mix of two clips
    ``target``   "stored"; "exact": float32, all classes; "still": what the teachers said of the clip as it is;
                 "labels"; "member": what the best member said, in the store's own 8 bits
    ``views``    how many of the stored views are used, one an epoch, over and over; None for all
    ``k``, ``bits``   exact targets coded as a store with these would hold them; None for a store's default
    ``mixup``    A of batch mixup, 0 for none
    ``terms``    of the loss beside the target, and their weights
    """

    sound: Literal["stored", "fresh", "still"] = "stored"
    store: Literal["masks", "strong", "mixup"] = "masks"
    target: Literal["stored", "exact", "still", "labels", "member"] = "stored"
    views: int | None = None
    k: int | None = None
    bits: int | None = None
    mixup: float = 0.0
    terms: tuple[tuple[str, float], ...] = ()


REFERENCE = "consistent"
ARMS = {
    REFERENCE: Arm(),
    "inconsistent": Arm(sound="fresh"),
    "inconsistent, no roll": Arm(sound="still"),
    "targets of the unaugmented clip": Arm(target="still"),
    "labels": Arm(target="labels"),
    "strong masks, consistent": Arm(store="strong"),
    "strong masks, inconsistent": Arm(store="strong", sound="fresh"),
    "exact targets": Arm(target="exact"),
    **{f"{bits} bits": Arm(target="exact", bits=bits) for bits in (4, 6)},
    "float16": Arm(target="exact", bits=16),
    **{f"K = {k}": Arm(target="exact", k=k) for k in (1, 3, 5)},
    **{f"V = {views}": Arm(views=views) for views in VIEWS},
    "stored mixup": Arm(store="mixup"),
    "batch mixup": Arm(mixup=BATCH_MIXUP),
    "best member": Arm(target="member"),
}


@dataclass(frozen=True)
class Experiment:
    """Rows (arm, the arm that it is compared with) for students of some widths.

    :param widths: "main" is the width that the data set asks for, the other students are named.
    :param called: what the reference arm, the store as it is, stands for here.
    """

    number: int
    title: str
    rows: tuple[tuple[str, str | None], ...]
    called: str = REFERENCE
    widths: tuple[int, ...] = ()  # none: the main width alone
    extra: tuple[tuple[str, str | None], ...] = ()  # for the main width alone

    def students(self, main: int) -> tuple[int, ...]:
        """Widths of its students, the main one first."""
        return (main, *(width for width in self.widths if width != main))

    def cells(self, main: int) -> Iterator[tuple[int, str, str | None]]:
        """(width, arm, the arm that it is compared with), row by row."""
        for width in self.students(main):
            for arm, against in (*self.rows, *(self.extra if width == main else ())):
                yield width, arm, against


def _against(reference: str, *arms: str) -> tuple[tuple[str, str | None], ...]:
    return ((reference, None), *((arm, reference) for arm in arms))


EXPERIMENTS = (
    Experiment(
        1,
        "consistency",
        _against(REFERENCE, "inconsistent", "inconsistent, no roll", "targets of the unaugmented clip", "labels"),
        widths=(8, 4),
        extra=_against("strong masks, consistent", "strong masks, inconsistent"),
    ),
    Experiment(
        2,
        "what the store keeps of a target",
        _against("exact targets", REFERENCE, "float16", "6 bits", "4 bits", "K = 5", "K = 3", "K = 1"),
        called="8 bits, default K: the store",
    ),
    Experiment(
        3,
        "number of views, at equal steps",
        _against(REFERENCE, *(f"V = {views}" for views in VIEWS[::-1])),
        called="all views",
    ),
    Experiment(4, "mixup", _against(REFERENCE, "stored mixup", "batch mixup"), called="no mixup"),
    Experiment(5, "one teacher", _against(REFERENCE, "best member"), called="ensemble"),
)
