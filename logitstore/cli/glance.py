"""A first look at the files that a command line names, before anything heavy is imported: most mistakes end here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from logitstore.errors import RunError, TeacherError, UsageError
from logitstore.options import Field, Options, fields_of

_PATTERN = frozenset("*?[{")


def glance(options: Options) -> None:
    """Look whether what the options name is there, and whether it begins as it should.

    :raises UsageError: it is not; the same errors, mostly, as when it is read in earnest.
    """
    for each in fields_of(type(options)):
        value = getattr(options, each.name)
        if each.option.names is not None and value:
            for name in [value] if isinstance(value, str) else value if each.many else ():
                _LOOKS[each.option.names](name, each)


def _store(place: str, _: Field) -> None:
    from logitstore.store.storage import is_url

    if not is_url(place) and not (Path(place) / "zarr.json").is_file():
        from logitstore.store.reader import open_store

        open_store(place)  # says what is wrong


def _audio(place: str, each: Field) -> None:
    if not (Path(place).exists() or _PATTERN & set(place)):
        from logitstore.audio.sources import open_audio

        open_audio(place)


def _source(place: str, _: Field) -> None:
    path = Path(place)
    if not (path.is_dir() or _PATTERN & set(place)):
        from logitstore.audio.sources import open_source

        open_source(place, str(path.parent))


def _classes(file: str, _: Field) -> None:
    from logitstore.classes import read_classes

    if Path(file).is_file() or not Path(file).exists():  # a pipe can be read once
        read_classes(file)


def _recipe(name: str, _: Field) -> None:
    from logitstore.views.recipe import AUTO, load_recipe

    if name != AUTO:
        load_recipe(name)


def _file(name: str, each: Field) -> None:
    if not Path(name).exists():
        raise UsageError(f"{each.shown} {name!r}: no such file; give another")


def _teacher(spec: str, each: Field) -> None:
    from teachers.registry import forms

    kind, _, rest = spec.partition(":")
    if rest and f"{kind}:FILE" in forms():
        file = Path(rest.rpartition("?")[0] or rest).expanduser()
        if not file.is_file() and not Path(rest).expanduser().is_file():
            raise TeacherError(f"teacher {spec!r}: no file {str(file)!r}; give {kind}: a file that is there")
    elif not rest and not Path(spec.partition("?")[0]).is_dir():
        from teachers.registry import load_teacher

        load_teacher(spec)


def _run(folder: str, _: Field) -> None:
    if not (Path(folder).is_dir() or Path(folder.partition("?")[0]).is_dir()):
        raise RunError(f"{folder!r} is not a run folder: there is no such folder; give one that train-student wrote")


def _net(name: str, _: Field) -> None:
    from logitstore.models import registry

    if ":" not in name and name not in (*registry.names(), *registry.names("TEACHERS")):
        registry.build(name, 1)


_LOOKS: dict[str, Callable[[Any, Field], None]] = {
    "store": _store, "audio": _audio, "source": _source, "classes": _classes, "recipe": _recipe, "file": _file,
    "teacher": _teacher, "run": _run, "net": _net, "teacher net": _net,
}  # fmt: skip
