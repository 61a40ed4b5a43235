"""The ops of a recipe, one file each: what an op draws, what it changes or hides, and how SQL shows it.

An op is known by being there: every module of this package is imported, and each subclass of :class:`Op` registers
itself by its name. Ops of other packages are found through the entry points of the group ``logitstore.ops``, each of
which names a module or a class; they are loaded when a recipe names an op that is not of this package.
"""

from __future__ import annotations

import importlib
import pkgutil

from logitstore.views.ops.base import (
    DB_UNIT,
    MEL_STEPS,
    OPS,
    TICKS_PER_SECOND,
    WEIGHT_UNIT,
    Clips,
    Columns,
    Op,
    Place,
    SpectrogramOp,
    SqlColumn,
    WaveformOp,
    Words,
    hz_to_mel,
    mel_step_hz,
    mel_to_hz,
)

__all__ = [
    "DB_UNIT",
    "MEL_STEPS",
    "OPS",
    "TICKS_PER_SECOND",
    "WEIGHT_UNIT",
    "Clips",
    "Columns",
    "Op",
    "Place",
    "SpectrogramOp",
    "SqlColumn",
    "WaveformOp",
    "Words",
    "find_op",
    "hz_to_mel",
    "mel_step_hz",
    "mel_to_hz",
]

#: The group of the entry points by which other packages add ops.
ENTRY_POINTS = "logitstore.ops"

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def find_op(name: str) -> type[Op] | None:
    """The op of a name, of this package or another; None where there is none, and :data:`OPS` then holds them all."""
    if name not in OPS:
        from importlib.metadata import entry_points

        for entry in entry_points(group=ENTRY_POINTS):
            entry.load()
    return OPS.get(name)
