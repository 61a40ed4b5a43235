"""Published CED checkpoints as teachers: the architecture is read from the shapes of the weights.

Nothing in such a file says how many attention heads a model has. A head is as wide as the largest power of two, at most
64, that divides the embedding; that is 3, 4, 6 and 12 heads for the published tiny, mini, small and base, and
``ced:FILE?heads=N`` says otherwise. Sixty-three time positions stand for 1,012 frames, as in every published model;
any other number for 16 frames each. A class token means pooling by it; without one, the mean of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from logitstore.errors import TeacherError
from logitstore.models.ced import PATCH, TARGET_FRAMES, Ced
from logitstore.models.published import HEAD, PublishedWeights, classes_of, read_checkpoint
from logitstore.models.torchfile import loaded
from logitstore.store.format.manifest import ARGUMENTS
from logitstore.training.runs import weights_digest
from teachers.registry import split_options
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("ced:FILE", "a published CED checkpoint; ced:FILE?heads=N where the number of heads cannot be inferred")
#: Its published models; see :mod:`teachers.registry`.
PUBLISHED = (
    ("CED-Tiny", 527, 16000, 0.481, "Apache-2.0", "https://github.com/RicherMans/CED"),
    ("CED-Mini", 527, 16000, 0.490, "Apache-2.0", "https://github.com/RicherMans/CED"),
    ("CED-Small", 527, 16000, 0.496, "Apache-2.0", "https://github.com/RicherMans/CED"),
    ("CED-Base", 527, 16000, 0.500, "Apache-2.0", "https://github.com/RicherMans/CED"),
)

_WIDEST_HEAD = 64
_NARROWEST_HEAD = 8


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``ced:FILE`` or ``ced:FILE?heads=N``.

    Classes are AudioSet's 527 display names, or those of a sidecar ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, not a CED checkpoint, or one of another architecture.
    """
    name, options = split_options(spec, rest, ("heads",))
    path = Path(name)
    whose = f"teacher {spec!r}"
    checkpoint = read_checkpoint(path, whose=whose, error=TeacherError)
    return ced_teacher(spec, checkpoint, options.get("heads"), lambda outputs: classes_of(whose, path, outputs))


def ced_teacher(
    spec: str, checkpoint: PublishedWeights, heads: str | None, classes: Callable[[int], tuple[str, ...]]
) -> TaggerTeacher:
    """The teacher of CED's weights.

    :param heads: of the attention, as text; None where they are to be inferred. :param classes: gives the names of so
        many outputs.
    :raises TeacherError: they have no head, or another architecture.
    """
    whose, state = f"teacher {spec!r}", checkpoint.tensors
    if HEAD not in state:
        raise TeacherError(f"{whose} is not a CED checkpoint: it has {len(state)} tensors and none is {HEAD!r}")
    outputs = len(state[HEAD])
    arguments: dict[str, Any] = {
        "dim": checkpoint.dim,
        "depth": checkpoint.depth,
        "heads": _heads(spec, checkpoint.dim, heads),
        "mlp": checkpoint.mlp,
        "pooling": "token" if "cls_token" in state else "mean",
        "frames": frames_of(checkpoint.positions),
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
    }
    model = loaded(lambda: Ced(outputs, **arguments), state, whose=whose, what="a CED checkpoint")
    teacher = TaggerTeacher(spec, "ced", model, classes(outputs), weights_digest(model.state_dict()))
    if arguments["heads"] != _heads(spec, checkpoint.dim, None, strict=False):
        teacher.restate(arguments={**teacher.contract.arguments, ARGUMENTS: {"heads": arguments["heads"]}})
    return teacher


def frames_of(positions: int) -> int:
    """The frames that so many time positions stand for."""
    return TARGET_FRAMES if positions == TARGET_FRAMES // PATCH else positions * PATCH


def _heads(spec: str, dim: int, given: str | None, *, strict: bool = True) -> int:
    """The number of heads; where it can be inferred from nothing, an error or, without ``strict``, 0."""
    if given is not None:
        if not given.isdecimal() or int(given) < 1 or dim % int(given):
            raise TeacherError(f"teacher {spec!r}: heads is {given!r}; it must be a whole number that divides {dim}")
        return int(given)
    width = min(dim & -dim, _WIDEST_HEAD)
    if width < _NARROWEST_HEAD and not strict:
        return 0
    if width < _NARROWEST_HEAD:
        raise TeacherError(f"teacher {spec!r}: an embedding of {dim} does not say how many heads; add ?heads=N")
    return dim // width
