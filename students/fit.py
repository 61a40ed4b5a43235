"""The training loop that teachers and students share: AdamW, warm-up and cosine, a log, and one seed.

On the CPU the same seed, data, thread count and versions give the same weights, bit for bit.
"""

from __future__ import annotations

import ctypes
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.errors import ModelOutputError, RunError
from logitstore.view.ahead import prefetched
from students.batches import Batch
from students.models.tagger import Tagger
from students.seeds import derived_seed

LOG_NAME = "log.jsonl"

WEIGHT_DECAY = 0.01
#: Learning rate at the last step, as a share of the highest.
FLOOR = 0.01
#: Warm-up takes this share of the steps, and no more steps than this.
WARM_UP_SHARE, MOST_WARM_UP = 0.1, 5000

_LOG_STEPS = 10  # losses are fetched from the device this often; every step is in the log


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to train: number of ``steps``, highest learning rate ``lr``, ``seed``, device, mixed precision."""

    steps: int
    lr: float
    seed: int
    device: str = "cpu"
    amp: bool = False


@dataclass
class FitProgress:
    """What a training reports while it runs; every callback may be left as it is."""

    start: Callable[[int], None] = lambda steps: None
    step: Callable[[int, int, float], None] = lambda step, clips, loss: None  # one more step of so many clips
    epoch: Callable[[dict[str, Any]], None] = lambda record: None
    note: Callable[[str], None] = lambda message: None


@dataclass(frozen=True)
class FitResult:
    """What a finished training says of itself; ``loss`` is the mean of its last epoch, ``metrics`` its last ones."""

    steps: int
    epochs: int
    seconds: float
    clips_per_second: float
    loss: float
    metrics: dict[str, Any] = field(default_factory=dict)


def fit(
    model: Tagger,
    options: FitOptions,
    epochs: Callable[[int], Iterator[Batch]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    log: Path,
    *,
    describe: Callable[[int], dict[str, Any]] = lambda epoch: {},
    evaluate: Callable[[Tagger, int, bool], dict[str, Any]] = lambda model, epoch, last: {},
    progress: FitProgress | None = None,
) -> FitResult:
    """Train a model in place; it is left in eval mode, on the device.

    :param epochs: the batches of the e-th epoch; asked for until the steps are done, an epoch ending early then.
    :param loss: (logits, targets), both (B, C) on the device, to a scalar.
    :param log: a JSONL file, written anew: a record for every step and every epoch.
    :param describe: further fields for the records of an epoch.
    :param evaluate: (model in eval mode, epoch, whether it is the last) to metrics, empty where none are to be taken.
    :raises ModelOutputError: the loss is not finite.
    """
    report = progress or FitProgress()
    device = torch.device(options.device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), log.open("w", encoding="utf-8") as lines:
        torch.manual_seed(derived_seed("dropout", options.seed))
        loop = _Loop(model, options, loss, lines, report, device)
        report.start(options.steps)
        with closing(prefetched(_stream(epochs, options.steps, device))) as batches:
            for epoch, batch in batches:
                if batch is not None:
                    loop.step(batch.to(device), epoch)
                    continue
                loop.end_epoch(epoch, describe(epoch), evaluate)
    model.eval()
    return loop.result()


def initialised(build: Callable[[], Tagger], seed: int) -> Tagger:
    """A model whose random weights depend on the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        return build()


