"""The training that teachers and students share: AdamW, warm-up and cosine, a log, checkpoints, and one seed.

On the CPU the same seed, data, thread count and versions give the same weights and the same log, bit for bit, whether
the training ran in one go or was killed and started again any number of times.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from logitstore.arrays import I64
from logitstore.audio.ahead import prefetched
from logitstore.digests import derived_seed
from logitstore.errors import RunError
from logitstore.models.tagger import Tagger
from logitstore.training.batches import Batch
from logitstore.training.checkpoints import Checkpoints, decode
from logitstore.training.processes import Group
from logitstore.training.runlog import LOG_NAME
from logitstore.training.sampling import share
from logitstore.training.schedule import FLOOR, default_lr, learning_rate, parameter_groups

__all__ = [
    "LOG_NAME", "Epoch", "FitOptions", "FitProgress", "FitResult", "default_lr", "fit", "initialised",
    "keep_freed_memory", "learning_rate", "order_generator", "parameter_groups",
]  # fmt: skip

Objective = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to train.

    :param steps: of the optimiser. :param lr: the highest learning rate. :param warm_up: steps, None for the default;
        ``floor``: see :func:`logitstore.training.schedule.learning_rate`.
    :param precision: see :mod:`logitstore.training.precision`.
    :param accumulate: parts that a batch goes through the model in.
    :param clip_norm: the most that the norm of all gradients may be; None for any.
    :param ema: decay of the averaged weights, which then are what is measured and kept; None for none.
    :param freeze_bn: whether BatchNorm layers use and keep the statistics that they have.
    :param mixup: A of batch mixup, or None.
    :param patience, average_best, select_by: see :class:`logitstore.training.selection.Selection`.
    :param checkpoint_every: steps; None for the ends of epochs alone.
    """

    steps: int
    lr: float
    seed: int
    device: str = "cpu"
    warm_up: int | None = None
    floor: float = FLOOR
    precision: str = "float32"
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    freeze_bn: bool = False
    mixup: float | None = None
    patience: int | None = None
    average_best: int = 0
    select_by: str = "loss"
    checkpoint_every: int | None = None


@dataclass
class FitProgress:
    """What a training reports while it runs; every callback may be left as it is."""

    start: Callable[[int, int], None] = lambda steps, done: None  # done: by the checkpoint that it goes on from
    step: Callable[[int, int, float], None] = lambda step, clips, loss: None  # one more step of so many clips
    log: Callable[[dict[str, Any]], None] = lambda record: None  # every record of the log
    epoch: Callable[[dict[str, Any]], None] = lambda record: None  # with ``clips_per_second``, which no log has
    note: Callable[[str], None] = lambda message: None


@dataclass(frozen=True)
class FitResult:
    """What a finished training says of itself.

    ``loss`` is the mean of its last epoch, ``metrics`` those of the weights kept; ``averaged`` the evaluations whose
    weights they are the mean of (empty: the last ones), best first; ``stopped``: early, by ``patience``.
    """

    steps: int
    epochs: int
    seconds: float
    clips_per_second: float
    loss: float
    metrics: dict[str, Any] = field(default_factory=dict)
    averaged: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True)
class Epoch:
    """The batches of an epoch as positions in its views, how to make one, and further fields for its record."""

    plan: Sequence[I64]
    batch: Callable[[I64], Batch]
    described: dict[str, Any] = field(default_factory=dict)


