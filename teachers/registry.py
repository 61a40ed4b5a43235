"""Teachers by their spec.

=========================  ============================================================================================
spec                       teacher
=========================  ============================================================================================
``FOLDER``                 a run folder of train-teacher or train-student
``ced:FILE``               a published CED checkpoint; ``ced:FILE?heads=N`` where the number of heads cannot be inferred
``hf:ID_OR_PATH``          a transformers audio-classification model; ``?scores=sigmoid|softmax`` overrides its config
``onnx:FILE``              waveform -> scores, described by ``FILE.json``
``python:MODULE:FACTORY``  what ``FACTORY()`` of an importable module gives; the current folder is importable
=========================  ============================================================================================
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.errors import TeacherError

if TYPE_CHECKING:
    from teachers.teacher import Teacher

#: Prefix -> (module of its adapter, what follows the prefix).
_KINDS = {
    "ced": ("teachers.specs.ced", "FILE"),
    "hf": ("teachers.specs.hf", "ID_OR_PATH"),
    "onnx": ("teachers.specs.onnx", "FILE"),
    "python": ("teachers.specs.python", "MODULE:FACTORY"),
}


def load_teacher(spec: str) -> Teacher:
    """The teacher that a spec names, in eval mode, on the CPU.

    :raises TeacherError: an unknown spec, or a file that is not what the spec says.
    :raises RunError: a folder that is not a run.
    :raises MissingExtraError: an optional package that the spec needs is not installed.
    """
    prefix, colon, rest = spec.partition(":")
    kind = _KINDS.get(prefix)
    if colon and kind is not None:
        module, operand = kind
        if not rest:
            raise TeacherError(f"teacher {spec!r} names nothing; it is of the form {prefix}:{operand}")
        if rest.startswith("~"):  # a shell expands it only at the start of a word
            rest = str(Path(rest).expanduser())
        teacher: Teacher = importlib.import_module(module).load(spec, rest)
        return teacher
    path = Path(spec)
    if path.is_dir():
        from teachers.specs.run_folder import load

        return load(spec, spec)
    if path.is_file():
        raise TeacherError(f"teacher {spec!r} is a file; say what it is: ced:{spec} or onnx:{spec}")
    forms = ", ".join(f"{name}:{operand}" for name, (_, operand) in _KINDS.items())
    raise TeacherError(f"no teacher {spec!r}: no such run folder; allowed are a run folder, {forms}")


def split_options(spec: str, rest: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """What stands before ``?`` in a spec, and the ``key=value`` pairs (joined by ``&``) after it.

    :raises TeacherError: an option that this kind of teacher does not have.
    """
    name, mark, tail = rest.rpartition("?")
    if not mark or Path(rest).exists():
        return rest, {}
    options: dict[str, str] = {}
    for item in tail.split("&"):
        key, equals, value = item.partition("=")
        if not equals or key not in allowed:
            raise TeacherError(
                f"teacher {spec!r}: unknown option {item!r}; allowed are {', '.join(f'{key}=…' for key in allowed)}"
            )
        options[key] = value
    return name, options
