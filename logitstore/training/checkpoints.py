"""Checkpoints: everything that a training needs to go on, in files that are whole or not there.

::

    RUN/checkpoints/
      step-000000200.ckpt      the state after so many steps; the newest two are kept
      weights-000000180.ckpt   the weights of an evaluation that --average-best may use

A file is three parts: a line of JSON with the format and the BLAKE2b-128 of what follows it; a line of JSON, plain
values; and a ``torch.save`` of tensors in dicts and lists, read with ``weights_only=True``. It is written beside its
place, synced and moved there, and an older one is removed only then: whatever moment a process is killed at, the last
good checkpoint loads.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from logitstore.digests import digest
from logitstore.documents import parse_json
from logitstore.errors import RunError
from logitstore.files import clear_partials, read_whole, write_whole
from logitstore.plugins import OWN_ERRORS

FOLDER = "checkpoints"

_FORMAT, _VERSION = "logitstore-checkpoint", 1
_STATE, _WEIGHTS, _SUFFIX = "step-", "weights-", ".ckpt"
_KEPT = 2


class DamagedCheckpoint(Exception):  # noqa: N818 - an outcome, caught here: the one before it is used
    """A file that is not whole."""


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a file: ``values`` of JSON, ``tensors`` in dicts and lists, ``content`` the file's bytes."""

    values: dict[str, Any]
    tensors: Any
    content: bytes


def encode(values: dict[str, Any], tensors: Any) -> bytes:
    """The bytes of a checkpoint; read them with :func:`decode`."""
    packed = io.BytesIO()
    torch.save(tensors, packed)
    body = json.dumps(values).encode() + b"\n" + packed.getvalue()
    return json.dumps({"format": _FORMAT, "version": _VERSION, "digest": digest(body)}).encode() + b"\n" + body


def decode(content: bytes) -> Checkpoint:
    """A checkpoint from its bytes; tensors are on the CPU.

    :raises DamagedCheckpoint: they are not all there, or not those that were written.
    """
    first, _, body = content.partition(b"\n")
    try:
        header = parse_json(first)
    except ValueError as error:
        raise DamagedCheckpoint("no header") from error
    if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (_FORMAT, _VERSION):
        raise DamagedCheckpoint(f"its header is not of {_FORMAT} {_VERSION}")
    if digest(body) != header.get("digest"):
        raise DamagedCheckpoint("its content is not what its digest says")
    line, _, packed = body.partition(b"\n")
    try:  # the digest is anybody's to compute: what it covers may be another program's
        values, tensors = json.loads(line), torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    except (*OWN_ERRORS, EOFError, RecursionError, pickle.UnpicklingError) as error:
        raise DamagedCheckpoint(f"it is not one of ours: {type(error).__name__}") from error
    steps = values.get("weights", []) if isinstance(values, dict) else None
    if not isinstance(steps, list) or not all(type(step) is int and step >= 0 for step in steps):
        raise DamagedCheckpoint("it does not say what it is of")
    return Checkpoint(values, tensors, content)


class Checkpoints:
    """The checkpoints of a run.

    :param run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER

    def save(self, step: int, values: dict[str, Any], tensors: Any, weights: Iterable[int] = ()) -> None:
        """Write the state after ``step`` steps; older ones than the two newest go, and weights that none of them names.

        :param weights: the steps of the :meth:`save_weights` that this state refers to.
        :raises RunError: the folder cannot be written.
        """
        named = values | {"weights": sorted(weights)}
        self._write(self.folder / _name(_STATE, step), encode(named, tensors))
        self._prune(set(named["weights"]))

    def save_weights(self, step: int, state: dict[str, torch.Tensor]) -> None:
        """Write weights for :meth:`weights`; they stay as long as a state refers to them."""
        self._write(self.folder / _name(_WEIGHTS, step), encode({"step": step}, state))

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        """Weights of an evaluation.

        :raises RunError: they are missing or damaged.
        """
        path = self.folder / _name(_WEIGHTS, step)
        try:
            tensors: dict[str, torch.Tensor] = decode(read_whole(path)).tensors
        except (OSError, DamagedCheckpoint) as error:
            raise RunError(
                f"{str(path)!r}, which --average-best needs, cannot be read ({_reason(error)}); remove the run folder "
                "and train again"
            ) from error
        return tensors

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest checkpoint that is whole, and a line for each damaged one that was passed over.

        Weights that it refers to must be whole too.
        """
        notes: list[str] = []
        for path in reversed(self._paths(_STATE)):
            try:
                found = decode(read_whole(path))
                for step in found.values.get("weights", ()):
                    decode(read_whole(self.folder / _name(_WEIGHTS, step)))
            except (OSError, DamagedCheckpoint) as error:
                notes.append(f"checkpoint {path.name} is damaged ({_reason(error)}) and was passed over")
                continue
            return found, tuple(notes)
        if notes:
            notes.append("no checkpoint is whole: the training started over")
        return None, tuple(notes)

    def remove(self) -> None:
        """Remove all of them, once the run is finished."""
        if not self.folder.is_dir():
            return
        clear_partials(self.folder)
        for path in (*self._paths(_STATE), *self._paths(_WEIGHTS)):
            path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _prune(self, named: set[int]) -> None:
        states = self._paths(_STATE)
        for path in states[:-_KEPT]:
            path.unlink()
        for path in states[-_KEPT:-1]:
            with path.open("rb") as file:  # its tensors need not be read
                file.readline()
                line = file.readline()
            try:
                named |= set(json.loads(line)["weights"])
            except (ValueError, LookupError, TypeError, RecursionError):
                path.unlink()  # it is damaged, and a newer one is there
        clear_partials(self.folder)
        for path in self._paths(_WEIGHTS):
            if int(path.name.removeprefix(_WEIGHTS).removesuffix(_SUFFIX)) not in named:
                path.unlink()

    def _paths(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}*{_SUFFIX}"))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise RunError(f"checkpoint {str(path)!r} cannot be written: {error.strerror or error}") from error


def mean_weights(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of weights and buffers, summed in float64; what is not floating point is taken from the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def _name(kind: str, step: int) -> str:
    return f"{kind}{step:09d}{_SUFFIX}"


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