def fit(
    model: Tagger,
    options: FitOptions,
    epochs: Callable[[int], Epoch],
    objective: Objective,
    run: Path,
    *,
    about: dict[str, Any] | None = None,
    accept: Callable[[dict[str, Any]], None] = lambda about: None,
    evaluate: Callable[[Tagger, int, bool], dict[str, Any]] = lambda model, epoch, last: {},
    progress: FitProgress | None = None,
    group: Group | None = None,
) -> FitResult:
    """Train a model in place, from the newest checkpoint in the run folder if there is one.

    It is left in eval mode, on the device, with the weights to keep: the last ones, averaged where ``ema`` says so, or
    the mean of the best evaluations.

    :param epochs: the e-th epoch; asked for until the steps are done, an epoch ending early then.
    :param objective: (logits, frames, batch, mix, gather) to :class:`students.objective.Parts`.
    :param run: the folder for ``log.jsonl`` and checkpoints.
    :param about: what the training is, kept in each checkpoint; ``accept`` is given that of the one found, and raises
        if it is another training's.
    :param evaluate: (model in eval mode, epoch, whether it is the last) to metrics, empty where none are to be taken;
        epoch -1 for the weights kept at the end. Only the first of several processes is asked.
    :param group: the processes that train together; each plans the same batches and makes its share of each.
    :raises ModelOutputError: the loss is not finite.
    :raises RunError: a checkpoint of another training, or one that cannot be written; too little memory for a step.
    """
    from logitstore.training.loop import Loop

    report, group = progress or FitProgress(), group or Group()
    device = torch.device(options.device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(_dropout_seed(options.seed, group.rank))
        checkpoints = Checkpoints(run)
        found = _newest(checkpoints, group, report)
        if found is not None:
            accept(found.values["about"])
        loop = Loop(model, options, objective, run, checkpoints, group, about or {}, report, found)
        with closing(loop):
            report.start(options.steps, loop.done)
            with closing(prefetched(_stream(epochs, options.steps, device, group, loop))) as items:
                for item in items:
                    if item.batch is not None:
                        _step(loop, item, item.batch)
                    elif loop.end_epoch(item.epoch, item.described, evaluate):
                        break
            return loop.finish(evaluate)


@dataclass(frozen=True)
class Item:
    """A step to do, or, without ``batch``, the end of an epoch.

    ``position`` is that of the batch in its epoch's plan, ``counts`` the clips of the batch in each process.
    """

    epoch: int
    position: int
    counts: list[int]
    batch: Batch | None
    described: dict[str, Any]


def initialised(build: Callable[[], Tagger], seed: int) -> Tagger:
    """A model whose random weights depend on the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        return build()


def order_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator that decides the order of an epoch, whatever came before it."""
    return torch.Generator().manual_seed(derived_seed("order", seed, epoch))


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees for the next one: page faults are dear, and steps are all alike.

    For a process that does nothing but train. Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    libc = ctypes.CDLL(None)
    for parameter, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_arena_max, 1)):
        libc.mallopt(parameter, value)


def _step(loop: Any, item: Item, batch: Batch) -> None:
    try:
        loop.step(item, batch)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the device has too little memory for a step of {len(batch)} clips; give --accumulate N for more and "
            "smaller parts, or a smaller --batch-size, and another --out"
        ) from error


def _dropout_seed(seed: int, rank: int) -> int:
    return derived_seed("dropout", seed, *([rank] if rank else []))


def _newest(checkpoints: Checkpoints, group: Group, report: FitProgress) -> Any:
    """The newest checkpoint, which the first process reads for all."""
    found, notes = checkpoints.newest() if group.first else (None, ())
    for note in notes:
        report.note(note)
    if group.size == 1:
        return found
    content = group.told_bytes(b"" if found is None else found.content)
    return decode(content) if content else None


def _stream(
    epochs: Callable[[int], Epoch], steps: int, device: torch.device, group: Group, start: Any
) -> Iterator[Item]:
    """The steps until they are done, and the end of each epoch, from where a training is.

    :param start: has ``done`` steps, the ``epoch`` it is in, the ``position`` in its plan that comes next, the
        ``epoch_clips`` so far, and whether it is ``over``; read once, here.
    """
    if start.over:
        return
    done, epoch, position, clips = start.done, start.epoch, start.position, start.epoch_clips
    while done < steps or position:  # with a position, the epoch has not ended yet
        now = epochs(epoch)
        for number in range(position, len(now.plan)):
            if done == steps:
                break
            positions = now.plan[number]
            batch = now.batch(positions[share(len(positions), group.size, group.rank)] if group.size > 1 else positions)
            if not len(batch):
                continue
            counts = [len(share(len(positions), group.size, rank)) for rank in range(group.size)]
            yield Item(
                epoch, number, counts if group.size > 1 else [len(batch)],
                batch.pinned() if device.type == "cuda" else batch, now.described,
            )  # fmt: skip
            done, clips = done + 1, clips + len(batch)
        if not clips:
            raise RunError(f"epoch {epoch} has no clip that can be decoded, so there is nothing to train on")
        yield Item(epoch, len(now.plan), [], None, now.described)
        epoch, position, clips = epoch + 1, 0, 0
