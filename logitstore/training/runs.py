"""Run folders: what a training leaves behind, and what a teacher spec can name.

::

    RUN/
      model.safetensors   the weights
      config.yaml         every option, resolved; --config takes it
      training.json       the same as JSON, with the store's fingerprint and versions
      log.jsonl           a record for every step and every epoch
      run.json            model and its arguments, classes, score kind, sample rate, digest of the weights, and more

``run.json`` is written last, so a folder without it is not a run. A run of somebody's own architecture,
``python:MODULE:FACTORY``, is read only where whoever reads it names the same: as ``RUN?student=python:MODULE:FACTORY``,
or by an argument. What a file says never makes this program import code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore import notebook
from logitstore.classes import check_classes
from logitstore.digests import hasher
from logitstore.documents import load_json
from logitstore.errors import RunError, TeacherError
from logitstore.files import read_whole, write_whole
from logitstore.models.registry import build, is_own
from logitstore.models.sidecar import check_rate, check_scores, check_seconds
from logitstore.plugins import PYTHON
from logitstore.training.runlog import read_epochs

if TYPE_CHECKING:
    import torch

    from logitstore.models.tagger import Tagger

FORMAT = "logitstore-run"
VERSION = 1
CONFIG_NAME = "run.json"
#: Bytes and values that a JSON file of a run may have.
MOST_BYTES = 1 << 26
MOST_VALUES = 2_000_000
WEIGHTS_NAME = "model.safetensors"
_STUDENT = "?student="


@dataclass(frozen=True, repr=False)
class Run:
    """A model read from its run folder.

    :param model: in eval mode, on the CPU. :param classes: names, in the order of its logits.
    :param scores: "sigmoid" or "softmax". :param sample_rate: Hz of the waveforms it takes.
    :param digest: BLAKE2b-128 of the weights, hex. :param config: the whole ``run.json``.
    """

    folder: Path
    model: Tagger
    classes: tuple[str, ...]
    scores: str
    sample_rate: int
    digest: str
    config: dict[str, Any]

    def __repr__(self) -> str:
        what = f"{self.config['model']}, {len(self.classes):,} classes, {self.scores}, {self.sample_rate:,} Hz"
        return f"<Run {self.folder}: {what}>"

    def _repr_html_(self) -> str:
        facts: list[tuple[str, object]] = [
            ("model", f"{self.config['model']}, {sum(each.numel() for each in self.model.parameters()):,} parameters"),
            (
                "classes",
                f"{len(self.classes):,}: {', '.join(self.classes[:8])}" + (", …" if len(self.classes) > 8 else ""),
            ),
            ("scores", self.scores),
            ("hears", f"{self.sample_rate:,} Hz"),
            ("weights", self.digest),
        ]
        return notebook.card(f"run {self.folder}", notebook.facts(facts), learning_curves(self.folder))

    @property
    def clip_seconds(self) -> float | None:
        """Length of the clips that it learnt from; None where the run does not say."""
        seconds = _clip_seconds(self.config)
        return None if seconds is None else float(seconds)


def learning_curves(folder: str | os.PathLike[str]) -> str:
    """The losses of a run's epochs as curves for a notebook; nothing where fewer than two were logged."""
    drawn = []
    for name, title in (("loss", "loss"), ("held_out_loss", "held-out loss"), ("mAP", "mAP")):
        points = [
            (float(each["epoch"] + 1), float(each[name]))
            for each in read_epochs(folder)
            if isinstance(each.get("epoch"), int) and isinstance(each.get(name), int | float) and isfinite(each[name])
        ]
        if len(points) > 1:
            first, last = points[0][1], points[-1][1]
            points = points[:: max(1, len(points) // 400)]
            drawn.append(
                (f"{title}, {first:.4f} to {last:.4f}", notebook.curve(points, f"{title} by epoch", unit="epoch"))
            )
    return notebook.beside(*drawn) if drawn else ""


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """BLAKE2b-128, hex, of tensors by name: sorted names, dtypes, shapes and values (little-endian)."""
    import torch

    digest = hasher()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def save_run(
    folder: str | os.PathLike[str],
    model_name: str,
    model_args: Mapping[str, Any],
    classes: Sequence[str],
    scores: str,
    sample_rate: int,
    model: Tagger,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a run folder; each file appears whole or not at all, ``run.json`` last.

    :param folder: made where it is missing; a run that is there is replaced.
    :param model_name: name and ``model_args`` that :func:`logitstore.models.registry.build` made the model of.
    :param classes: names in the order of the logits; ``scores``: "sigmoid" or "softmax"; ``sample_rate``: Hz.
    :param extra: anything else that JSON holds; kept under its own keys of ``run.json``.
    :raises RunError: classes or rate are not the model's, an ``extra`` key that ``run.json`` uses itself, or the folder
        cannot be written.
    """
    import safetensors.torch

    if len(classes) != model.classes or sample_rate != model.front_end.sample_rate or scores != model.scores:
        raise RunError(
            f"run {os.fspath(folder)!r}: {len(classes)} classes, {scores}, {sample_rate} Hz do not describe the model, "
            f"which has {model.classes} classes, {model.scores}, {model.front_end.sample_rate} Hz"
        )
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "model": model_name,
        "model_args": dict(model_args),
        "classes": list(classes),
        "scores": scores,
        "sample_rate": sample_rate,
        "digest": weights_digest(tensors),
    }
    for key in extra or {}:
        if key in config:
            raise RunError(f"run {os.fspath(folder)!r}: the extra key {key!r} is one that run.json uses itself")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / WEIGHTS_NAME, safetensors.torch.save(tensors))
        write_whole(path / CONFIG_NAME, (json.dumps(config | dict(extra or {}), indent=2) + "\n").encode())
    except OSError as error:
        raise RunError(f"run folder {os.fspath(folder)!r} cannot be written: {error.strerror or error}") from error


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with a ``run.json``."""
    return (Path(folder) / CONFIG_NAME).is_file()


def named_run(spec: str | os.PathLike[str]) -> tuple[str, str | None]:
    """The folder of ``RUN`` or ``RUN?student=python:MODULE:FACTORY``, and the architecture that is named for it."""
    text = os.fspath(spec)
    if _STUDENT not in text or Path(text).exists():
        return text, None
    folder, _, student = text.rpartition(_STUDENT)
    return folder, student


def load_student(run: str | os.PathLike[str], *, student: str | None = None) -> Tagger:
    """The model of a run folder, in eval mode, on the CPU: waveforms float32 (B, S) at its rate to logits (B, C).

    :param run, student: see :func:`load_run`, which also says the classes.
    :raises RunError: as there.
    """
    return load_run(run, student=student).model


def load_run(folder: str | os.PathLike[str], *, student: str | None = None) -> Run:
    """Read a run folder.

    :param folder: may name the architecture too, as ``RUN?student=python:MODULE:FACTORY``.
    :param student: ``python:MODULE:FACTORY`` where the run is of an architecture of that name; it is then imported.
    :raises RunError: no such folder, not a run, an unknown version or model, weights that are missing, damaged or of
        another model; or a model of somebody's own code, which is not named here.
    """
    import safetensors
    import safetensors.torch

    from logitstore.models.torchfile import check_shapes, shapes_alone

    place, named = named_run(folder)
    path, student = Path(place), named or student
    config = _config(path)
    if config["model"].startswith(PYTHON) and config["model"] != student:
        given = "none is named" if student is None else f"{student} is named"
        raise RunError(
            f"run {str(path)!r} is of the architecture {config['model']}, code that is imported only where you name "
            f"it, and {given}; if you trust it, give {path!s}{_STUDENT}{config['model']}"
        )
    classes = tuple(config["classes"])
    weights = path / WEIGHTS_NAME
    try:
        tensors = safetensors.torch.load(read_whole(weights))
    except OSError as error:
        raise RunError(f"run {str(path)!r}: its weights {WEIGHTS_NAME} cannot be read: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise RunError(f"run {str(path)!r}: {WEIGHTS_NAME} is not a safetensors file: {error}") from error
    digest = weights_digest(tensors)
    if digest != config["digest"]:
        raise RunError(
            f"run {str(path)!r}: {WEIGHTS_NAME} has the digest {digest} and run.json says {config['digest']}; "
            "the weights are damaged or of another run; train again or copy both files anew"
        )
    whose = f"run {str(path)!r}: {WEIGHTS_NAME} is not of the model {config['model']!r} that run.json names"

    def made() -> Tagger:
        try:
            return build(config["model"], len(classes), scores=config["scores"], **config["model_args"])
        except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
            if isinstance(error, RunError):
                raise
            reason = " ".join(str(error).split())[:300]
            raise RunError(f"run {str(path)!r}: no model has the model_args of run.json: {reason}") from error

    if is_own(config["model"]):
        with shapes_alone():  # its size is what run.json says, so it is held against the file first
            check_shapes(made(), tensors, whose=whose)
    model = made()
    check_shapes(model, tensors, whose=whose)
    if config["sample_rate"] != model.front_end.sample_rate:
        raise RunError(
            f"run {str(path)!r}: run.json says {config['sample_rate']} Hz and its model takes "
            f"{model.front_end.sample_rate} Hz"
        )
    model.load_state_dict(tensors)
    return Run(path, model.eval(), classes, config["scores"], config["sample_rate"], digest, config)


def _config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise RunError(f"no run folder {str(path)!r}; give a folder that train-teacher or train-student wrote")
    if not is_run(path):
        raise RunError(f"{str(path)!r} is not a run folder: it has no {CONFIG_NAME}, which a finished training writes")
    try:
        config = load_json(path / CONFIG_NAME, MOST_BYTES, MOST_VALUES, nan=True)
    except (ValueError, OSError) as error:
        raise RunError(f"run {str(path)!r}: {CONFIG_NAME} is not readable JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise RunError(f"{str(path)!r} is not a run folder of this project: {CONFIG_NAME} has no format {FORMAT!r}")
    if config.get("version") != VERSION:
        raise RunError(f"run {str(path)!r} has the version {config.get('version')!r}; this program reads {VERSION}")
    whose = f"run {str(path)!r}: {CONFIG_NAME}"
    kinds = {"model": str, "model_args": dict, "classes": list, "scores": str, "sample_rate": int, "digest": str}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind):
            raise RunError(
                f"run {str(path)!r}: {key!r} of {CONFIG_NAME} is {config.get(key)!r}; it must be a {kind.__name__}"
            )
    try:
        check_classes(config["classes"], whose=whose)
        check_scores(config["scores"], whose=whose)
        check_rate(config["sample_rate"], whose=whose)
        check_seconds(_clip_seconds(config), whose=whose)
    except (TeacherError, AttributeError) as error:
        raise RunError(f"{error}; the file is damaged") from error
    return config


def _clip_seconds(config: dict[str, Any]) -> Any:
    training = config.get("training", {})
    return (training.get("store") or training.get("options") or {}).get("clip_seconds")
