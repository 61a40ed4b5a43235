"""Nets by name, for teachers and students alike.

A net is one file of this package: a subclass of :class:`logitstore.models.tagger.Tagger`, and at the top level a
literal

    NETS = {"my-net": ("MyNet", 1e-3)}  # name: (class, highest learning rate for a batch of 32)

which is all that makes it known; a net that is made of a trained one, and so by ``train-teacher`` alone, is named in
``TEACHERS`` in the same way. The arguments of the class are what ``--model-arg`` takes; it is called as
``MyNet(classes, scores=scores, **args)``, with ``name`` too where it has such a parameter. Other packages add nets by
entry points of the group ``logitstore.nets``, each the name of a net and its class; and ``python:MODULE:FACTORY`` is a
net that is called in the same way. Their learning rate is an attribute ``default_lr`` of the class or factory, where
there is one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from logitstore.digests import derived_seed
from logitstore.errors import RunError
from logitstore.plugins import PYTHON, calling, declared, offered, own_factory

if TYPE_CHECKING:
    from logitstore.models.tagger import Scores, Tagger

ENTRY_POINTS = "logitstore.nets"
#: The highest learning rate of a net that says none.
DEFAULT_LR = 1e-3
#: The argument of every net of this package that gives it another head.
POOL = "pool"
#: What a net has, as :class:`logitstore.models.tagger.Tagger` describes it.
_NEEDED = ("classes", "scores", "front_end", "head_name", "outputs", "frame_features", "contract")


def names(constant: str = "NETS") -> tuple[str, ...]:
    """Names that :func:`build` takes, beside ``python:MODULE:FACTORY``; torch is not imported.

    :param constant: "NETS" for those that can be anything, "TEACHERS" for those that only ``train-teacher`` makes.
    """
    if constant == "TEACHERS":
        return tuple(_declared(constant))
    return (*_declared(constant), *(name for name in offered(ENTRY_POINTS) if name not in _own()))


def is_own(name: str) -> bool:
    """Whether a net is one of this package, and neither an installed nor a named one of somebody else's."""
    return name in _own()


def default_lr(name: str) -> float:
    """The highest learning rate of a net for a batch of 32, unless another is asked for."""
    own = _own().get(name)
    return own[2] if own is not None else float(getattr(_factory(name), "default_lr", DEFAULT_LR))


def build(name: str, classes: int, *, scores: Scores = "sigmoid", **args: Any) -> Tagger:
    """A new model with random weights (of torch's global generator).

    :param name: one of :func:`names`, or ``python:MODULE:FACTORY``.
    :param classes: number of classes, at least 1.
    :param scores: how its logits become probabilities, "sigmoid" or "softmax".
    :param args: the net's own arguments, as in ``width=16``; and, of the nets of this package, ``pool``, a head of
        :mod:`logitstore.models.pooling` in the place of its own.
    :raises RunError: an unknown name or argument, a value that no model can have, or something that is no net.
    """
    factory = _factory(name)
    if classes < 1:
        raise RunError(f"a model of {classes} classes; it needs at least 1")
    own, headed = name in _own(), name in _declared("NETS")
    parameters = inspect.signature(factory).parameters
    pool = args.pop(POOL, None) if headed else None
    allowed = [key for key in parameters if key not in ("classes", "name", "scores")] + [POOL] * headed
    for key in args:
        if key not in allowed and not any(each.kind == each.VAR_KEYWORD for each in parameters.values()):
            raise RunError(f"model {name!r} has no argument {key!r}; allowed are {', '.join(allowed)}")
    if "name" in parameters and not name.startswith(PYTHON):
        args["name"] = name
    if own:
        model: Tagger = factory(classes, scores=scores, **args)
        if pool is not None:
            from logitstore.models.pooling import replace_head

            replace_head(model, pool)
        return model
    with calling(factory, whose=f"model {name!r}", error=RunError):
        model = factory(classes, scores=scores, **args)
    _check(model, name, classes, scores)
    return model


def initialised(build: Callable[[], Tagger], seed: int) -> Tagger:
    """A model whose random weights depend on the seed alone; torch's own generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        return build()


def _own() -> dict[str, tuple[str, str, float]]:
    """Name -> (module, class, learning rate) of the nets of this package."""
    return _declared("NETS") | _declared("TEACHERS")


def _declared(constant: str) -> dict[str, tuple[str, str, float]]:
    nets = declared("logitstore.models", constant)
    found = [(name, (module, *net)) for module, of_file in nets.items() for name, net in of_file.items()]
    return dict(sorted(found, key=lambda each: each[0].rstrip("0123456789").partition("-")[0]))  # families together


def _factory(name: str) -> Callable[..., Any]:
    """What makes the net of a name.

    :raises RunError: there is none.
    """
    if name.startswith(PYTHON):
        return own_factory(name, whose=f"model {name!r}", error=RunError)
    if name in _own():
        module, kind, _ = _own()[name]
        factory: Callable[..., Any] = getattr(importlib.import_module(module), kind)
    elif name in offered(ENTRY_POINTS):
        with calling(offered(ENTRY_POINTS)[name].load, whose=f"model {name!r}", error=RunError):
            factory = offered(ENTRY_POINTS)[name].load()
    else:
        raise RunError(f"no model {name!r}; allowed are {', '.join(names())}, {PYTHON}MODULE:FACTORY")
    return factory


def _check(model: object, name: str, classes: int, scores: str) -> None:
    """Refuse what a user's own factory gave where nothing here could use it."""
    import torch

    lacking = [each for each in _NEEDED if not hasattr(model, each)]
    if not isinstance(model, torch.nn.Module) or lacking:
        what = f"has no {', '.join(lacking)}" if isinstance(model, torch.nn.Module) else "is no torch.nn.Module"
        raise RunError(
            f"model {name!r} gave a {type(model).__name__}, which {what}; it must give a subclass of "
            "logitstore.models.tagger.Tagger, or what has all that such a one has"
        )
    found: Any = (model.classes, model.scores)
    if found != (classes, scores):
        raise RunError(
            f"model {name!r} gave one of {found[0]} classes and {found[1]} scores; asked for were {classes} "
            f"and {scores}: it must use the arguments classes and scores"
        )
