"""A training as a whole, from its options to the run folder that it leaves: what students and teachers share.

A trainer reads its data, makes a :class:`Training` of it and hands that to :func:`train`; :func:`resolve`,
:func:`workplace` and :func:`identity` are what it needs before. What was asked stands in the run folder from the start,
so that it is never mistaken for another's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from logitstore import notebook
from logitstore.documents import load_json
from logitstore.errors import RunError
from logitstore.files import clear_partials, is_partial, write_whole
from logitstore.models.machine import keep_freed_memory, pick_device, versions
from logitstore.models.registry import default_lr
from logitstore.models.tagger import Tagger
from logitstore.notes import doing
from logitstore.options import dump
from logitstore.training import board
from logitstore.training.checkpoints import FOLDER, Checkpoints
from logitstore.training.loop import Epoch, FitProgress, FitResult, Objective, fit
from logitstore.training.optimizers import require_optimizer
from logitstore.training.options import INDIFFERENT, LoopOptions, warm_up_of
from logitstore.training.precision import pass_dtype
from logitstore.training.processes import Group, joined, own_device
from logitstore.training.runs import MOST_BYTES, MOST_VALUES, is_run, learning_curves, load_run, save_run
from logitstore.training.schedule import DEFAULTS, EARLIER_RATES

OPTIONS_NAME = "training.json"
CONFIG_NAME = "config.yaml"

#: Metrics of a model in eval mode, by their names in the log.
Measure = Callable[[Tagger], dict[str, Any]]
Options = TypeVar("Options", bound=LoopOptions)

#: Options without which runs were begun: where one is None, such a run goes on.
_LATER = ("label_separator", "labels", "level", "eval_measure", "eval_split")
_MAY_DIFFER = ("versions.", "places.", "preset", "processes")
#: What runs did that were begun before there were these options and numbers.
_BEFORE = {"defaults": 1, "options.cosine": "rest", "options.optimizer": "adamw", "options.weight_decay": 0.01}
_MOST_NAMED = 4
_REMEDY = "give another --out, or remove that folder"


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, the model's name and number of parameters, the result; ``before``: it was there.

    ``agreement``: what :class:`Training` has for ``final`` found, as JSON values, or None.
    """

    out: str
    model: str
    parameters: int
    result: FitResult
    before: bool = False
    notes: tuple[str, ...] = ()
    agreement: dict[str, Any] | None = None

    def _repr_html_(self) -> str:
        result = self.result
        facts: list[tuple[str, object]] = [
            ("model", f"{self.model}, {self.parameters:,} parameters"),
            ("trained", f"{result.steps:,} steps, {result.epochs:,} epochs in {result.seconds:,.1f} s"),
            ("loss", f"{result.loss:.4f}, mean of the last epoch"),
            *((name, f"{value:.4f}") for name, value in result.metrics.items() if isinstance(value, float)),
        ]
        if self.agreement is not None:
            facts += [(name, f"{value:.4f}") for name, value in self.agreement.items() if isinstance(value, float)]
        return notebook.card(
            f"run {self.out}", notebook.facts(facts), learning_curves(self.out), *map(notebook.note, self.notes)
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that there is to train: a model, its data, what is minimised and what is measured.

    :param options: of :func:`resolve`, so that they repeat it. :param out: the run folder.
    :param model: newly made; ``model_name``, ``model_args``: what of; ``classes``: of its logits.
    :param about: of :func:`identity`.
    :param epochs, objective: see :func:`logitstore.training.loop.fit`.
    :param loop: what :class:`logitstore.training.loop.FitOptions` has beside the options that all trainings share.
    :param measures: taken every ``every`` epochs and at the end, of the first of several processes.
    :param final: taken once, of the model that is kept and of the first process, for ``agreement`` of ``run.json``.
    :param more: further keys of ``run.json``. :param notes: lines to print, made when the training is done.
    """

    options: LoopOptions
    out: str
    model: Tagger
    model_name: str
    model_args: Mapping[str, Any]
    classes: Sequence[str]
    about: dict[str, Any]
    epochs: Callable[[int], Epoch]
    objective: Objective
    loop: Mapping[str, Any] = field(default_factory=dict)
    measures: Sequence[Measure] = ()
    every: int = 1
    final: Measure | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    notes: Callable[[], tuple[str, ...]] = tuple


def resolve(options: Options, model_name: str, steps: int, **data: Any) -> Options:
    """The options with what data and model decide in the place of None, so that they say all of it.

    :param steps: of the whole training. :param data: further fields that the data decides.
    :raises RunError: a warm-up or a precision that cannot be. :raises UsageError: a device that is not there.
    """
    device = pick_device(options.device)
    own = torch.device(own_device(device))
    pass_dtype(options.precision, own)
    require_optimizer(options.optimizer, own)
    defaults = DEFAULTS[_begun_with(options) - 1]
    decay = defaults.weight_decay if options.optimizer == "adamw" else 0.0
    return replace(
        options,
        lr=_rate(options, model_name),
        warm_up=warm_up_of(options, steps, defaults.warm_up),
        floor=defaults.floor if options.floor is None else options.floor,
        weight_decay=decay if options.weight_decay is None else options.weight_decay,
        epochs=None,
        steps=steps,
        device=device,
        **data,
    )


def _rate(options: LoopOptions, model_name: str) -> float:
    """The highest learning rate: as asked, or the net's own, of a run that was begun the one that was its own then."""
    if options.lr is not None:
        return options.lr
    asked = _begun(options).get("options")
    begun = asked.get("lr") if isinstance(asked, dict) else None
    return next((rate for rate in EARLIER_RATES.get(model_name, ()) if rate == begun), default_lr(model_name))


def _begun_with(options: LoopOptions) -> int:
    """The number of the defaults that the run in the folder was begun with; of the newest where there is none."""
    number = _begun(options).get("defaults", 1) if _begun(options) else None
    return number if type(number) is int and 0 < number <= len(DEFAULTS) else len(DEFAULTS)


def _begun(options: LoopOptions) -> dict[str, Any]:
    """What the run in the folder was asked; nothing where there is none, or one that is refused later."""
    try:
        there = load_json(Path(options.run_folder) / OPTIONS_NAME, MOST_BYTES, MOST_VALUES, nan=True)
    except (OSError, ValueError):
        return {}
    return there if isinstance(there, dict) else {}


@contextmanager
def workplace(options: LoopOptions) -> Iterator[tuple[ThreadPoolExecutor, Group]]:
    """Threads that decode, and this process's place among those that train together.

    :param options: of :func:`resolve`.
    """
    with (
        ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "decode") as pool,
        joined(own_device(options.device)) as group,
    ):
        yield pool, group


