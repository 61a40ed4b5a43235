"""Presets of ``train-student --preset NAME``: published recipes of training, one family a file, as data.

A file here maps names to a :class:`Preset` in ``PRESETS``, which is all that makes them known. A preset is short for
values of options; every option that is given wins over it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from logitstore.errors import RunError
from logitstore.options import fields_of, nearest


@dataclass(frozen=True)
class Preset:
    """A recipe of training.

    :param values: of options, by field of :class:`students.options.StudentOptions`, the net as ``student`` among them.
    :param start: what its students start from, in words, where that is not random weights; and ``init``, how to get it.
    """

    values: Mapping[str, Any]
    start: str | None = None
    init: str = "--init SPEC"


def names() -> tuple[str, ...]:
    """The names of all presets."""
    return tuple(_all())


def find(name: str) -> Preset:
    """The preset of a name.

    :raises RunError: there is none.
    """
    if name not in _all():
        raise RunError(f"no preset {name!r}; {nearest(name, _all())}")
    return _all()[name]


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options with those that their preset is short for, where they are not given.

    :raises RunError: an unknown preset.
    """
    name = values.get("preset")
    if not isinstance(name, str):
        return dict(values)
    own = dict(find(name).values)
    if values.get("steps") is not None:  # which say the length in another way
        own.pop("epochs", None)
    return own | dict(values)


def replaced(options: Any) -> list[str]:
    """The values of a preset that the options have otherwise, as ``--batch-size 16 (there 128)``."""
    found = []
    shown = {each.name: each.shown for each in fields_of(type(options))}
    for name, value in find(options.preset).values.items():
        said = getattr(options, name)
        if name == "epochs" and options.steps is not None:
            found.append(f"--steps {options.steps} (there {value} epochs)")
        elif said != value:
            found.append(f"{shown[name]} {_shown(said)} (there {_shown(value)})")
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _all() -> dict[str, Preset]:
    found: dict[str, Preset] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").PRESETS
    return found
