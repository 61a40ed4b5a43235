"""Run audio taggers once, keep what they said and exactly what they heard, distil any number of students.

``logitstore.build``, ``train_student`` and the others are the commands as functions (:mod:`logitstore.api`), with the
options of the commands as keywords. For code of your own, a store can be asked and learnt from:

    >>> store = logitstore.open_store("store")
    >>> isinstance(store, logitstore.Store)
    True
    >>> store.sql("SELECT count(*) AS n FROM clips").to_pydict()
    {'n': [12]}
    >>> dataset = logitstore.ReplayDataset("store", "audio")
    >>> len(dataset)
    12

A teacher says how probable each class is in waveforms, a student is a torch module that gives logits:

    >>> import torch
    >>> teacher = logitstore.load_teacher("runs/teacher")
    >>> tuple(teacher.probabilities(torch.zeros(1, teacher.sample_rate), None).shape) == (1, len(teacher.classes))
    True
    >>> student = logitstore.load_student("runs/student")
    >>> student(torch.zeros(1, 16000)).shape[0]
    1

Every mistake is a :class:`LogitstoreError`, in one line. Each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from logitstore.errors import (
    AudioError,
    CorruptStoreError,
    LogitstoreError,
    MemoryShortError,
    MismatchError,
    MissingExtraError,
    ModelOutputError,
    NotAStoreError,
    OutputError,
    QueryError,
    QueryLimitError,
    RecipeError,
    RunError,
    SourceError,
    StoreError,
    TeacherError,
    UsageError,
)

if TYPE_CHECKING:
    from logitstore.api import (
        build,
        compare,
        evaluate,
        export_student,
        extend,
        merge,
        plan,
        repair,
        report,
        tag,
        train_student,
        train_teacher,
        verify,
    )
    from logitstore.store.reader import Store, open_store
    from logitstore.training.runs import load_student
    from logitstore.views.mel import Centers, apply_masks
    from students.data import ReplayDataset
    from teachers.registry import load_teacher

__all__ = [
    "AudioError", "Centers", "CorruptStoreError", "LogitstoreError", "MemoryShortError", "MismatchError",
    "MissingExtraError", "ModelOutputError", "NotAStoreError", "OutputError", "QueryError", "QueryLimitError",
    "RecipeError", "ReplayDataset", "RunError", "SourceError", "Store", "StoreError",
    "TeacherError", "UsageError", "apply_masks", "build", "compare", "evaluate", "export_student", "extend",
    "load_student", "load_teacher", "merge", "open_store", "plan", "repair", "report", "tag", "train_student",
    "train_teacher", "verify",
]  # fmt: skip
__version__ = "0.1.0"

_PLACES = {
    "Centers": "logitstore.views.mel",
    "ReplayDataset": "students.data",
    "Store": "logitstore.store.reader",
    "apply_masks": "logitstore.views.mel",
    "load_student": "logitstore.training.runs",
    "load_teacher": "teachers.registry",
    "open_store": "logitstore.store.reader",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'logitstore' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES.get(name, "logitstore.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