def order_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator that decides the order of an epoch, whatever came before it."""
    return torch.Generator().manual_seed(derived_seed("order", seed, epoch))


def default_lr(model_name: str) -> float:
    """The highest learning rate for a batch of 32, by family and size; CED's own for its transformers."""
    rates = {"cnn4": 5e-3, "ced-small": 3e-4, "ced-base": 3e-4}
    return rates.get(model_name, 1e-3)


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Linear warm-up over the first tenth (at most 5,000 steps), then a cosine down to a hundredth of the highest.

    :param step: in [0, steps).
    """
    warm_up = min(MOST_WARM_UP, math.ceil(WARM_UP_SHARE * steps))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up - 1)
    return highest * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def check_training(batch_size: int, lr: float | None, seed: int, **counts: int | None) -> None:
    """Refuse numbers that no training can use.

    :param counts: options that, where given, are whole numbers of at least 1.
    :raises RunError: naming the option.
    """
    for name, value in {"batch_size": batch_size, **counts}.items():
        if value is not None and value < 1:
            raise RunError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise RunError(f"--lr is {lr:g}; it must be more than 0")
    if not 0 <= seed < 1 << 63:
        raise RunError(f"--seed is {seed}; allowed are 0 to 2**63 - 1")


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


class _Loop:
    """The state of a training: optimiser, counters, and losses that are not yet in the log."""

    def __init__(
        self,
        model: Tagger,
        options: FitOptions,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        lines: Any,
        report: FitProgress,
        device: torch.device,
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.options, self.loss, self.lines, self.report, self.device = options, loss, lines, report, device
        self.optimizer = torch.optim.AdamW(_groups(model), lr=options.lr, fused=device.type == "cuda")
        self.half = _half(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.amp and self.half == torch.float16)
        self.began = self.epoch_began = time.monotonic()
        self.done = self.clips = self.epoch_clips = self.epochs = 0
        self.pending: list[tuple[dict[str, Any], torch.Tensor]] = []
        self.epoch_losses: list[float] = []
        self.recent = math.nan  # mean of the losses that were last fetched
        self.last: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}

    def step(self, batch: Batch, epoch: int) -> None:
        """One step of the optimiser."""
        rate = learning_rate(self.done, self.options.steps, self.options.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.options.amp):
            logits = self.model(batch.waveforms, batch.masks)
        value = self.loss(logits, batch.targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(value))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        record = {"event": "step", "step": self.done, "epoch": epoch, "clips": len(batch), "lr": rate}
        self.pending.append((record, value.detach()))
        self.done += 1
        self.clips += len(batch)
        self.epoch_clips += len(batch)
        if len(self.pending) >= _LOG_STEPS:
            self._flush()
        self.report.step(self.done, len(batch), self.recent)

    def end_epoch(
        self, epoch: int, described: dict[str, Any], evaluate: Callable[[Tagger, int, bool], dict[str, Any]]
    ) -> None:
        """Log an epoch and measure the model."""
        self._flush()
        seconds = time.monotonic() - self.epoch_began
        self.epochs = epoch + 1
        self.last = {
            "event": "epoch",
            "epoch": epoch,
            "step": self.done,
            "clips": self.epoch_clips,
            "loss": math.fsum(self.epoch_losses) / max(1, len(self.epoch_losses)),
            "clips_per_second": round(self.epoch_clips / max(seconds, 1e-9), 1),
        } | described
        self.model.eval()
        metrics = evaluate(self.model, epoch, self.done == self.options.steps)
        self.model.train()
        self.metrics = metrics or self.metrics
        self.last |= metrics
        self.lines.write(json.dumps(self.last) + "\n")
        self.lines.flush()
        self.report.epoch(self.last)
        self.epoch_began, self.epoch_clips, self.epoch_losses = time.monotonic(), 0, []

    def result(self) -> FitResult:
        """What the training came to."""
        seconds = time.monotonic() - self.began
        rate = self.clips / max(seconds, 1e-9)
        return FitResult(self.done, self.epochs, seconds, rate, float(self.last.get("loss", math.nan)), self.metrics)

    def _flush(self) -> None:
        if not self.pending:
            return
        losses = torch.stack([value for _, value in self.pending]).float().tolist()
        for (record, _), value in zip(self.pending, losses, strict=True):
            finite = math.isfinite(value)
            self.lines.write(json.dumps(record | {"loss": value if finite else None}) + "\n")
            if not finite:
                raise ModelOutputError(
                    f"the loss is {value} at step {record['step']}; lower --lr (it was {record['lr']:.2g} there)"
                    + (", or leave --amp out" if self.options.amp else "")
                )
        self.lines.flush()
        self.epoch_losses += losses
        self.recent = math.fsum(losses) / len(losses)
        self.pending.clear()


def _stream(
    epochs: Callable[[int], Iterator[Batch]], steps: int, device: torch.device
) -> Iterator[tuple[int, Batch | None]]:
    """(epoch, batch) until the steps are done, and (epoch, None) after each epoch."""
    done = epoch = 0
    while done < steps:
        before = done
        for batch in epochs(epoch):
            yield epoch, batch.pinned() if device.type == "cuda" else batch
            done += 1
            if done == steps:
                break
        if done == before:
            raise RunError(f"epoch {epoch} has no clip that can be decoded, so there is nothing to train on")
        yield epoch, None
        epoch += 1


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and other vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def _half(device: torch.device) -> torch.dtype:
    """The 16-bit type of a device: bfloat16 where it has it, which needs no scaling of the loss."""
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
