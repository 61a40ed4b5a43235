"""The loop of every training: an optimizer, warm-up and cosine, a log, checkpoints, and one seed.

:func:`fit` takes epochs of batches and an objective, whatever they come from; :class:`_Loop` is the state of a
training, step by step, all of which goes into a checkpoint and comes out of one again. On the CPU the same seed, data,
thread count and versions give the same weights and the same log, bit for bit, whether the training ran in one go or was
killed and started again any number of times.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from logitstore.arrays import I64
from logitstore.audio.ahead import Prefetched
from logitstore.digests import derived_seed
from logitstore.errors import ModelOutputError, RunError
from logitstore.models.tagger import Tagger
from logitstore.training.batches import Batch
from logitstore.training.checkpoints import Checkpoint, Checkpoints, decode, mean_weights
from logitstore.training.optimizers import IN_ORDER, make_optimizer
from logitstore.training.precision import pass_dtype
from logitstore.training.processes import Group
from logitstore.training.runlog import LOG_NAME, RunLog
from logitstore.training.sampling import mix_weights, share
from logitstore.training.schedule import FLOOR, WEIGHT_DECAY, ema_decay, learning_rate, parameter_groups
from logitstore.training.selection import Selection

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

_LOG_STEPS = 10  # losses are fetched from the device this often; every step is in the log
_LEAST_SCALE = 2.0**-16  # of a GradScaler, which begins at 2**16 and halves it at every step that it leaves out
_CHECKPOINT_SHARE = 0.05  # checkpoints at the ends of epochs take no more than this share of the time
#: What a loop counts, by the name of its attribute: plain values.
_COUNTERS = (
    "done", "clips", "epoch", "position", "epoch_clips", "epoch_losses", "last", "metrics", "over",
)  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """What an objective gives: ``total``, a float32 scalar to differentiate, and its ``terms`` by name, unweighted and
    detached, which the log has."""

    total: torch.Tensor
    terms: dict[str, torch.Tensor]


#: (logits, frames, batch, mix=…, gather=…) to the loss of a batch, on the model's device: ``logits`` (B, C), ``frames``
#: (B, T, D), ``mix`` float32 (B,) or None, ``gather`` of :meth:`logitstore.training.processes.Group.gatherer`; with
#: ``by_frame`` of :class:`FitOptions` also ``frame_logits`` (B, T, C).
Objective = Callable[..., Loss]
#: (model in eval mode, epoch, whether it is the last) to metrics, empty where none are to be taken; epoch -1 for the
#: weights kept at the end.
Evaluate = Callable[[Tagger, int, bool], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to train.

    :param steps: of the optimiser. :param lr: the highest learning rate. :param warm_up: steps, None for the default;
        ``floor``, ``cosine``: see :func:`logitstore.training.schedule.learning_rate`.
    :param optimizer: see :func:`logitstore.training.optimizers.make_optimizer`.
    :param weight_decay, spared: see :func:`logitstore.training.schedule.parameter_groups`.
    :param precision: see :mod:`logitstore.training.precision`.
    :param accumulate: how many parts a batch goes through the model in, for less memory.
    :param clip_norm: gradients are scaled down to this norm where theirs is larger; None for never.
    :param ema: decay of the averaged weights, which then are what is measured and kept; None for none.
    :param freeze_bn: whether BatchNorm layers use and keep the statistics that they have.
    :param mixup: A of batch mixup, or None.
    :param by_frame: whether the objective is given the model's logits of every frame.
    :param patience, average_best, select_by: see :class:`logitstore.training.selection.Selection`.
    :param checkpoint_every: steps; None for the ends of epochs alone.
    """

    steps: int
    lr: float
    seed: int
    device: str = "cpu"
    warm_up: int | None = None
    floor: float = FLOOR
    cosine: str = "rest"
    optimizer: str = "adamw"
    weight_decay: float = WEIGHT_DECAY
    spared: bool = True
    precision: str = "float32"
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    freeze_bn: bool = False
    mixup: float | None = None
    by_frame: bool = False
    patience: int | None = None
    average_best: int = 0
    select_by: str = "loss"
    checkpoint_every: int | None = None


@dataclass
class FitProgress:
    """What a training reports while it runs; every callback may be left as it is."""

    start: Callable[[int, int], None] = lambda steps, done: None  # done: by the checkpoint that it goes on from
    #: One more step of so many clips; the loss is None until there is one.
    step: Callable[[int, int, float | None], None] = lambda step, clips, loss: None
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
    """One pass over views: its batches as positions in them, how to make a batch, and further fields for its record."""

    plan: Sequence[I64]
    batch: Callable[[I64], Batch]
    described: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    """A step to do, or, without ``batch``, the end of an epoch.

    ``position`` is that of the batch in its epoch's plan, ``counts`` the clips of the batch in each process.
    """

    epoch: int
    position: int
    counts: list[int]
    batch: Batch | None
    described: dict[str, Any]


