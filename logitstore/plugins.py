"""What can be added without a change elsewhere: a file of a package, an entry point, code that a spec names.

A net, a kind of teacher and a loss term are one file each. At its top level the file says in one literal constant what
it adds; that is read from the file's text, which is not run, so that help texts and the check of a command line list
everything and import no torch. The names of entry points are known without importing anything, too. And
``python:MODULE:FACTORY``, written on a command line, names a factory in any module that can be imported; a file that
was downloaded can never make this program import code by itself.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from logitstore.errors import LogitstoreError, UsageError

#: What stands before MODULE:FACTORY in a spec.
PYTHON = "python:"
#: What a user's own module can raise while it is imported, its factory called, or what that gave.
OWN_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@cache
def declared(package: str, constant: str) -> dict[str, Any]:
    """What the files of a package declare, by the full name of the module, in the order of the names.

    :param constant: the name of a constant; files that have none at their top level are left out.
    :returns: the values, which must be literals. The files are not run.
    """
    spec = importlib.util.find_spec(package)
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(None if spec is None else spec.submodule_search_locations):
        module = importlib.util.find_spec(f"{package}.{info.name}")
        source: str | None = None if module is None else module.loader.get_source(module.name)  # type: ignore[union-attr]
        if module is None or source is None or constant not in source:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and any(getattr(name, "id", None) == constant for name in node.targets):
                found[module.name] = ast.literal_eval(node.value)
    return found


@cache
def offered(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in a group of entry points, by name; nothing of it is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def own_factory(spec: str, *, whose: str, error: type[UsageError]) -> Callable[..., Any]:
    """The factory that ``python:MODULE:FACTORY`` names; the module may lie in the current folder.

    That folder is asked last, for this module and for what modules of the folder import: a file ``soxr.py`` in a data
    set is never taken for the package of that name.

    :param whose: what names it, for messages; ``error``: what they are raised as.
    :raises UsageError: as ``error``: another form, no such module or factory, or a module that cannot be imported.
    """
    module_name, _, factory_name = spec.removeprefix(PYTHON).partition(":")
    if not (spec.startswith(PYTHON) and module_name and factory_name):
        raise error(f"{whose} is not of the form python:MODULE:FACTORY, as in python:my_models:factory")
    _look_here(module_name)
    try:
        module = importlib.import_module(module_name)
    except OWN_ERRORS as reason:
        raise error(f"{whose}: cannot import {module_name!r}: {_described(reason)}") from reason
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        found = "has no" if factory is None else "has something that cannot be called as"
        raise error(f"{whose}: the module {module_name!r} {found} {factory_name!r}; name a factory in it")
    made: Callable[..., Any] = factory
    return made


class _CurrentFolder(MetaPathFinder):
    """Finds modules of a user's own in the folder where the command was started, after everything that is installed.

    :param folder: absolute. ``modules``: the top-level names that the command line named.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not (fullname in self.modules or self._asked_from_here()):
            return None
        return PathFinder.find_spec(fullname, [str(self.folder)], target)

    def _asked_from_here(self) -> bool:
        """Whether a module of the folder itself asks: it may import its neighbours."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename.startswith(("<frozen importlib", importlib.__file__)):
            frame = frame.f_back
        asker = Path(frame.f_code.co_filename if frame is not None else "")
        return asker.is_absolute() and asker.is_relative_to(self.folder) and "site-packages" not in asker.parts


def _look_here(module_name: str) -> None:
    """Let a module be found in the current folder, where it is nowhere else."""
    here = Path.cwd()
    finder = next((each for each in sys.meta_path if isinstance(each, _CurrentFolder) and each.folder == here), None)
    if finder is None:
        finder = _CurrentFolder(here)
        sys.meta_path.append(finder)
    finder.modules.add(module_name.partition(".")[0])
    importlib.invalidate_caches()


@contextmanager
def calling(factory: Callable[..., Any], *, whose: str, error: type[UsageError]) -> Iterator[None]:
    """Around the call of a factory of somebody's own: what it raises becomes one line, this project's errors stay.

    :raises UsageError: as ``error``: the factory failed.
    """
    try:
        yield
    except LogitstoreError:
        raise
    except OWN_ERRORS as reason:
        name = getattr(factory, "__name__", type(factory).__name__)
        raise error(f"{whose}: {name}() failed: {_described(reason)}") from reason


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
