"""The state of a training, step by step: everything in it goes into a checkpoint and comes out of one again."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from logitstore.errors import ModelOutputError
from logitstore.models.tagger import Tagger
from logitstore.training.batches import Batch
from logitstore.training.checkpoints import Checkpoint, Checkpoints, mean_weights
from logitstore.training.fit import FitOptions, FitProgress, FitResult, Item, Objective
from logitstore.training.precision import pass_dtype
from logitstore.training.processes import Group
from logitstore.training.runlog import LOG_NAME, RunLog
from logitstore.training.sampling import mix_weights, share
from logitstore.training.schedule import ema_decay, learning_rate, parameter_groups
from logitstore.training.selection import Selection

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

Evaluate = Callable[[Tagger, int, bool], dict[str, Any]]

_LOG_STEPS = 10  # losses are fetched from the device this often; every step is in the log
_CHECKPOINT_SHARE = 0.05  # checkpoints at the ends of epochs take no more than this share of the time


class Loop:
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
        self.model: Tagger = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options, self.objective, self.group, self.report = options, objective, group, report
        self.about, self.checkpoints = about, checkpoints
        self.optimizer = torch.optim.AdamW(parameter_groups(model), lr=options.lr, fused=self.device.type == "cuda")
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
        self.recent = math.nan  # mean of the losses that were last fetched
        self.before = 0.0  # seconds of the processes that this one goes on from
        self.lines: RunLog | None = None
        place = None if found is None else self._restore(found)
        if group.first:
            self.lines = RunLog(run / LOG_NAME, place)
        self.parallel = None if group.size == 1 else self._parallel()
        self._train()
        self.began = self.epoch_began = self.saved = time.monotonic()
        self.saving = 0.0  # seconds that the last checkpoint took

    def step(self, item: Item, batch: Batch) -> None:
        """One step of the optimiser, over the whole batch of all processes."""
        options, total = self.options, sum(item.counts)
        rate = learning_rate(self.done, options.steps, options.lr, warm_up=options.warm_up, floor=options.floor)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._passes(batch, item.counts, total)
        if options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        record = {"event": "step", "step": self.done, "epoch": item.epoch, "clips": total, "lr": rate}
        self.pending.append((record, parts))
        self.done, self.epoch, self.position = self.done + 1, item.epoch, item.position + 1
        self.clips, self.epoch_clips = self.clips + total, self.epoch_clips + total
        if len(self.pending) >= _LOG_STEPS:
            self._flush()
        self.report.step(self.done, total, self.recent)
        if options.checkpoint_every is not None and self.done % options.checkpoint_every == 0:
            self._checkpoint()

    def end_epoch(self, epoch: int, described: dict[str, Any], evaluate: Evaluate) -> bool:
        """Log an epoch and measure the model; whether the training is over."""
        self._flush()
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
        passes = self.model.outputs if self.parallel is None else self.parallel
        sums: dict[str, torch.Tensor] = {}
        for number, positions in enumerate(wanted):
            part = (batch if len(wanted) == 1 else batch.part(positions)).to(self.device)
            own_mix = None if mix is None else mix[torch.from_numpy(positions)].to(self.device)
            weight = len(positions) / total
            with self._reduced(number == len(wanted) - 1):
                with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                    logits, frames = passes(part.waveforms, part.masks, own_mix)
                found = self.objective(logits, frames, part, mix=own_mix, gather=self.group.gatherer(counts))
                value = found.total if weight == 1 else found.total * (weight * self.group.size)
                torch.autograd.backward(self.scaler.scale(value))
            for name, term in {"loss": found.total.detach(), **found.parts}.items():
                term = term if weight == 1 else term * weight
                sums[name] = sums[name] + term if name in sums else term
        return sums

    def _mix(self, total: int) -> torch.Tensor | None:
        """The shares of batch mixup of this process's clips, float32, or None."""
        if self.options.mixup is None:
            return None
        shares = mix_weights(self.options.mixup, self.options.seed, self.done, total)
        return shares[torch.from_numpy(share(total, self.group.size, self.group.rank))]

    def _reduced(self, last: bool) -> Any:
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
            finite = math.isfinite(found["loss"])
            self._write(record | {name: value if math.isfinite(value) else None for name, value in found.items()})
            if not finite:
                other = ", or use --precision float32" if self.dtype is not None else ""
                raise ModelOutputError(
                    f"the loss is {found['loss']} at step {record['step']}; lower --lr (it was {record['lr']:.2g} "
                    f"there){other}"
                )
            losses.append(found["loss"])
        if self.lines is not None:
            self.lines.flush()
        self.epoch_losses += losses
        self.recent = math.fsum(losses) / len(losses)
        self.pending.clear()

    def _require_finite(self) -> None:
        """The loss of a step is that of the weights before it, so the last step's weights are looked at themselves."""
        if not all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values()):
            raise ModelOutputError(f"the weights are not finite after step {self.done - 1}; lower --lr")

    def _write(self, record: dict[str, Any]) -> None:
        if self.lines is not None:
            self.lines.write(record)
            self.report.log(record)

    def _checkpoint(self) -> None:
        self._flush()
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
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _restore(self, found: Checkpoint) -> dict[str, Any]:
        """Take over a checkpoint; returns the place in the log that it was taken at."""
        values, tensors = json.loads(json.dumps(found.values)), found.tensors
        _load(self.model, tensors["model"])
        if self.averaged is not None:
            _load(self.averaged, tensors["averaged"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scaler.load_state_dict(tensors["scaler"])
        torch.set_rng_state(tensors["random"][self.group.rank])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["gpu_random"][self.group.rank], self.device)
        self.selection.restore(values["selection"])
        for name in _COUNTERS:
            setattr(self, name, values[name])
        self.before = values["seconds"]
        place: dict[str, Any] = values["log"]
        return place

    def _parallel(self) -> DistributedDataParallel:
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(_Outputs(self.model), device_ids=ids)


#: What a loop counts, by the name of its attribute: plain values.
_COUNTERS = (
    "done", "clips", "epoch", "position", "epoch_clips", "epoch_losses", "last", "metrics", "over",
)  # fmt: skip


class _Outputs(nn.Module):
    """A model whose call gives logits and frame features, as DDP wants it."""

    def __init__(self, model: Tagger) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.outputs(*given)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _load(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    model.load_state_dict(state)
