"""Which output of a trained model stands for which class of another list, by name or through the AudioSet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def published_classes(path: Path, outputs: int, *, whose: str) -> tuple[str, ...]:
    """The classes of a published CED checkpoint's head: those of its sidecar, or AudioSet's display names.

    :raises TeacherError: another number of classes than of outputs.
    """
    from teachers.ced import classes_of

    return classes_of(whose, path, outputs)


def outputs_of(classes: Sequence[str], wanted: Sequence[str]) -> tuple[I64, list[str]]:
    """Where the wanted classes stand among ``classes``, int64, and the wanted ones that are not there, sorted."""
    from teachers.classes import ClassIndex

    found, missing = ClassIndex(classes).find_all(wanted)
    return np.array([found[name] for name in wanted if name in found], dtype=np.int64), missing
