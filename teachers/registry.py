"""Teachers by their spec: a run folder, or ``KIND:…``.

A kind is one file of :mod:`teachers.specs`. At its top level it says in a literal how its specs look and what they
name,

    SPEC = ("ced:FILE", "a published CED checkpoint; …")

and in another, where somebody has published such models, which: name, classes, rate, mAP, licence, where to get it,

    PUBLISHED = (("CED-Base", 527, 16000, 0.500, "Apache-2.0", "https://…"),)

where it needs an extra, that and the module by which it is known to be there,

    EXTRA = ("hf", "transformers")

and it has a function ``load(spec, rest)``, which is given the spec and what follows the colon; nothing else makes it
known. :func:`forms` lists them all. Other packages add kinds by entry points of the group ``logitstore.teachers``, each
the prefix of a kind and its ``load``.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.errors import TeacherError
from logitstore.options import nearest
from logitstore.plugins import calling, declared, offered
from logitstore.training.runs import named_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from teachers.teacher import Teacher

ENTRY_POINTS = "logitstore.teachers"
_CHECKPOINTS = ("ced", "panns", "efficientat", "passt", "beats")
_BY_SUFFIX = {
    ".onnx": ("onnx",), ".tflite": ("tflite", "birdnet"), ".h5": ("yamnet",), ".whl": ("yamnet",),
    ".pt": _CHECKPOINTS, ".pth": _CHECKPOINTS,
}  # fmt: skip


def forms() -> dict[str, str]:
    """How a spec can look, each with what it names; no teacher is imported."""
    return {kind.form: kind.help for kind in kinds()}


@dataclass(frozen=True)
class Kind:
    """A kind of teachers: ``form`` of its specs, ``help`` on what it opens, the models that are ``published``, and the
    ``extra`` that it needs, or None; ``ready``: whether that is installed."""

    form: str
    help: str
    published: tuple[Published, ...] = ()
    extra: str | None = None
    ready: bool = True


@dataclass(frozen=True)
class Published:
    """A model that somebody published: ``classes`` and ``sample_rate`` (Hz), ``map`` on AudioSet as published,
    0 to 1 (None where there is none), ``licence``, and ``origin``, where to get it."""

    name: str
    classes: int | None
    sample_rate: int
    map: float | None
    licence: str
    origin: str


def kinds() -> list[Kind]:
    """Every kind, those of this project first; no teacher is imported."""
    specs = declared("teachers.specs", "SPEC")
    published = declared("teachers.specs", "PUBLISHED")
    extras = declared("teachers.specs", "EXTRA")

    def needs(module: str) -> tuple[str | None, bool]:
        extra, package = extras.get(module, (None, ""))
        return extra, extra is None or importlib.util.find_spec(package) is not None

    own = [
        Kind(form, text, tuple(Published(*row) for row in published.get(module, ())), *needs(module))
        for module, (form, text) in sorted(specs.items(), key=lambda each: (":" in each[1][0], each[1][0]))
    ]
    return own + [Kind(f"{name}:…", f"of {entry.value}") for name, entry in offered(ENTRY_POINTS).items()]


def load_teacher(spec: str) -> Teacher:
    """The teacher that a spec names, in eval mode, on the CPU.

    :raises TeacherError: an unknown spec, or a file that is not what the spec says.
    :raises RunError: a folder that is not a run.
    :raises MissingExtraError: an optional package that the spec needs is not installed.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in _kinds():
        module, form = _kinds()[prefix]
        if not rest:
            raise TeacherError(f"teacher {spec!r} names nothing; it is of the form {form}")
        if rest.startswith("~"):  # a shell expands it only at the start of a word
            rest = str(Path(rest).expanduser())
        teacher: Teacher = importlib.import_module(module).load(spec, rest)
        return teacher
    if colon and prefix in offered(ENTRY_POINTS):
        entry = offered(ENTRY_POINTS)[prefix]
        with calling(entry.load, whose=f"teacher {spec!r}", error=TeacherError):
            load: Callable[[str, str], Teacher] = entry.load()
        return load(spec, rest)
    path = Path(named_run(spec)[0])
    if path.is_dir():
        from teachers.specs.run_folder import load as load_folder

        return load_folder(spec, spec)
    if path.is_file():
        likely = _BY_SUFFIX.get(path.suffix.lower(), tuple(_kinds()))
        raise TeacherError(f"teacher {spec!r} is a file; say what it is: {', '.join(f'{kind}:…' for kind in likely)}")
    if colon and not path.exists() and "/" not in prefix:
        raise TeacherError(f"no kind of teacher {prefix!r}; {nearest(prefix, [*_kinds(), *offered(ENTRY_POINTS)])}")
    allowed = ", ".join(form for form in forms() if ":" in form)
    raise TeacherError(f"no teacher {spec!r}: no such run folder; allowed are a run folder, {allowed}")


def _kinds() -> dict[str, tuple[str, str]]:
    """Prefix -> (module, form) of the kinds of this project that have a prefix."""
    specs = declared("teachers.specs", "SPEC")
    return {form.partition(":")[0]: (module, form) for module, (form, _) in specs.items() if ":" in form}


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
