"""What trainings of teachers and students share around the loop: folder, processes, measures, the run that is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logitstore.models.tagger import Tagger
from logitstore.training import board, config, folder
from logitstore.training.fit import Epoch, FitOptions, FitProgress, FitResult, fit, keep_freed_memory
from logitstore.training.options import LoopOptions
from logitstore.training.processes import Group


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, the model's name and number of parameters, the result; ``before``: it was there."""

    out: str
    model: str
    parameters: int
    result: FitResult
    before: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, ready to run.

    :param options: resolved, so that they repeat it. :param training: what makes it what it is, as JSON values.
    :param loop: what the loop takes of them. :param epochs, objective: see :func:`logitstore.training.fit.fit`.
    :param measure: metrics of a model, or None. :param every: epochs from one measuring to the next.
    :param more: further keys of ``run.json``. :param notes: lines to print, made when the training is done.
    """

    options: LoopOptions
    out: str
    model: Tagger
    model_name: str
    model_args: Mapping[str, Any]
    classes: tuple[str, ...]
    training: dict[str, Any]
    loop: FitOptions
    epochs: Callable[[int], Epoch]
    objective: Callable[..., Any]
    measure: Callable[[Tagger], dict[str, Any]] | None = None
    every: int = 1
    more: dict[str, Any] = field(default_factory=dict)
    notes: Callable[[], tuple[str, ...]] = tuple

    def run(self, progress: FitProgress, group: Group) -> Trained:
        """Train, or go on from the last checkpoint; nothing where the run is finished.

        :raises RunError: the folder holds another training, or cannot be written.
        """
        training = json.loads(json.dumps(self.training))
        if self.options.tensorboard:
            board.require()
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        finished = group.by_first(lambda: folder.begin(self.out, training, config.dump(self.options)))
        if finished is not None:
            return Trained(self.out, self.model_name, parameters, FitResult(**finished), before=True)
        notes: list[str] = []
        run = Path(self.out)
        with _Watched(progress, notes, run if self.options.tensorboard and group.first else None) as watched:
            keep_freed_memory()
            result = fit(
                self.model,
                self.loop,
                self.epochs,
                self.objective,
                run,
                about=training,
                accept=lambda there: folder.require_same_checkpoint(self.out, there, training),
                evaluate=self._evaluate,
                progress=watched,
                group=group,
            )
        group.by_first(lambda: self._finish(training, result))
        return Trained(self.out, self.model_name, parameters, result, notes=(*notes, *self.notes()))

    def _evaluate(self, model: Tagger, epoch: int, last: bool) -> dict[str, Any]:
        if self.measure is None or not (last or (epoch + 1) % self.every == 0):
            return {}
        return self.measure(model)

    def _finish(self, training: dict[str, Any], result: FitResult) -> None:
        folder.finish(
            self.out, training, result, self.model, self.model_name, dict(self.model_args), self.classes, self.more
        )


class _Watched:
    """A job's progress, with its notes kept and its log shown in TensorBoard where that is wanted."""

    def __init__(self, progress: FitProgress, notes: list[str], run: Path | None) -> None:
        self.progress, self.notes, self.run = progress, notes, run
        self.board: board.Board | None = None

    def __enter__(self) -> FitProgress:
        return FitProgress(
            start=self._start, step=self.progress.step, log=self._log, epoch=self.progress.epoch, note=self._note
        )

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def _start(self, steps: int, done: int) -> None:
        if self.run is not None:
            self.board = board.Board(self.run, done)
        self.progress.start(steps, done)

    def _log(self, record: dict[str, Any]) -> None:
        if self.board is not None:
            self.board.record(record)
        self.progress.log(record)

    def _note(self, message: str) -> None:
        self.notes.append(message)
        self.progress.note(message)
