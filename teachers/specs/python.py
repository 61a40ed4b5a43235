"""``python:MODULE:FACTORY``: any torch module that states its classes, sample rate and score kind."""

from __future__ import annotations

import inspect
from typing import Any, Self

import torch
import yaml

from logitstore.classes import check_classes
from logitstore.errors import TeacherError
from logitstore.models.sidecar import check_rate, check_scores
from logitstore.plugins import PYTHON, calling, own_factory
from logitstore.training.runs import weights_digest
from logitstore.views.recipe import Masks
from teachers.identity import python_identity
from teachers.teacher import Teacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = (
    "python:MODULE:FACTORY",
    "what FACTORY() of an importable module gives; the current folder is importable; ?NAME=VALUE&… for arguments",
)


class ModuleTeacher(Teacher):
    """A module of the user's: ``module(waveforms)`` or ``module(waveforms, masks=masks)`` gives probabilities.

    A module with a parameter ``masks`` is always handed masks: float64 tensors (B,) on the waveforms' device, with
    equal ends where there is none. A module with a method ``features(waveforms, masks)``, which gives (B, T, D), can
    teach the similarity losses; that is a call beside the module's own, so a module whose two share work keeps it.
    It is put into eval mode before every batch; what it keeps out of its children, it must see to itself.

    What it is known by is said by :mod:`teachers.identity`, or by the module itself in a text ``digest``.
    """

    own_code = True

    def __init__(self, spec: str) -> None:
        whose = f"teacher {spec!r}"
        place, arguments = _arguments(spec, whose)
        factory = own_factory(place, whose=whose, error=TeacherError)
        module_name, _, factory_name = place.removeprefix(PYTHON).partition(":")
        with calling(factory, whose=whose, error=TeacherError):
            module = factory(**arguments)
        if not isinstance(module, torch.nn.Module):
            raise TeacherError(
                f"teacher {spec!r}: {factory_name}() gave {type(module).__name__}; it must give a torch.nn.Module"
            )
        for attribute in ("classes", "sample_rate", "scores"):
            if not hasattr(module, attribute):
                raise TeacherError(
                    f"teacher {spec!r}: its module has no attribute {attribute!r}; it needs classes (names), "
                    "sample_rate (Hz) and scores ('sigmoid' or 'softmax')"
                )
        classes: Any = module.classes
        self.spec = spec
        self.name = spec
        self.module = module.eval()
        self.classes = check_classes(list(classes) if isinstance(classes, tuple) else classes, whose=whose)
        self.scores = check_scores(module.scores, whose=whose)
        self.sample_rate = check_rate(module.sample_rate, whose=whose)
        self.takes_masks = "masks" in inspect.signature(module.forward).parameters
        self.has_features = callable(getattr(module, "features", None))
        stated = _stated_digest(module, whose)
        if stated is not None:
            self.digest = stated
        else:
            self.digest, self.not_covered = python_identity(module, module_name, arguments)
        self.contract: dict[str, Any] = {"fill": "its own"} if self.takes_masks else {}

    def earlier_digests(self) -> tuple[str, ...]:
        return (weights_digest(self.module.state_dict()),)

    @torch.inference_mode()
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        self.module.eval()
        if self.takes_masks:
            output: torch.Tensor = self.module(waveforms, masks=_masks(waveforms, masks))
        else:
            output = self.module(waveforms)
        return output

    @torch.inference_mode()
    def features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        if not self.has_features:
            return super().features(waveforms, masks)
        method: Any = self.module.features
        frames: torch.Tensor = method(waveforms, _masks(waveforms, masks))
        return frames

    def to(self, device: str | torch.device) -> Self:
        self.module.to(device)
        return self


def load(spec: str, rest: str) -> ModuleTeacher:
    """The teacher of ``python:MODULE:FACTORY``, or of ``python:MODULE:FACTORY?NAME=VALUE&…``.

    :raises TeacherError: no such module or factory, one that fails, or a module without the three attributes.
    """
    return ModuleTeacher(spec)


def _masks(waveforms: torch.Tensor, masks: Masks | None) -> Masks:
    if masks is not None:
        return masks.to(waveforms.device)
    nothing = torch.zeros(len(waveforms), dtype=torch.float64, device=waveforms.device)
    return Masks(nothing, nothing, nothing, nothing)


def _arguments(spec: str, whose: str) -> tuple[str, dict[str, Any]]:
    """What stands before ``?`` in a spec, and the keywords after it; a value is read as YAML reads a plain one.

    :raises TeacherError: no ``NAME=VALUE``, a name twice, a value that is a list or a table.
    """
    place, mark, tail = spec.partition("?")
    arguments: dict[str, Any] = {}
    for item in tail.split("&") if mark else ():
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier() or name in arguments:
            raise TeacherError(f"{whose}: {item!r} is no argument; write ?NAME=VALUE&NAME=VALUE, each name once")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            value = text
        arguments[name] = value if isinstance(value, bool | int | float | str) else text
    return place, arguments


def _stated_digest(module: torch.nn.Module, whose: str) -> str | None:
    """The digest that a module states itself, in a text ``digest``; None where it states none.

    :raises TeacherError: it is no text of 1 to 128 visible characters.
    """
    stated = getattr(module, "digest", None)
    if stated is None or callable(stated):
        return None
    if not isinstance(stated, str) or not 1 <= len(stated) <= 128 or not stated.isprintable() or " " in stated:
        raise TeacherError(
            f"{whose}: its digest is {stated!r}; a text of 1 to 128 visible characters says which version it is, and "
            "without any the digest of its code and weights is taken"
        )
    return stated
