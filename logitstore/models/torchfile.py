"""Checkpoints that somebody else wrote with ``torch.save``: their tensors, and never what a pickle says to run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from logitstore.errors import RunError, TeacherError, UsageError
from logitstore.plugins import OWN_ERRORS

Net = TypeVar("Net", bound=torch.nn.Module)
#: Tensors may share their bytes, as tied weights do; more often than this they do not.
_MOST_SHARED = 4


def read_torch_file(
    path: Path, *, whose: str, what: str, error: type[UsageError], allowed: Sequence[Any] = (), zipped: bool = True
) -> Any:
    """What ``torch.save`` wrote: plain values and tensors.

    :param whose: what names the file, for messages. :param what: what it should be, as in "a CED checkpoint".
    :param error: what messages are raised as.
    :param allowed: what a pickle may name beside tensors, as ``torch.serialization.safe_globals`` takes it.
    :param zipped: whether it must be an archive; torch wrote none before 2020.
    :raises UsageError: as ``error``: no such file, not a PyTorch file, a damaged one, or one that pickles more.
    """
    if not path.is_file():
        raise error(f"{whose}: no file {str(path)!r}; give {what}")
    not_torch = f"{whose} is not {what}: {str(path)!r} is not a file that torch.save writes"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise error(f"{not_torch}: its entries are compressed; save it anew with torch.save")
                damaged = archive.testzip()
            if damaged is not None:
                raise error(f"{whose}: {str(path)!r} is damaged at {damaged!r}; download it again")
        elif zipped:
            raise error(f"{not_torch}, or it is cut short; download it again")
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        if not zipped and not zipfile.is_zipfile(path) and not _begins_as_pickle(path):
            raise error(f"{not_torch}, or it is cut short; download it again") from reason
        raise error(
            f"{whose} is not {what}: {str(path)!r} holds pickled objects other than tensors, which are never loaded; "
            "save its state dict alone"
        ) from reason
    except UsageError:
        raise
    except (*OWN_ERRORS, zipfile.BadZipFile, EOFError, MemoryError, RecursionError) as reason:
        raise error(f"{not_torch}: {' '.join(str(reason).split())[:300]}") from reason


def state_of(
    document: Any, path: Path, *, whose: str, what: str, error: type[UsageError], keys: Sequence[str] = ("model",)
) -> dict[str, torch.Tensor]:
    """The tensors by name of what was read: the table itself, or the one under one of some keys; floats as float32.

    :raises UsageError: as ``error``: no such table; tensors that claim more than the file holds, or are not plain.
    """
    state = document
    for key in keys:
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            state = document[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise error(f"{whose} is not {what}: {str(path)!r} is not a table of tensors by name")
    check_sizes(state, path, whose, error)
    return {str(key): value.float() if value.is_floating_point() else value for key, value in state.items()}


def check_sizes(state: dict[str, torch.Tensor], path: Path, whose: str, error: type[UsageError]) -> None:
    """Refuse tensors that are larger than the file: one number can be stretched to any shape."""
    size, total = path.stat().st_size, 0
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise error(f"{whose}: the tensor {name!r} of {str(path)!r} is not a plain one; save dense float tensors")
        total += tensor.numel() * tensor.element_size()
        if total > _MOST_SHARED * size:
            raise error(
                f"{whose}: {str(path)!r} has {size:,} bytes, and its tensor {name!r} of shape {tuple(tensor.shape)} "
                "claims more than are there; save the state dict with .contiguous() tensors"
            )


def check_shapes(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, whose: str) -> None:
    """Hold a model against a file's tensors, name by name, before weights are made or copied.

    :param model: may be one on the device "meta", which takes no memory.
    :raises RunError: a tensor is missing, too many, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise RunError(
            f"{whose}: {len(differing)} tensors differ, the first is {name!r}: {found.get(name, 'missing')} in the "
            f"file, {expected.get(name, 'none')} in the model"
        )


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Nets that are made within have shapes and no memory, to hold them against a file first."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Draws no normal numbers: of tensors without memory torch would import its compiler for it, which takes 1.4 s."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if function in (torch.Tensor.normal_, torch.nn.init.normal_):
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def loaded(make: Callable[[], Net], tensors: Mapping[str, torch.Tensor], *, whose: str, what: str) -> Net:
    """A net with the weights of a file, whose shapes are held against it before it takes memory.

    :param make: the net, of the sizes that the file states. :param what: what the file should be, for messages.
    :raises TeacherError: no net has these sizes; a tensor is missing, too many, or of another shape.
    """
    try:
        with shapes_alone():
            check_shapes(make(), tensors, whose="the file")
        model = make()
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, UsageError) as error:
        raise TeacherError(f"{whose} is not {what} of a known form: {' '.join(str(error).split())[:300]}") from error
    return model


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"
