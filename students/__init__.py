"""Students: their loss, and the data and training that come from a store alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logitstore.training.runs import load_student
    from students.data import ReplayDataset

__all__ = ["ReplayDataset", "load_student"]

_PLACES = {"ReplayDataset": "students.data", "load_student": "logitstore.training.runs"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'students' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
