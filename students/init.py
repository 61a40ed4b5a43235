"""Where a student starts from: a published CED checkpoint or a finished run, and what of it was taken.

Tensors are taken by name and shape. Three things may differ. A model with more or fewer time positions gets the first
ones of the checkpoint, or linear interpolations between them (as CED's own code does); a head whose classes stand in
another order gets its rows by name; and with ``--new-head`` the head keeps the random weights of a new model.
Everything else that differs is an error, so that a student never starts from less than was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from logitstore.classes import outputs_of
from logitstore.errors import RunError
from logitstore.models.ced import Ced
from logitstore.models.published import HEAD, classes_of, read_checkpoint
from logitstore.models.tagger import Tagger
from logitstore.training.runs import load_run, weights_digest

_CED = "ced:"
_POSITIONS = "time_pos_embed"
#: What a checkpoint of CED may lack: pretraining has no use for them, or a student pools otherwise.
_MAY_LACK = ("norm.", "init_bn.", "cls_token", "token_pos_embed")
_COUNTER = "num_batches_tracked"
_SHOWN = 3


@dataclass(frozen=True)
class InitReport:
    """What a student took from a checkpoint; counts are of tensors by the first part of their names.

    :param source: the spec. :param digest: BLAKE2b-128, hex, of the tensors of the checkpoint.
    :param loaded: taken as they are. :param adapted: taken otherwise, and how.
    :param made_anew: tensors of the student that keep their random weights.
    :param left_out: tensors of the file that the student has no place for.
    """

    source: str
    digest: str
    loaded: dict[str, int] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    made_anew: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """Short lines for a terminal."""
        lines = [f"loaded {_said(self.loaded)} from {self.source}"]
        lines += [f"adapted {name}: {how}" for name, how in self.adapted.items()]
        lines += [f"made anew {_said(self.made_anew)}"] if self.made_anew else []
        lines += [f"left out of the file {_said(self.left_out)}"] if self.left_out else []
        return tuple(lines)


@dataclass(frozen=True)
class _Source:
    """The tensors of a checkpoint; the classes of its head, None where it has no head; other names in the file."""

    spec: str
    tensors: Mapping[str, torch.Tensor]
    classes: tuple[str, ...] | None
    others: tuple[str, ...]
    may_lack: tuple[str, ...]


def load_init(model: Tagger, spec: str, new_head: bool, classes: tuple[str, ...]) -> InitReport:
    """Start a student from a checkpoint; its weights change in place, or not at all where an error is raised.

    :param model: newly made, with random weights. :param spec: ``ced:FILE`` or a run folder.
    :param new_head: leave the head as it is, whatever the checkpoint's. :param classes: the student's, in order.
    :raises RunError: no such file or run, one of another student or of other classes; the difference is named.
    :raises TeacherError: a sidecar that does not fit its file.
    """
    source = _published(model, spec, new_head) if spec.startswith(_CED) else _of_run(model, spec, new_head)
    own = model.state_dict()
    head = {name for name in own if name.startswith(f"{model.head_name}.")}
    wanted = [name for name in own if not (new_head and name in head)]
    adapted: dict[str, str] = {}
    rows = None if new_head else _head_rows(source, model, classes)
    taken: dict[str, torch.Tensor] = {}
    for name in wanted:
        tensor = source.tensors.get(name)
        if tensor is None:
            continue
        if name == _POSITIONS and tensor.ndim == own[name].ndim:
            tensor = _positions(tensor, own[name].shape[3], adapted)
        elif rows is not None and name.startswith(_linear_of_head(model)) and len(tensor) == len(rows):
            tensor = tensor[rows]
            adapted[model.head_name] = "rows put in the order of the student's classes, by name"
        taken[name] = tensor
    _check_shapes(source, own, taken)
    lacking = [name for name in wanted if name not in taken]
    _check_lacking(source, [name for name in lacking if not _expendable(name, source.may_lack)])
    for name, tensor in taken.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RunError(f"--init {spec!r}: the tensor {name!r} holds NaN or infinity; the checkpoint is damaged")
    model.load_state_dict(own | taken)
    left = [name for name in source.tensors if name not in taken]
    return InitReport(
        source=spec,
        digest=weights_digest(source.tensors),
        loaded=_groups(name for name in taken if _group(name) not in adapted),
        adapted=adapted,
        made_anew=_groups(name for name in own if name not in taken),
        left_out=_groups([*left, *source.others]),
    )


def _published(model: Tagger, spec: str, new_head: bool) -> _Source:
    path = Path(spec.removeprefix(_CED))
    whose = f"--init {spec!r}"
    checkpoint = read_checkpoint(path, whose=whose, error=RunError)
    if not isinstance(model, Ced):
        raise RunError(
            f"{whose} is a CED checkpoint and the student is a {_kind(model)}; choose a student ced-tiny, -mini, "
            "-small or -base"
        )
    own = {"dim": model.time_pos_embed.shape[1], "depth": len(model.blocks), "mlp": len(_first_mlp(model))}
    found = {"dim": checkpoint.dim, "depth": checkpoint.depth, "mlp": checkpoint.mlp}
    differing = [f"{name} {found[name]} there and {own[name]} here" for name in own if found[name] != own[name]]
    if differing:
        raise RunError(
            f"{whose} is of another size than the student: {', '.join(differing)}; choose the --student of its size, "
            "or give it with --model-arg"
        )
    outputs = len(checkpoint.tensors[HEAD]) if HEAD in checkpoint.tensors else None
    classes = None if outputs is None or new_head else classes_of(whose, path, outputs)
    return _Source(spec, checkpoint.tensors, classes, checkpoint.others, _MAY_LACK)


def _of_run(model: Tagger, spec: str, new_head: bool) -> _Source:
    run = load_run(spec)
    differing = _difference(run.model, model)
    if run.scores != model.scores and not new_head:
        differing.append(f"scores {run.scores} there and {model.scores} here (--new-head makes the head anew)")
    if differing:
        raise RunError(f"--init {spec!r} is a run of another student: {_some(differing)}; choose the same --student")
    return _Source(spec, run.model.state_dict(), run.classes, (), ())


def _difference(there: Tagger, here: Tagger) -> list[str]:
    """What tells two models apart, but for their heads and their numbers of time positions."""
    if type(there) is not type(here):
        return [f"a {_kind(there)} there and a {_kind(here)} here"]
    old, new = there.front_end.to_dict(), here.front_end.to_dict()
    found = [f"{name} {old[name]} there and {new[name]} here" for name in old if old[name] != new[name]]
    known = there.contract(), here.contract()
    found += [
        f"{name} {known[0][name]} there and {known[1][name]} here"
        for name in known[0]
        if name not in ("front_end", "frames") and known[0][name] != known[1][name]
    ]
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
         if not name.startswith(f"{here.head_name}.") and name != _POSITIONS}
        for model in (there, here)
    ]  # fmt: skip
    tensors = [name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name)]
    if tensors:
        first = tensors[0]
        old_shape, new_shape = (each.get(first, "absent") for each in shapes)
        found.append(f"{len(tensors)} tensors, the first {first!r} is {old_shape} there and {new_shape} here")
    return found


def _head_rows(source: _Source, model: Tagger, classes: tuple[str, ...]) -> torch.Tensor | None:
    """The rows of the checkpoint's head in the order of the student's classes; None where they are in it already."""
    remedy = "give --new-head to start with a new head"
    if source.classes is None:
        raise RunError(f"--init {source.spec!r} has no head for the student's {model.classes} classes; {remedy}")
    rows, missing = outputs_of(source.classes, classes)
    if missing or len(source.classes) != len(classes):
        detail = f"; {len(missing)} of the student's are not among them: {_some(missing)}" if missing else ""
        raise RunError(
            f"--init {source.spec!r} has a head for {len(source.classes)} classes ({_some(source.classes)}) and the "
            f"student has {len(classes)} ({_some(classes)}){detail}; {remedy}"
        )
    order = torch.from_numpy(rows)
    head = model.get_submodule(model.head_name)
    if not (torch.equal(order, torch.arange(len(classes))) or getattr(head, "one_layer", True)):
        raise RunError(
            f"--init {source.spec!r} has the student's classes in another order, and more than one layer of such a "
            f"head knows it; {remedy}"
        )
    return None if torch.equal(order, torch.arange(len(classes))) else order


def _positions(tensor: torch.Tensor, wanted: int, adapted: dict[str, str]) -> torch.Tensor:
    """Time positions (1, D, 1, N) as (1, D, 1, wanted): the first ones, or interpolated linearly."""
    found = tensor.shape[3]
    if wanted < found:
        adapted[_POSITIONS] = f"{found} positions cut to the first {wanted}"
        return tensor[..., :wanted].clone()
    if wanted > found:
        adapted[_POSITIONS] = f"{found} positions interpolated linearly to {wanted}"
        return F.interpolate(tensor[:, :, 0], size=wanted, mode="linear", align_corners=False)[:, :, None]
    return tensor


def _check_shapes(source: _Source, own: Mapping[str, torch.Tensor], taken: Mapping[str, torch.Tensor]) -> None:
    wrong = [name for name, tensor in taken.items() if tensor.shape != own[name].shape]
    if wrong:
        shapes = f"{tuple(taken[wrong[0]].shape)} there and {tuple(own[wrong[0]].shape)} here"
        raise RunError(
            f"--init {source.spec!r} is of another student: {len(wrong)} tensors have other shapes, the first "
            f"{wrong[0]!r} is {shapes}"
        )


def _check_lacking(source: _Source, names: list[str]) -> None:
    if names:
        raise RunError(
            f"--init {source.spec!r} lacks {len(names)} tensors of the student ({_some(names)}); it is cut short or of "
            "another student"
        )


def _expendable(name: str, may_lack: tuple[str, ...]) -> bool:
    return bool(may_lack) and (name.startswith(may_lack) or name.endswith(_COUNTER))


def _linear_of_head(model: Tagger) -> str:
    """The beginning of the names of the head's last linear layer."""
    head = model.get_submodule(model.head_name)
    inner = [name for name, module in head.named_modules() if isinstance(module, nn.Linear)][-1]
    return f"{model.head_name}.{inner}." if inner else f"{model.head_name}."


def _first_mlp(model: Ced) -> torch.Tensor:
    weight = model.blocks[0].get_submodule("mlp.fc1").weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"the weights of an mlp are {type(weight).__name__}")
    return weight


def _kind(model: Tagger) -> str:
    return type(model).__name__.lower()


def _group(name: str) -> str:
    return name.split(".")[0]


def _groups(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(map(_group, names)).items()))


def _said(groups: Mapping[str, int]) -> str:
    count = sum(groups.values())
    named = ", ".join(f"{name} {number}" for name, number in groups.items())
    return f"{count} tensor{'' if count == 1 else 's'} ({named})"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
