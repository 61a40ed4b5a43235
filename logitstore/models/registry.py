"""Models by name, for teachers and students alike; one file a family, imported when one of it is built."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from logitstore.errors import RunError

if TYPE_CHECKING:
    from logitstore.models.tagger import Scores, Tagger

#: Name -> (module, class).
_MODELS = {
    "cnn4": ("cnn4", "Cnn4"),
    "cnn6": ("panns", "Panns"),
    "cnn10": ("panns", "Panns"),
    "cnn14": ("panns", "Panns"),
    "mobile": ("mobile", "Mobile"),
    "ced-tiny": ("ced", "Ced"),
    "ced-mini": ("ced", "Ced"),
    "ced-small": ("ced", "Ced"),
    "ced-base": ("ced", "Ced"),
}


def names() -> tuple[str, ...]:
    """Names that :func:`build` takes."""
    return tuple(_MODELS)


def build(name: str, classes: int, *, scores: Scores = "sigmoid", **args: Any) -> Tagger:
    """A new model with random weights (of torch's global generator).

    :param name: one of :func:`names`.
    :param classes: number of classes, at least 1.
    :param scores: how its logits become probabilities, "sigmoid" or "softmax".
    :param args: the family's own arguments, as in ``width=16``.
    :raises RunError: an unknown name or argument, or a value that no model can have.
    """
    if name not in _MODELS:
        raise RunError(f"no model {name!r}; allowed are {', '.join(_MODELS)}")
    if classes < 1:
        raise RunError(f"a model of {classes} classes; it needs at least 1")
    module, kind_name = _MODELS[name]
    kind: Any = getattr(importlib.import_module(f"logitstore.models.{module}"), kind_name)
    parameters = inspect.signature(kind).parameters
    allowed = [key for key in parameters if key not in ("classes", "name", "scores")]
    for key in args:
        if key not in allowed:
            raise RunError(f"model {name!r} has no argument {key!r}; allowed are {', '.join(allowed)}")
    if "name" in parameters:
        args["name"] = name
    model: Tagger = kind(classes, scores=scores, **args)
    return model
