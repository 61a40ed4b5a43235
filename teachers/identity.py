"""What a Python teacher is known by: a digest of its weights, its code, its arguments and its numbers.

Weights are tensors by name. Code is the text of its module and of the modules that this one imports, wherever they are
the user's own and no installed library. Numbers are whatever data lies in attributes of the module and its parts, in
classes, and at the top level of that code: numbers, texts, arrays, tensors, and lists, tables and objects of the user's
own classes made of them. A text or path that names a file by its whole path stands for the file's content.

What is none of this cannot be held against another day's: a library, a connection, an object of a compiled extension.
It is listed in words, which stand in the manifest of a store and in its status.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import json
import re
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.digests import digest, file_digest, hasher
from logitstore.training.runs import weights_digest

#: Libraries whose versions a manifest records, and this project's own packages.
_RECORDED = frozenset({"torch", "numpy", "logitstore", "teachers", "students"})
#: Parts of the standard library by which a teacher asks something else than its own code.
_OUTSIDE = frozenset({"ctypes", "ftplib", "http", "socket", "subprocess", "urllib", "xmlrpc"})
_RUNS_CODE = frozenset({"__import__", "eval", "exec", "import_module"})
_INSTALLED = ("site-packages", "dist-packages")
_COMPILED = (".so", ".pyd")
_TORCH_OWN = frozenset(vars(torch.nn.Module()))
#: Where types live whose objects are code, or say nothing of a result.
_NO_DATA = frozenset({"_abc", "_thread", "abc", "contextlib", "functools", "logging", "threading", "types", "typing",
                      "weakref", "_weakref"})  # fmt: skip
_CODE = (
    types.ModuleType, types.BuiltinFunctionType, type, staticmethod, classmethod, property,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType, types.MethodDescriptorType,
)  # fmt: skip


def python_identity(
    module: torch.nn.Module, module_name: str, arguments: Mapping[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """The digest of a teacher, BLAKE2b-128 in hex, and what it does not cover, in words, sorted.

    :param module: what the factory gave. :param module_name: where the factory lies.
    :param arguments: what the factory was called with, plain JSON values by name.
    """
    sources = Sources(module_name)
    content = _Content(sources)
    content.add("weights", weights_digest(module.state_dict()).encode())
    content.add("arguments", json.dumps(dict(arguments), sort_keys=True).encode())
    for name, text in sources.named():
        content.add(f"code {sources.short(name)}", text)
    content.module("teacher", module)
    for name, _ in sources.named():
        content.globals(name)
    return content.digest(), tuple(sorted({*sources.not_covered, *content.not_covered}))


def code_digest(module_name: str) -> tuple[str, tuple[str, ...]]:
    """The digest of the user's own code behind a module that is imported, and what it does not cover, in words."""
    sources = Sources(module_name)
    content = _Content(sources)
    for name, text in sources.named():
        content.add(f"code {sources.short(name)}", text)
    return content.digest(), tuple(sorted(sources.not_covered))


