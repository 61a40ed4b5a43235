"""Published CED checkpoints as teachers: the architecture is read from the shapes of the weights.

Nothing in such a file says how many attention heads a model has. A head is as wide as the largest power of two, at most
64, that divides the embedding; that is 3, 4, 6 and 12 heads for the published tiny, mini, small and base, and
``ced:FILE?heads=N`` says otherwise. Sixty-three time positions stand for 1,012 frames, as in every published model;
any other number for 16 frames each. A class token means pooling by it; without one, the mean of the tokens.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.errors import TeacherError, UsageError
from logitstore.view.features import CED as FRONT_END
from students.models.ced import PATCH, TARGET_FRAMES, Ced
from students.runs import weights_digest
from teachers.classes import audioset
from teachers.registry import split_options
from teachers.run_folder import TaggerTeacher
from teachers.sidecar import read_sidecar, sidecar_path

_WIDEST_HEAD = 64
_NARROWEST_HEAD = 8
_BANK_TOLERANCE = 1e-3
_NEEDED = ("time_pos_embed", "freq_pos_embed", "init_bn.1.weight", "patch_embed.proj.weight", "outputlayer.1.weight")
_BANK = "front_end.0.mel_scale.fb"


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``ced:FILE`` or ``ced:FILE?heads=N``.

    Classes are AudioSet's 527 display names, or those of a sidecar ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, not a CED checkpoint, or one of another architecture.
    """
    name, options = split_options(spec, rest, ("heads",))
    path = Path(name)
    state = _read(spec, path)
    arguments = _arguments(spec, state, options.get("heads"))
    outputs = len(state["outputlayer.1.weight"])
    try:
        model = Ced(outputs, **arguments)
        model.load_state_dict({key: value for key, value in state.items() if not key.startswith("front_end.")})
    except (RuntimeError, UsageError) as error:
        raise TeacherError(
            f"teacher {spec!r} is not a CED checkpoint of a known architecture: {_one_line(error)}"
        ) from error
    return TaggerTeacher(spec, "ced", model, _classes(spec, path, outputs), weights_digest(model.state_dict()))


def _read(spec: str, path: Path) -> dict[str, torch.Tensor]:
    """The float32 tensors of a checkpoint by name, read without ever running what a pickle says."""
    if not path.is_file():
        raise TeacherError(f"teacher {spec!r}: no file {str(path)!r}; give a CED checkpoint such as ced:ced_mini.pt")
    not_torch = f"teacher {spec!r} is not a CED checkpoint: {str(path)!r} is not a file that torch.save writes"
    if not zipfile.is_zipfile(path):
        raise TeacherError(f"{not_torch}, or it is cut short; download it again")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise TeacherError(f"teacher {spec!r}: {str(path)!r} is damaged at {damaged!r}; download it again")
        document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"teacher {spec!r} is not a CED checkpoint: {str(path)!r} holds pickled objects other than tensors, which "
            "are never loaded; save its state dict alone"
        ) from error
    except (zipfile.BadZipFile, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise TeacherError(f"{not_torch}: {_one_line(error)}") from error
    state: Any = document.get("model", document) if isinstance(document, dict) else document
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise TeacherError(f"teacher {spec!r} is not a CED checkpoint: {str(path)!r} is not a table of tensors by name")
    for key in _NEEDED:
        if key not in state:
            raise TeacherError(
                f"teacher {spec!r} is not a CED checkpoint: {str(path)!r} has {len(state)} tensors and none is {key!r}"
            )
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _arguments(spec: str, state: dict[str, torch.Tensor], heads: str | None) -> dict[str, Any]:
    shape = tuple(state["time_pos_embed"].shape)
    bands = len(state["init_bn.1.weight"])
    if len(shape) != 4 or bands != FRONT_END.n_mels:
        raise TeacherError(
            f"teacher {spec!r}: time positions of shape {shape} and {bands} mel bands; a CED checkpoint has "
            f"(1, D, 1, N) and {FRONT_END.n_mels}"
        )
    dim, positions = shape[1], shape[3]
    bank = state.get(_BANK)
    if bank is not None:
        ours = FRONT_END.filter_bank()
        if tuple(bank.shape) != ours.shape or np.abs(bank.numpy() - ours).max() > _BANK_TOLERANCE:
            raise TeacherError(
                f"teacher {spec!r} has another filter bank, {tuple(bank.shape)}, than CED's {ours.shape} of "
                f"{FRONT_END.n_mels} HTK-mel bands from 0 to 8,000 Hz; only that front end is known"
            )
    hidden = state.get("blocks.0.mlp.fc1.weight")
    return {
        "dim": dim,
        "depth": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "heads": _heads(spec, dim, heads),
        "mlp": 4 * dim if hidden is None else len(hidden),
        "pooling": "token" if "cls_token" in state else "mean",
        "frames": TARGET_FRAMES if positions == TARGET_FRAMES // PATCH else positions * PATCH,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
    }


def _heads(spec: str, dim: int, given: str | None) -> int:
    if given is not None:
        if not given.isdecimal() or int(given) < 1 or dim % int(given):
            raise TeacherError(f"teacher {spec!r}: heads is {given!r}; it must be a whole number that divides {dim}")
        return int(given)
    width = min(dim & -dim, _WIDEST_HEAD)
    if width < _NARROWEST_HEAD:
        raise TeacherError(f"teacher {spec!r}: an embedding of {dim} does not say how many heads; add ?heads=N")
    return dim // width


def _classes(spec: str, path: Path, outputs: int) -> tuple[str, ...]:
    sidecar = read_sidecar(path)
    named = sidecar.classes if sidecar is not None else None
    classes = tuple(row.display_name for row in audioset()) if named is None else named
    if len(classes) != outputs:
        where = "AudioSet" if named is None else "its sidecar"
        raise TeacherError(
            f"teacher {spec!r} has {outputs} outputs and {where} has {len(classes)} classes; name them in "
            f'{str(sidecar_path(path))!r} as {{"classes": […]}}'
        )
    return classes


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
