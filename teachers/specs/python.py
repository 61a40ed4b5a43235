"""``python:MODULE:FACTORY``: any torch module that states its classes, sample rate and score kind."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, Self

import torch
import yaml

from logitstore.arrays import F64
from logitstore.classes import check_classes
from logitstore.errors import TeacherError
from logitstore.models.sidecar import check_rate, check_scores, check_seconds
from logitstore.plugins import PYTHON, calling, own_factory
from logitstore.store.format.frames import even_centers
from logitstore.training.runs import weights_digest
from logitstore.views.recipe import Masks
from teachers.contract import POOLINGS, Contract, Window
from teachers.frames import Answer, answered
from teachers.identity import python_identity
from teachers.teacher import Teacher
from teachers.windows import in_windows, pool

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
    A module of one length only says so by ``window_seconds`` (and ``hop_seconds``, the same unless said): a view is
    then heard window by window, the last one filled up with zeros, and answers are pooled as ``pooling`` says ("mean"
    unless said, or "max"). One that answers frame by frame, (B, T, C), says ``pooling`` too. ``max_seconds`` is the
    longest view that it hears whole, ``clip_seconds`` what it learnt from; these, and texts ``licence`` and ``origin``,
    are kept in the manifest.

    A module says when, which frame targets need, where it answers frame by frame or window by window, or has a method
    ``frame_probabilities(waveforms, masks)``, which gives (B, T, C) of a view, or of each of its windows, and is a call
    beside the module's own. Frames share a view (or its window) evenly, unless a method ``frame_centers(frames)`` gives
    the seconds of their centres, (T,).

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
        self.module = module.eval()
        stated = _stated_digest(module, whose)
        digest, not_covered = (stated, ()) if stated is not None else python_identity(module, module_name, arguments)
        further = _further(module, whose)
        takes_masks = "masks" in inspect.signature(module.forward).parameters
        self.contract = Contract(
            name=spec,
            classes=check_classes(list(classes) if isinstance(classes, tuple) else classes, whose=whose),
            scores=check_scores(module.scores, whose=whose),
            sample_rate=check_rate(module.sample_rate, whose=whose),
            digest=digest,
            takes_masks=takes_masks,
            fill="its own" if takes_masks else None,
            has_features=callable(getattr(module, "features", None)),
            not_covered=not_covered,
            has_frames=callable(getattr(module, "frame_probabilities", None))
            or further.get("window") is not None
            or further["pooling"] is not None,
            **further,
        )

    def earlier_digests(self) -> tuple[str, ...]:
        return (weights_digest(self.module.state_dict()),)

    @torch.inference_mode()
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        self.module.eval()
        window = self.contract.window
        if window is None:
            return self._said(waveforms, masks)
        return in_windows(waveforms, masks, window, self.sample_rate, self._said)

    @torch.inference_mode()
    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        window = self.contract.window
        if not frames or not self.has_frames:
            return super().answers(waveforms, masks, features=features, frames=frames)
        activations = self.features(waveforms.clone(), None if masks is None else masks.copy()) if features else None
        if callable(getattr(self.module, "frame_probabilities", None)):
            said = self.probabilities(waveforms.clone(), None if masks is None else masks.copy())
            beside = answered(waveforms, masks, window, None, self.sample_rate, self._frames, self._centers)
            return Answer(said, activations, beside.frames)
        self.module.eval()
        pooling = self.contract.pooling
        answer = answered(waveforms, masks, window, pooling, self.sample_rate, self._by_frame, self._centers)
        return replace(answer, features=activations)

    def _frames(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        method: Any = self.module.frame_probabilities
        by_frame: torch.Tensor = method(waveforms, _masks(waveforms, masks))
        return by_frame

    def _centers(self, count: int, seconds: float) -> F64:
        method: Any = getattr(self.module, "frame_centers", None)
        if not callable(method):
            return even_centers(count, seconds)
        centers: F64 = torch.as_tensor(method(count), dtype=torch.float64).cpu().numpy()
        return centers

    def _said(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        output = self._by_frame(waveforms, masks)
        pooling = self.contract.pooling
        return output if pooling is None or output.ndim != 3 else pool(output, pooling)

    def _by_frame(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """(B, C), or (B, T, C) of a module that answers frame by frame."""
        if self.takes_masks:
            output: torch.Tensor = self.module(waveforms, masks=_masks(waveforms, masks))
        else:
            output = self.module(waveforms)
        return output

    @torch.inference_mode()
    def features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        if not self.has_features:
            return super().features(waveforms, masks)
        window = self.contract.window
        if window is None:
            return self._features(waveforms, masks)
        return in_windows(waveforms, masks, window, self.sample_rate, self._features)

    def _features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
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


def _further(module: torch.nn.Module, whose: str) -> dict[str, Any]:
    """What a module may say of itself, under the names of :class:`teachers.contract.Contract`.

    :raises TeacherError: something that no model can have.
    """
    said: dict[str, Any] = {}
    seconds = {}
    for name in ("window_seconds", "hop_seconds", "clip_seconds", "max_seconds"):
        seconds[name] = check_seconds(getattr(module, name, None), whose=whose, name=name)
    pooling = getattr(module, "pooling", None)
    if isinstance(pooling, str | None) and pooling not in (None, *POOLINGS):
        raise TeacherError(f"{whose}: pooling is {pooling!r}; allowed are {', '.join(map(repr, POOLINGS))}")
    pooling = pooling if isinstance(pooling, str) else None  # a submodule may have that name
    if seconds["window_seconds"] is not None:
        rate = check_rate(module.sample_rate, whose=whose)
        samples = max(1, round(seconds["window_seconds"] * rate))
        hop = max(1, round((seconds["hop_seconds"] or seconds["window_seconds"]) * rate))
        said["window"] = Window(samples=samples, hop=hop, pooling=pooling or "mean")
    elif seconds["hop_seconds"] is not None:
        raise TeacherError(f"{whose}: it has hop_seconds and no window_seconds; say both, or neither")
    for name in ("licence", "origin"):
        value = getattr(module, name, None)
        if isinstance(value, str):
            said[name] = value
    return said | {
        "pooling": pooling,
        "trained_seconds": seconds["clip_seconds"],
        "max_seconds": seconds["max_seconds"],
    }


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