class Sources:
    """The files of a module and of all that it imports, as far as they are the user's own.

    Attributes: ``texts``, the content of each by the module's name; ``not_covered``, libraries and the like, in words.
    """

    def __init__(self, name: str) -> None:
        self.main = name
        self.texts: dict[str, bytes] = {}
        self.not_covered: set[str] = set()
        main = _file_of(name)
        self._top = name.partition(".")[0]
        self._installed = main is not None and _installed(main)
        levels = name.count(".") + (main is not None and main.stem == "__init__")
        self._root = None if main is None else main.parents[levels]
        waiting = [name]
        while waiting:
            waiting += self._read(waiting.pop())

    def short(self, name: str) -> str:
        """A module's name, the same whatever the file of the main one is called."""
        return "" if name == self.main else name

    def named(self) -> list[tuple[str, bytes]]:
        """The modules and their texts, the main one first."""
        return sorted(self.texts.items(), key=lambda item: self.short(item[0]))

    def owns(self, kind: type) -> bool:
        """Whether a class is of the user's own code."""
        return kind.__module__ in self.texts or kind.__module__ == "__main__"

    def _read(self, name: str) -> list[str]:
        """Take up one module, if it is the user's own; what it imports."""
        if name in self.texts:
            return []
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names and name != self.main:
            if top in _OUTSIDE:
                self.not_covered.add(f"what it asks through {top}")
            return []
        if top in _RECORDED and name != self.main:
            return []
        file = _file_of(name) or self._beside(name)
        if file is None:
            if name == self.main:
                self.not_covered.add(f"the code of {name}")
            return []
        if _installed(file) and not (self._installed and top == self._top):
            self.not_covered.add(f"the library {top}")
            return []
        content = file.read_bytes()
        self.texts[name] = content.replace(b"\r\n", b"\n") if file.suffix == ".py" else content
        if file.suffix != ".py":
            return []
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            self.not_covered.add(f"what {name} imports")
            return []
        return [*_parents(name), *self._imports(tree, name, package=file.stem == "__init__")]

    def _beside(self, name: str) -> Path | None:
        """The file of a module that is not imported yet."""
        if self._root is None:
            return None
        place = self._root.joinpath(*name.split("."))
        found = [place.with_suffix(".py"), place / "__init__.py"]
        if place.parent.is_dir():
            found += sorted(f for f in place.parent.glob(f"{place.name}.*") if f.suffix in _COMPILED)
        return next((file for file in found if file.is_file()), None)

    def _imports(self, tree: ast.AST, name: str, *, package: bool) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from [alias.name, *_parents(alias.name)]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = name.split(".")[: len(name.split(".")) - node.level + package]
                    base = ".".join([*above, *([base] if base else [])])
                if base:
                    yield from [base, *_parents(base)]
                    yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
            elif isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
                if called in _RUNS_CODE and not (called == "eval" and isinstance(node.func, ast.Attribute)):
                    self.not_covered.add(f"what {name} loads by {called}")


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _file_of(name: str) -> Path | None:
    """The file of a module that is imported."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None or not Path(file).is_file() else Path(file).absolute()


def _installed(file: Path) -> bool:
    places = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return bool(set(_INSTALLED) & set(file.parts)) or any(place and file.is_relative_to(place) for place in places)


class _Content:
    """Feeds a digest with data by name, each piece with its length, and lists what is none."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.not_covered: set[str] = set()
        self._hash = hasher()
        self._open: list[int] = []  # objects that are being walked: one that holds itself is walked once

    def digest(self) -> str:
        return self._hash.hexdigest()

    def add(self, name: str, content: bytes) -> None:
        head = f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape")
        self._hash.update(head + content)

    def module(self, where: str, module: torch.nn.Module) -> None:
        """Classes, attributes and unsaved buffers of a module and its parts; its weights are not among them."""
        if isinstance(module, torch.jit.ScriptModule):
            self._script(where, module)
            return
        for name, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                if name and not isinstance(module.get_submodule(name.rpartition(".")[0]), torch.jit.ScriptModule):
                    self._script(f"{where}.{name}", part)
                continue
            place = f"{where}.{name}" if name else where
            self.add(place, self._kind(type(part)).encode())
            unsaved = {key: part._buffers[key] for key in part._non_persistent_buffers_set}
            own = {key: value for key, value in vars(part).items() if key not in _TORCH_OWN}
            self._table(place, own | unsaved, told=self.sources.owns(type(part)))

    def globals(self, name: str) -> None:
        """The data at the top level of a module, and in the classes that it defines."""
        for key, value in sorted(vars(sys.modules.get(name, types.ModuleType(name))).items()):
            if key.startswith("__"):
                continue
            place = f"{self.sources.short(name)}:{key}"
            if isinstance(value, type) and value.__module__ == name:
                inside = {k: v for k, v in vars(value).items() if not k.startswith(("__", "_abc_"))}
                self._table(place, inside, told=True, code=False)
            elif not _is_code(value):
                self.value(place, value, told=True)

    def _table(self, where: str, table: Mapping[str, Any], *, told: bool, code: bool = True) -> None:
        for key, value in sorted(table.items()):
            if code or not _is_code(value):
                self.value(f"{where}.{key}", value, told=told)

    def value(self, where: str, value: Any, *, told: bool = True) -> None:
        """One thing by its name; ``told``: whether it is listed if it is no data."""
        if id(value) in self._open:
            self.add(where, b"itself")
            return
        self._open.append(id(value))
        try:
            if not self._data(where, value) and told:
                kind = type(value)
                self.not_covered.add(f"{where.removeprefix(':')}, of type {kind.__module__}.{kind.__qualname__}")
        finally:
            self._open.pop()

    def _data(self, where: str, value: Any) -> bool:
        if (
            isinstance(value, enum.Enum)
            or value is None
            or isinstance(value, bool | int | float | complex | bytes | torch.dtype | torch.Size)
        ):
            self.add(where, repr(value).encode())
        elif isinstance(value, str | Path):
            self.add(where, _of_text(value))
        elif isinstance(value, torch.Tensor):
            return self._tensor(where, value)
        elif isinstance(value, np.ndarray | np.generic):
            array = np.ascontiguousarray(value)
            if array.dtype.hasobject:
                self.value(where, array.tolist())
            else:
                self.add(where, f"{array.dtype.str} {array.shape} {digest(array.tobytes())}".encode())
        elif isinstance(value, np.random.Generator):
            self.value(where, value.bit_generator.state)
        elif isinstance(value, torch.Generator):
            self.value(where, value.get_state())
        elif isinstance(value, re.Pattern):
            self.add(where, f"{value.pattern!r} {value.flags}".encode())
        elif isinstance(value, Mapping):
            for key, each in sorted(((repr(key), each) for key, each in value.items()), key=lambda item: item[0]):
                self.value(f"{where}[{key}]", each)
            self.add(where, f"{len(value)} entries".encode())
        elif isinstance(value, list | tuple):
            for number, each in enumerate(value):
                self.value(f"{where}[{number}]", each)
            self.add(where, f"{len(value)} values".encode())
        elif isinstance(value, set | frozenset):
            self.add(where, " ".join(sorted(map(repr, value))).encode())
        elif isinstance(value, torch.nn.Module):
            self.add(where, weights_digest(value.state_dict()).encode())
            self.module(where, value)
        elif isinstance(value, functools.partial):
            self.value(where, [value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            self.value(where, value.__func__)
            if not isinstance(value.__self__, torch.nn.Module):
                self.value(f"{where}.__self__", value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(where, value)
        elif isinstance(value, type):
            self.add(where, self._kind(value).encode())
        elif _is_code(value) or isinstance(value, torch.device):
            self.add(where, type(value).__qualname__.encode())
        elif self.sources.owns(type(value)) or dataclasses.is_dataclass(value):
            self.add(where, self._kind(type(value)).encode())
            slots = {key for kind in type(value).__mro__ for key in _slots(kind)}
            self._table(where, {key: getattr(value, key) for key in slots if hasattr(value, key)}, told=True)
            self._table(where, getattr(value, "__dict__", {}), told=True)
        else:
            return False
        return True

    def _tensor(self, where: str, tensor: torch.Tensor) -> bool:
        try:
            self.add(where, weights_digest({"": tensor}).encode())
        except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantised, without any values
            return False
        return True

    def _function(self, where: str, function: types.FunctionType) -> None:
        """A function by its place in code that is covered as text, and what it was made with."""
        place = f"{self.sources.short(function.__module__)}:{function.__qualname__}"
        self.add(where, f"{place} {function.__code__.co_firstlineno}".encode())
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        self.value(f"{where}()", [cells, function.__defaults__, function.__kwdefaults__])

    def _script(self, where: str, module: torch.jit.ScriptModule) -> None:
        for name, part in module.named_modules():
            self.add(f"{where}.{name}", str(getattr(part, "code", "")).encode())
        self.not_covered.add(f"what the TorchScript of {where} holds beside code and tensors")

    def _kind(self, kind: type) -> str:
        return f"{self.sources.short(kind.__module__)}:{kind.__qualname__}"


def _is_code(value: Any) -> bool:
    named = callable(value) and hasattr(value, "__name__") and not isinstance(value, torch.nn.Module)
    return named or isinstance(value, _CODE) or type(value).__module__ in _NO_DATA


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else slots


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _of_text(value: str | Path) -> bytes:
    """A text; of one that names a file by its whole path, the file's content, for folders move."""
    text = str(value)
    if isinstance(value, Path) or text[:1] == "/":
        try:
            path = Path(text)
            if path.is_file():
                return f"file {file_digest(path)}".encode()
            if path.is_absolute() and path.exists():
                return b"folder"
        except (OSError, ValueError):
            pass
    return text.encode("utf-8", "surrogateescape")
