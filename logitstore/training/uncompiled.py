"""Optimizers that leave torch's compiler alone.

Some methods of every optimizer of torch ask its compiler not to compile them, and import it to do so: 1.4 s of each
process that trains, here where nothing is ever compiled.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch

_Kind = TypeVar("_Kind", bound=torch.optim.Optimizer)
_ASK = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def uncompiled(kind: type[_Kind]) -> type[_Kind]:
    """The same optimizer, number for number, without importing the compiler."""
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in _ASK}
    plain["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain)