def fit(
    model: Tagger,
    options: FitOptions,
    epochs: Callable[[int], Epoch],
    objective: Objective,
    run: Path,
    *,
    about: dict[str, Any] | None = None,
    accept: Callable[[dict[str, Any]], None] = lambda about: None,
    evaluate: Evaluate = lambda model, epoch, last: {},
    progress: FitProgress | None = None,
    group: Group | None = None,
) -> FitResult:
    """Train a model in place, from the newest checkpoint in the run folder if there is one.

    It is left in eval mode, on the device, with the weights to keep: the last ones, averaged where ``ema`` says so, or
    the mean of the best evaluations.

    :param epochs: the e-th epoch; asked for until the steps are done, an epoch ending early then.
    :param objective: what is minimised; see :data:`Objective`.
    :param run: the folder for ``log.jsonl`` and checkpoints.
    :param about: what the training is, kept in each checkpoint; ``accept`` is given that of the one found, and raises
        if it is another training's.
    :param evaluate: measures the model; see :data:`Evaluate`. Only the first of several processes is asked.
    :param group: the processes that train together; each plans the same batches and makes its share of each.
    :raises ModelOutputError: the loss, the gradients of many steps or the weights are not finite; the last checkpoint
        stays, and is finite.
    :raises RunError: a checkpoint of another training, or one that cannot be written; too little memory for a step.
    """
    report, group = progress or FitProgress(), group or Group()
    device = torch.device(options.device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(derived_seed("dropout", options.seed, *([group.rank] if group.rank else [])))
        checkpoints = Checkpoints(run)
        found = _newest(checkpoints, group, report)
        if found is not None:
            accept(found.values.get("about", {}))
        loop = _Loop(model, options, objective, run, checkpoints, group, about or {}, report, found)
        with closing(loop):
            report.start(options.steps, loop.done)
            with closing(Prefetched(_items(epochs, options.steps, device, group, loop))) as items:
                for item in items:
                    if item.batch is not None:
                        loop.step(item, item.batch)
                    elif loop.end_epoch(item.epoch, item.described, evaluate):
                        break
            return loop.finish(evaluate)


def _newest(checkpoints: Checkpoints, group: Group, report: FitProgress) -> Checkpoint | None:
    """The newest checkpoint, which the first process reads for all."""
    found, notes = checkpoints.newest() if group.first else (None, ())
    for note in notes:
        report.note(note)
    if group.size == 1:
        return found
    content = group.told_bytes(b"" if found is None else found.content)
    return decode(content) if content else None


def _items(
    epochs: Callable[[int], Epoch], steps: int, device: torch.device, group: Group, start: _Loop
) -> Iterator[_Item]:
    """The steps until they are done, and the end of each epoch, from where a training is.

    :param start: the loop; where it is, is read once, here, as this runs ahead of it.
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
            yield _Item(
                epoch, number, counts if group.size > 1 else [len(batch)],
                batch.pinned() if device.type == "cuda" else batch, now.described,
            )  # fmt: skip
            done, clips = done + 1, clips + len(batch)
        if not clips:
            raise RunError(f"epoch {epoch} has no clip that can be decoded, so there is nothing to train on")
        yield _Item(epoch, len(now.plan), [], None, now.described)
        epoch, position, clips = epoch + 1, 0, 0


class _Loop:
    """A training under way.

    :param found: the checkpoint to go on from, or None.
    """

    def __init__(
        self,
        model: Tagger,
        options: FitOptions,
        objective: Objective,
        run: Path,
        checkpoints: Checkpoints,
        group: Group,
        about: dict[str, Any],
        report: FitProgress,
        found: Checkpoint | None,
    ) -> None:
        self.device = torch.device(options.device)
        memory = torch.contiguous_format if options.optimizer in IN_ORDER else torch.channels_last
        self.model: Tagger = model.to(self.device, memory_format=memory)  # type: ignore[call-overload]
        self.options, self.objective, self.group, self.report = options, objective, group, report
        self.about, self.checkpoints = about, checkpoints
        groups = parameter_groups(model, options.weight_decay, spared=options.spared)
        self.optimizer = make_optimizer(options.optimizer, groups, options.lr, self.device)
        self.dtype = pass_dtype(options.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.averaged: Tagger | None = None if options.ema is None else copy.deepcopy(self.model).eval()
        self.selection = Selection(options.select_by, options.average_best, options.patience)
        self.done = self.clips = self.epoch = self.position = self.epoch_clips = 0
        self.epoch_losses: list[float] = []
        self.last: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.over = False
        self.pending: list[tuple[dict[str, Any], dict[str, torch.Tensor]]] = []
        self.recent: float | None = None  # mean of the losses that were last fetched
        self.before = 0.0  # seconds of the processes that this one goes on from
        self.lines: RunLog | None = None
        self.kept_step: int | None = None  # of the last checkpoint
        place = None if found is None else self._restore(found)
        if group.first:
            self.lines = RunLog(run / LOG_NAME, place)
            self._say_processes(1 if found is None else found.values.get("about", {}).get("processes", 1))
        self.outputs = _Outputs(self.model, options.by_frame)
        self.parallel = None if group.size == 1 else self._parallel()
        self._train()
        self.began = self.epoch_began = self.saved = time.monotonic()
        self.saving = 0.0  # seconds that the last checkpoint took

    def step(self, item: _Item, batch: Batch) -> None:
        """One step of the optimiser, over the whole batch of all processes.

        :raises RunError: the device has too little memory for it.
        """
        try:
            self._step(item, batch)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the device has too little memory for a step of {len(batch)} clips; give --accumulate N for more and "
                "smaller parts, or a smaller --batch-size, and another --out"
            ) from error

    def _step(self, item: _Item, batch: Batch) -> None:
        options, total = self.options, sum(item.counts)
        rate = learning_rate(
            self.done, options.steps, options.lr, warm_up=options.warm_up, floor=options.floor, cosine=options.cosine
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._passes(batch, item.counts, total)
        if options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        record = {"event": "step", "step": self.done, "epoch": item.epoch, "clips": total, "lr": rate}
        self.pending.append((record, terms))
        self.done, self.epoch, self.position = self.done + 1, item.epoch, item.position + 1
        self.clips, self.epoch_clips = self.clips + total, self.epoch_clips + total
        if len(self.pending) >= _LOG_STEPS or self.recent is None:
            self._flush()
        self.report.step(self.done, total, self.recent)
        if options.checkpoint_every is not None and self.done % options.checkpoint_every == 0:
            self._checkpoint()

    def end_epoch(self, epoch: int, described: dict[str, Any], evaluate: Evaluate) -> bool:
        """Log an epoch and measure the model; whether the training is over."""
        self._flush()
        self._require_finite()
        seconds = time.monotonic() - self.epoch_began
        self.last = {
            "event": "epoch",
            "epoch": epoch,
            "step": self.done,
            "clips": self.epoch_clips,
            "loss": math.fsum(self.epoch_losses) / max(1, len(self.epoch_losses)),
        } | described
        speed = {"clips_per_second": round(self.epoch_clips / max(seconds, 1e-9), 1)}
        last = self.done == self.options.steps
        metrics = self.group.by_first(lambda: self._measured(evaluate, epoch, last))
        self._train()
        if metrics:
            self.metrics = metrics
            if self.selection.add(self.done, epoch, metrics) and self.group.first:
                self.checkpoints.save_weights(self.done, _state(self.kept))
        self.last |= metrics
        self._write(self.last)
        self.report.epoch(self.last | speed)
        self.over = last or self.selection.over
        self.epoch, self.position, self.epoch_clips, self.epoch_losses = epoch + 1, 0, 0, []
        due = time.monotonic() - self.saved > self.saving / _CHECKPOINT_SHARE
        if self.group.told(due or self.over):
            self._checkpoint()
        self.epoch_began = time.monotonic()
        return self.over

    def finish(self, evaluate: Evaluate) -> FitResult:
        """Leave the model with the weights to keep, and say what the training came to."""
        best = self.selection.best
        averaged = [{"step": each.step, "epoch": each.epoch, self.selection.by: each.value} for each in best]
        if best and self.group.first:
            _load(self.model, mean_weights([self.checkpoints.weights(each.step) for each in best]))
        elif self.averaged is not None:
            _load(self.model, _state(self.averaged))
        self.model.eval()
        self._require_finite()
        if best:
            metrics = self.group.by_first(lambda: evaluate(self.model, -1, True))
            self.metrics = metrics or self.metrics
            self._write({"event": "kept", "averaged": averaged} | metrics)
        if self.lines is not None:
            self.lines.sync()
        seconds = self.before + time.monotonic() - self.began
        return FitResult(
            steps=self.done,
            epochs=self.epoch,
            seconds=seconds,
            clips_per_second=self.clips / max(seconds, 1e-9),
            loss=float(self.last.get("loss", math.nan)),
            metrics=self.metrics,
            averaged=averaged,
            stopped=self.done < self.options.steps,
        )

    @property
    def kept(self) -> Tagger:
        """The model that is measured and saved: the averaged one, where there is one."""
        return self.model if self.averaged is None else self.averaged

    def close(self) -> None:
        """Close the log, and let go of the processes."""
        self.parallel = None
        if self.lines is not None:
            self.lines.close()

    def _passes(self, batch: Batch, counts: list[int], total: int) -> dict[str, torch.Tensor]:
        """The gradients of a step, its batch in parts; returns the terms of its loss, by its clips' share."""
        own = counts[self.group.rank]
        mix = self._mix(total)
        wanted = [share(own, self.options.accumulate, number) for number in range(self.options.accumulate)]
        wanted = [positions for positions in wanted if len(positions)]
        passes = self.outputs if self.parallel is None else self.parallel
        sums: dict[str, torch.Tensor] = {}
        for number, positions in enumerate(wanted):
            part = (batch if len(wanted) == 1 else batch.part(positions)).to(self.device)
            own_mix = None if mix is None else mix[torch.from_numpy(positions)].to(self.device)
            weight = len(positions) / total
            with self._reduced(number == len(wanted) - 1):
                with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                    logits, frames, *by_frame = passes(part.waveforms, part.masks, own_mix)
                gather, further = self.group.gatherer(counts), dict(zip(["frame_logits"], by_frame, strict=False))
                found = self.objective(logits, frames, part, mix=own_mix, gather=gather, **further)
                value = found.total if weight == 1 else found.total * (weight * self.group.size)
                torch.autograd.backward(self.scaler.scale(value))
            for name, term in {"loss": found.total.detach(), **found.terms}.items():
                term = term if weight == 1 else term * weight
                sums[name] = sums[name] + term if name in sums else term
        return sums

    def _mix(self, total: int) -> torch.Tensor | None:
        """The shares of batch mixup of this process's clips, float32, or None."""
        if self.options.mixup is None:
            return None
        shares = mix_weights(self.options.mixup, self.options.seed, self.done, total)
        return shares[torch.from_numpy(share(total, self.group.size, self.group.rank))]

    def _reduced(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients go between the processes once a step, after its last part."""
        return nullcontext() if self.parallel is None or last else self.parallel.no_sync()

    def _average(self) -> None:
        if self.averaged is None or self.options.ema is None:
            return
        share = 1 - ema_decay(self.options.ema, self.done)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), share)
            for mine, now in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mine.copy_(now)

    def _measured(self, evaluate: Evaluate, epoch: int, last: bool) -> dict[str, Any]:
        return evaluate(self.kept.eval(), epoch, last)

    def _train(self) -> None:
        self.model.train()
        if self.options.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _flush(self) -> None:
        """Fetch the losses of the last steps and log them."""
        if not self.pending:
            return
        names = list(self.pending[0][1])
        fetched = torch.stack([torch.stack([terms[name].float() for name in names]) for _, terms in self.pending])
        losses: list[float] = []
        for (record, _), values in zip(self.pending, self.group.sum(fetched).tolist(), strict=True):
            found = dict(zip(names, values, strict=True))
            self._write(record | {name: value if math.isfinite(value) else None for name, value in found.items()})
            if not math.isfinite(found["loss"]):
                terms = {name: value for name, value in found.items() if name != "loss"}
                wrong = {name: value for name, value in terms.items() if not math.isfinite(value)}
                of = ", ".join(f"{name} {value:g}" for name, value in (wrong or terms).items())
                raise ModelOutputError(
                    f"the loss is {found['loss']:g} at step {record['step']}; {self._remedy(record['lr'])}; its terms "
                    f"there: {of}"
                )
            losses.append(found["loss"])
        if self.lines is not None:
            self.lines.flush()
        self._require_steps()
        self.epoch_losses += losses
        self.recent = math.fsum(losses) / len(losses)
        self.pending.clear()

    def _require_finite(self) -> None:
        """Refuse weights that are not finite, before they are measured or kept.

        The loss of a step is that of the weights before it, so that it says nothing of those after it.
        """
        tensors = self.model.state_dict().values()
        wrong = torch.stack([~tensor.isfinite().all() for tensor in tensors]).sum()
        if int(self.group.sum(wrong)):  # of any process, so that all of them stop
            raise ModelOutputError(f"the weights are not finite after step {self.done - 1}; {self._remedy()}")

    def _require_steps(self) -> None:
        """Refuse to go on where gradients overflow in 16 bits step after step, each of which is then left out."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < _LEAST_SCALE:
            raise ModelOutputError(
                f"the gradients are not finite, and steps up to {self.done - 1} were left out for it; {self._remedy()}"
            )

    def _remedy(self, lr: float | None = None) -> str:
        """What to do about a training that has come to nothing, and what is left of it.

        :param lr: the learning rate where it did.
        """
        was = self.optimizer.param_groups[0]["lr"] if lr is None else lr
        clip = ["give --clip-norm 1"] if self.options.clip_norm is None else []
        other = ["use --precision float32"] if self.dtype is not None else []
        kept = "" if self.kept_step is None else f" (the checkpoint of step {self.kept_step} stays in this one)"
        what = ", ".join([f"lower --lr (it was {was:.2g} there)", *clip, *other])
        return f"{what}, and train in another --out{kept}"

    def _write(self, record: dict[str, Any]) -> None:
        if self.lines is not None:
            self.lines.write(record)
            self.report.log(record)

    def _checkpoint(self) -> None:
        self._flush()
        self._require_finite()
        began = time.monotonic()
        states = self.group.all_of(torch.get_rng_state())
        gpu = self.group.all_of(torch.cuda.get_rng_state(self.device)) if self.device.type == "cuda" else []
        if self.lines is not None:
            values = {
                "about": self.about,
                "log": self.lines.sync(),
                "seconds": self.before + began - self.began,
                "selection": self.selection.state(),
                **{name: getattr(self, name) for name in _COUNTERS},
            }
            tensors = {
                "model": _state(self.model),
                "averaged": {} if self.averaged is None else _state(self.averaged),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": states,
                "gpu_random": gpu,
            }
            self.checkpoints.save(self.done, values, tensors, [each.step for each in self.selection.best])
        self.kept_step = self.done
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _restore(self, found: Checkpoint) -> dict[str, Any]:
        """Take over a checkpoint; returns the place in the log that it was taken at."""
        values, tensors = json.loads(json.dumps(found.values)), found.tensors
        try:
            _load(self.model, tensors["model"])
            if self.averaged is not None:
                _load(self.averaged, tensors["averaged"])
            self.optimizer.load_state_dict(tensors["optimizer"])
            self.scaler.load_state_dict(tensors["scaler"])
            self.selection.restore(values["selection"])
            for name in _COUNTERS:
                setattr(self, name, values[name])
            self._restore_random(tensors)
            self.before, self.kept_step = values["seconds"], self.done
            place: dict[str, Any] = values["log"]
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(
                f"the newest checkpoint in {str(self.checkpoints.folder)!r} is not one of this training "
                f"({' '.join(str(error).split())[:200]}); remove the run folder, or give another --out"
            ) from error
        return place

    def _say_processes(self, before: int) -> None:
        """Log and say that others train on than did before: the batches stay, and what each draws and measures changes.

        :param before: how many processes the checkpoint is of.
        """
        if self.done and before != self.group.size:
            self._write({"event": "processes", "step": self.done, "before": before, "now": self.group.size})
            self.report.note(
                f"step {self.done:,}: goes on with {_counted(self.group.size)} in the place of {before}; the batches "
                "are the same, and dropout and the statistics of BatchNorm are not what they would have been"
            )

    def _restore_random(self, tensors: Any) -> None:
        """The state of the random numbers of this process; of one that was not there before, a new one."""
        if self.group.rank >= len(tensors["random"]):
            torch.manual_seed(derived_seed("dropout", self.options.seed, self.group.rank, self.done))
            return
        torch.set_rng_state(tensors["random"][self.group.rank])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["gpu_random"][self.group.rank], self.device)

    def _parallel(self) -> DistributedDataParallel:
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.outputs, device_ids=ids)


class _Outputs(nn.Module):
    """A model whose call gives logits and frame features, and ``by_frame`` also the logits of frames; for DDP."""

    def __init__(self, model: Tagger, by_frame: bool) -> None:
        super().__init__()
        self.model, self.by_frame = model, by_frame

    def forward(self, *given: Any) -> tuple[torch.Tensor, ...]:
        if not self.by_frame:
            return self.model.outputs(*given)
        frames = self.model.frame_features(*given)
        logits, frame_logits = self.model.answers_by_frame(frames)
        return logits, frames, frame_logits


def _counted(processes: int) -> str:
    return f"{processes} process{'es' * (processes != 1)}"


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _load(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    model.load_state_dict(state)
