"""Published CED checkpoints: their tensors, read without ever running what a pickle says.

A checkpoint is what ``torch.save`` wrote of a state dict, bare or under the key ``model``. One of a masked autoencoder
(``*_mae_as_10s.pt``) may keep its encoder under a prefix and a decoder beside it.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from logitstore.classes import audioset
from logitstore.errors import RunError, TeacherError, UsageError
from logitstore.files import read_whole
from logitstore.models.sidecar import read_sidecar, sidecar_path
from logitstore.plugins import OWN_ERRORS
from logitstore.views.mel import CED as FRONT_END

HEAD = "outputlayer.1.weight"
_PATCHES = "patch_embed.proj.weight"
_NEEDED = ("time_pos_embed", "freq_pos_embed", _PATCHES)
#: Of the tensors whose shapes decide how large a model is made.
_DIMENSIONS = {HEAD: 2, "init_bn.1.weight": 1, "time_pos_embed": 4, "blocks.0.mlp.fc1.weight": 2}
#: Tensors may share their bytes, as tied weights do; more often than this they do not.
_MOST_SHARED = 4
_BANK = "front_end.0.mel_scale.fb"
_BANK_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PublishedWeights:
    """The tensors of the transformer by the names that our own ``Ced`` gives them; floats as float32.

    :param others: the names in the file of what is no part of it: a front end's tables, a decoder.
    """

    tensors: dict[str, torch.Tensor]
    others: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Width of a token."""
        return int(self.tensors["time_pos_embed"].shape[1])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len({name.split(".")[1] for name in self.tensors if name.startswith("blocks.")})

    @property
    def mlp(self) -> int:
        """Width of the hidden layer of a block."""
        hidden = self.tensors.get("blocks.0.mlp.fc1.weight")
        return 4 * self.dim if hidden is None else len(hidden)

    @property
    def positions(self) -> int:
        """Number of time positions, one every 16 frames."""
        return int(self.tensors["time_pos_embed"].shape[3])


def read_checkpoint(path: Path, *, whose: str, error: type[UsageError]) -> PublishedWeights:
    """A checkpoint of CED's architecture and front end; with or without a head.

    :param whose: what names the file, for messages; ``error``: what they are raised as.
    :raises UsageError: as ``error``: no such file, not a PyTorch file, a damaged one, or of another architecture.
    """
    return published_weights(read_tensors(path, whose=whose, error=error), path, whose=whose, error=error)


def read_tensors(path: Path, *, whose: str, error: type[UsageError]) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or of a state dict that ``torch.save`` wrote, bare or under the key ``model``.

    :raises UsageError: as ``error``: no such file, a damaged one, or one that claims more than it holds.
    """
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load(read_whole(path))
        except (OSError, safetensors.SafetensorError) as reason:
            raise error(f"{whose}: {str(path)!r} is not a safetensors file: {reason}; download it again") from reason
    document = _document(path, whose, error)
    state: Any = document.get("model", document) if isinstance(document, dict) else document
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise error(f"{whose} is not a CED checkpoint: {str(path)!r} is not a table of tensors by name")
    _check_sizes(state, path, whose, error)
    return {str(key): value for key, value in state.items()}


def published_weights(
    state: dict[str, torch.Tensor], path: Path, *, whose: str, error: type[UsageError]
) -> PublishedWeights:
    """Tensors as those of CED's transformer, by the names of its first publication.

    :param path: where they are from, for messages.
    :raises UsageError: as ``error``: they are of another architecture or front end.
    """
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    prefix = _prefix(state)
    known = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for key in _NEEDED:
        if key not in known:
            raise error(f"{whose} is not a CED checkpoint: {str(path)!r} has {len(state)} tensors and none is {key!r}")
    for key, dimensions in _DIMENSIONS.items():
        if key in known and known[key].dim() != dimensions:
            raise error(
                f"{whose} is not a CED checkpoint: {key!r} has the shape {tuple(known[key].shape)}; it has "
                f"{dimensions} dimensions in one"
            )
    shape = tuple(known["time_pos_embed"].shape)
    bands = len(known["init_bn.1.weight"]) if "init_bn.1.weight" in known else FRONT_END.n_mels
    if len(shape) != 4 or bands != FRONT_END.n_mels:
        raise error(
            f"{whose}: time positions of shape {shape} and {bands} mel bands; a CED checkpoint has (1, D, 1, N) and "
            f"{FRONT_END.n_mels}"
        )
    _check_bank(known.get(_BANK, state.get(_BANK)), whose, error)
    others = tuple(key for key in state if not key.startswith(prefix) or key.removeprefix(prefix).startswith("front_"))
    return PublishedWeights({key: value for key, value in known.items() if not key.startswith("front_")}, others)


def _check_sizes(state: dict[str, torch.Tensor], path: Path, whose: str, error: type[UsageError]) -> None:
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


def _prefix(state: dict[str, torch.Tensor]) -> str:
    """What stands before the names of the encoder: nothing in most files."""
    found = [key.removesuffix(_PATCHES) for key in state if key.endswith(_PATCHES)]
    return min(found, key=len, default="")


def _document(path: Path, whose: str, error: type[UsageError]) -> Any:
    if not path.is_file():
        raise error(f"{whose}: no file {str(path)!r}; give a CED checkpoint such as ced:ced_mini.pt")
    not_torch = f"{whose} is not a CED checkpoint: {str(path)!r} is not a file that torch.save writes"
    if not zipfile.is_zipfile(path):
        raise error(f"{not_torch}, or it is cut short; download it again")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise error(f"{not_torch}: its entries are compressed; save it anew with torch.save")
            damaged = archive.testzip()
        if damaged is not None:
            raise error(f"{whose}: {str(path)!r} is damaged at {damaged!r}; download it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        raise error(
            f"{whose} is not a CED checkpoint: {str(path)!r} holds pickled objects other than tensors, which are never "
            "loaded; save its state dict alone"
        ) from reason
    except UsageError:
        raise
    except (*OWN_ERRORS, zipfile.BadZipFile, EOFError, MemoryError, RecursionError) as reason:
        raise error(f"{not_torch}: {' '.join(str(reason).split())[:300]}") from reason


def _check_bank(bank: torch.Tensor | None, whose: str, error: type[UsageError]) -> None:
    ours = FRONT_END.filter_bank()
    if bank is not None and (tuple(bank.shape) != ours.shape or np.abs(bank.numpy() - ours).max() > _BANK_TOLERANCE):
        raise error(
            f"{whose} has another filter bank, {tuple(bank.shape)}, than CED's {ours.shape} of {FRONT_END.n_mels} "
            "HTK-mel bands from 0 to 8,000 Hz; only that front end is known"
        )


def classes_of(whose: str, path: Path, outputs: int) -> tuple[str, ...]:
    """The classes of a checkpoint's head: those of its sidecar, or AudioSet's 527 display names.

    :param whose: what names the file, for messages. :param outputs: of the head.
    :raises TeacherError: another number of classes than of outputs.
    """
    sidecar = read_sidecar(path)
    named = sidecar.classes if sidecar is not None else None
    classes = tuple(row.display_name for row in audioset()) if named is None else named
    if len(classes) != outputs:
        where = "AudioSet" if named is None else "its sidecar"
        raise TeacherError(
            f"{whose} has {outputs} outputs and {where} has {len(classes)} classes; name them in "
            f'{str(sidecar_path(path))!r} as {{"classes": […]}}'
        )
    return classes
