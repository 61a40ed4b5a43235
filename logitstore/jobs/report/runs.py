"""Run folders as the page shows them: what a training logged, what the run says of itself, what its model costs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.errors import RunError
from logitstore.evaluation.agreement import Agreement
from logitstore.files import require_no_hole
from logitstore.training.runlog import LOG_NAME
from logitstore.training.runs import WEIGHTS_NAME, load_run, named_run

_MOST_LINE = 1 << 20  # bytes of a record
_SPEED_CLIPS, _SPEED_SECONDS = 8, 0.5


@dataclass(frozen=True)
class LearntRun:
    """One run: its folder, what ``run.json`` says, its epochs and a thinned part of its steps, its size and speed.

    ``epochs`` and ``steps`` are records of ``log.jsonl``, those of numbers; ``macs`` of one clip of ``clip_seconds``;
    ``clips_per_second`` on the CPU of the machine that made the report, clips of that length, eight at a time.
    """

    name: str
    config: dict[str, Any]
    epochs: list[dict[str, float]]
    steps: list[dict[str, float]]
    parameters: int
    macs: int | None
    weight_bytes: int
    clip_seconds: float
    clips_per_second: float

    @property
    def result(self) -> dict[str, Any]:
        """What the training ended with; empty where the run does not say."""
        found = self.config.get("result")
        return found if isinstance(found, dict) else {}

    @property
    def agreement(self) -> Agreement | None:
        """With what the store held on the clips that were held out; None where none were, or where it is damaged."""
        said = self.config.get("agreement")
        try:
            return Agreement.of(said) if isinstance(said, dict) else None
        except (TypeError, KeyError, ValueError) as error:
            raise RunError(f"run {self.name!r}: its agreement in run.json is damaged: {error}; train again") from error


def read_run(spec: str) -> LearntRun:
    """Read a run; its model is loaded, and its speed measured in about a second.

    :param spec: the folder, or ``RUN?student=python:MODULE:FACTORY``.
    :raises RunError: it is no run, or its log is damaged.
    """
    import torch

    from logitstore.models.cost import macs_of

    folder = Path(named_run(spec)[0])
    run = load_run(spec)
    epochs, steps = _log(folder / LOG_NAME)
    seconds = run.clip_seconds or 10.0
    model, samples = run.model, max(1, round(seconds * run.sample_rate))
    with torch.inference_mode():
        macs = macs_of(lambda: model(torch.zeros(1, samples)))
        batch = torch.zeros(_SPEED_CLIPS, samples)
        model(batch)
        began, done = time.monotonic(), 0
        while not done or time.monotonic() - began < _SPEED_SECONDS:
            model(batch)
            done += len(batch)
        rate = done / (time.monotonic() - began)
    return LearntRun(
        name=str(folder),
        config=run.config,
        epochs=epochs,
        steps=steps,
        parameters=sum(each.numel() for each in model.parameters()),
        macs=macs,
        weight_bytes=(folder / WEIGHTS_NAME).stat().st_size,
        clip_seconds=seconds,
        clips_per_second=rate,
    )


def labels(runs: tuple[LearntRun, ...]) -> list[str]:
    """A short name for each: its folder's own name, or the whole path where two share that."""
    short = [Path(run.name).name or run.name for run in runs]
    return [name if short.count(name) == 1 else run.name for name, run in zip(short, runs, strict=True)]


def _log(path: Path, most: int = 2000) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Epochs and steps of a log, of either at most about so many, spread over all; memory does not grow with it.

    :raises RunError: it cannot be read, or a line is no record.
    """
    kept: dict[str, list[dict[str, float]]] = {"epoch": [], "step": []}
    every, seen = dict.fromkeys(kept, 1), dict.fromkeys(kept, 0)
    try:
        require_no_hole(path)
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MOST_LINE):
                number += 1
                record = json.loads(line)
                event = record.get("event") if isinstance(record, dict) else None
                if event not in kept:
                    continue
                if seen[event] % every[event] == 0:
                    kept[event].append({k: float(v) for k, v in record.items() if type(v) in (int, float)})
                    if len(kept[event]) > most:
                        kept[event], every[event] = kept[event][::2], every[event] * 2
                seen[event] += 1
    except OSError as error:
        raise RunError(
            f"run {str(path.parent)!r}: its log {path.name} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"run {str(path.parent)!r}: line {number} of {path.name} is no record: {error}") from error
    return kept["epoch"], kept["step"]


def series(records: list[dict[str, float]], key: str) -> tuple[Any, Any]:
    """Steps and values of a key, where records have it; the step of an epoch is the one after its last."""
    having = [record for record in records if key in record and "step" in record]
    return np.array([record["step"] for record in having]), np.array([record[key] for record in having])