def identity(
    command: str, options: LoopOptions, places: Sequence[str], processes: int | None = None, **data: Any
) -> dict[str, Any]:
    """What makes a training what it is, as JSON values; an interrupted one goes on only where all of it is the same.

    :param options: of :func:`resolve`; those that change nothing in what is learned are left out.
    :param places: names of the options that say where data lies, which may move. :param processes: how many train.
    :param data: what tells the data from other data, digests above all.
    """
    resolved = asdict(options)
    moved = {name: resolved.pop(name) for name in places}
    for name in INDIFFERENT:
        resolved.pop(name)
    del resolved["pool"]  # which is an argument of the net
    for name in _LATER:
        if resolved.get(name, "") is None:
            del resolved[name]
    together = {} if processes is None else {"processes": processes}
    about = {
        "command": command, "options": resolved, "defaults": _begun_with(options), **together, "places": moved, **data,
        "versions": versions(),
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def train(training: Training, progress: FitProgress, group: Group) -> Trained:
    """Train, or go on from the last checkpoint; nothing where the run is finished.

    :raises RunError: the folder holds another training, or cannot be written; and as
        :func:`logitstore.training.loop.fit`.
    """
    options, model, out = training.options, training.model, training.out
    if options.tensorboard:
        board.require()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    finished = group.by_first(lambda: _begin(training))
    if finished is not None:
        result, agreement = FitResult(**finished["result"]), finished.get("agreement")
        return Trained(out, training.model_name, parameters, result, before=True, agreement=agreement)

    def evaluate(model: Tagger, epoch: int, last: bool) -> dict[str, Any]:
        due = last or (epoch + 1) % training.every == 0
        return {name: value for measure in training.measures if due for name, value in measure(model).items()}

    notes: list[str] = []
    run = Path(out)
    with _Watched(progress, notes, run if options.tensorboard and group.first else None) as watched:
        keep_freed_memory()
        result = fit(
            model,
            replace(
                options.fitting(**training.loop),
                device=own_device(options.device),
                spared=DEFAULTS[training.about["defaults"] - 1].spared,
            ),
            training.epochs,
            training.objective,
            run,
            about=training.about,
            accept=lambda there: _require_same_checkpoint(training, there),
            evaluate=evaluate,
            progress=watched,
            group=group,
        )
    agreement = group.by_first(lambda: _finish(training, result))
    return Trained(out, training.model_name, parameters, result, notes=(*notes, *training.notes()), agreement=agreement)


def _begin(training: Training) -> dict[str, Any] | None:
    """Open the run folder; what ``run.json`` holds if just this training has finished there.

    One that was interrupted goes on from its last checkpoint, or starts over where it had none, and ends as it would
    have.

    :raises RunError: the folder is not empty and not of this training; the differences are shown.
    """
    folder = Path(training.out)
    try:
        if folder.is_dir() and any(not is_partial(path) for path in folder.iterdir()):
            _require_same(folder, training)
            if is_run(folder):
                finished: dict[str, Any] = load_run(folder, student=training.model_name).config
                Checkpoints(folder).remove()
                return finished
        folder.mkdir(parents=True, exist_ok=True)
        clear_partials(folder)
        write_whole(folder / OPTIONS_NAME, (json.dumps(training.about, indent=2) + "\n").encode())
        write_whole(folder / CONFIG_NAME, dump(training.options).encode())
    except OSError as error:
        raise RunError(
            f"run folder {training.out!r} cannot be written: {error.strerror or error}; choose another --out"
        ) from error
    return None


def _finish(training: Training, result: FitResult) -> dict[str, Any] | None:
    """Write the weights and ``run.json``, with what was asked and what came of it; checkpoints go."""
    model = training.model
    doing("measuring what was trained")
    agreement = None if training.final is None else training.final(model)
    extra = {"training": training.about, "result": asdict(result), **training.more}
    extra |= {} if agreement is None else {"agreement": agreement}
    rate = model.front_end.sample_rate
    save_run(training.out, training.model_name, training.model_args, training.classes, model.scores, rate, model, extra)
    Checkpoints(Path(training.out)).remove()
    return agreement


def _require_same_checkpoint(training: Training, there: dict[str, Any]) -> None:
    if changed := _differences(there, training):
        raise RunError(
            f"{str(Path(training.out) / FOLDER)!r} holds a checkpoint of another training ({changed}); remove it, or "
            "give another --out"
        )


def _require_same(folder: Path, training: Training) -> None:
    if not (folder / OPTIONS_NAME).is_file():
        found = sorted(path.name for path in folder.iterdir())[0]
        raise RunError(f"{str(folder)!r} is not empty (it holds {found!r}) and not a training's; {_REMEDY}")
    try:
        there = load_json(folder / OPTIONS_NAME, MOST_BYTES, MOST_VALUES, nan=True)
    except (ValueError, OSError) as error:
        raise RunError(f"{str(folder / OPTIONS_NAME)!r} is damaged ({error}); {_REMEDY}") from error
    if changed := _differences(there, training):
        raise RunError(f"{str(folder)!r} holds another training ({changed}); {_REMEDY}")


def _differences(there: Any, training: Training) -> str:
    """What differs from what is asked, both values shown; empty where nothing does that matters."""
    if isinstance(there, dict) and isinstance(there.get("options"), dict):
        there = there | {"options": training.options.today(there["options"])}
    old, new = _BEFORE | _flat(there), _flat(training.about)
    changed = [
        f"{name}: there {old.get(name)!r}, asked {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(_MAY_DIFFER)
    ]
    more = f"; and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
    return "; ".join(changed[:_MOST_NAMED]) + more


def _flat(document: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(document, dict) or not document:
        return {prefix.rstrip("."): document}
    return {name: value for key, item in document.items() for name, value in _flat(item, f"{prefix}{key}.").items()}


class _Watched:
    """A training's progress, with its notes kept and its log shown in TensorBoard where that is wanted."""

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
