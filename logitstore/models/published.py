"""Published CED checkpoints: their tensors, read without ever running what a pickle says.

A checkpoint is what ``torch.save`` wrote of a state dict, bare or under the key ``model``. One of a masked autoencoder
(``*_mae_as_10s.pt``) may keep its encoder under a prefix and a decoder beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from logitstore.classes import audioset
from logitstore.errors import TeacherError, UsageError
from logitstore.files import read_whole
from logitstore.models.sidecar import read_sidecar, sidecar_path
from logitstore.models.torchfile import read_torch_file, state_of
from logitstore.views.mel import CED as FRONT_END

HEAD = "outputlayer.1.weight"
_WHAT = "a CED checkpoint"
_PATCHES = "patch_embed.proj.weight"
_NEEDED = ("time_pos_embed", "freq_pos_embed", _PATCHES)
#: Of the tensors whose shapes decide how large a model is made.
_DIMENSIONS = {HEAD: 2, "init_bn.1.weight": 1, "time_pos_embed": 4, "blocks.0.mlp.fc1.weight": 2}
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
    document = read_torch_file(path, whose=whose, what=_WHAT, error=error)
    return _weights(state_of(document, path, whose=whose, what=_WHAT, error=error), path, whose, error)


def read_hub_checkpoint(path: Path, *, whose: str, error: type[UsageError]) -> PublishedWeights:
    """A checkpoint in the layout of the Hugging Face hub: the encoder under a prefix, its BatchNorm by another name.

    :param path: safetensors, or a file that ``torch.save`` wrote.
    :raises UsageError: as ``error``, and as :func:`read_checkpoint`.
    """
    if path.suffix == ".safetensors":
        try:
            document = safetensors.torch.load(read_whole(path))
        except (OSError, safetensors.SafetensorError) as reason:
            raise error(f"{whose}: {str(path)!r} is not a safetensors file: {reason}; download it again") from reason
    else:
        document = read_torch_file(path, whose=whose, what=_WHAT, error=error)
    state = state_of(document, path, whose=whose, what=_WHAT, error=error)
    return _weights({_first_name(name): tensor for name, tensor in state.items()}, path, whose, error)


def _first_name(name: str) -> str:
    """The name that the first publication gave to a tensor of the hub's layout."""
    plain = name.removeprefix("encoder.")
    return plain.replace("init_bn.", "init_bn.1.", 1) if plain.startswith("init_bn.") else plain


def _weights(state: dict[str, torch.Tensor], path: Path, whose: str, error: type[UsageError]) -> PublishedWeights:
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


def _prefix(state: dict[str, torch.Tensor]) -> str:
    """What stands before the names of the encoder: nothing in most files."""
    found = [key.removesuffix(_PATCHES) for key in state if key.endswith(_PATCHES)]
    return min(found, key=len, default="")


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
