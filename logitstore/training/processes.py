"""Several processes that train one model together, as ``torchrun`` starts them: DDP, gloo on CPUs and nccl on GPUs.

Every process takes its share of every batch (:func:`logitstore.training.sampling.share`). The loss of a share of b of B
clips is weighted by n b / B over n processes, so that DDP's mean of their gradients is that of the whole batch's mean
loss, however uneven the shares. The first process alone writes, logs and evaluates.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed.nn.functional  # imported once there is a process group, as by DDP, its defaults would keep it
from torch import distributed as dist

from logitstore.errors import LogitstoreError, RunError
from logitstore.launched import processes

_TIMEOUT = timedelta(hours=24)  # the others wait while the first one evaluates
_MEETING = timedelta(minutes=10)  # until all are there


@dataclass(frozen=True)
class Group:
    """The processes of a training: ``rank`` of ``size``, and the device of tensors that go between them."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def told(self, value: Any) -> Any:
        """A JSON value that the first process has, in every process."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.first else b""
        return json.loads(self.told_bytes(content))

    def told_bytes(self, content: bytes) -> bytes:
        """Bytes that the first process has, in every process."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)], device=self.device)
        dist.broadcast(length, 0)
        if not int(length):
            return b""
        if self.first:
            values = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)
        else:
            values = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        dist.broadcast(values, 0)
        return values.cpu().numpy().tobytes()

    def by_first(self, work: Callable[[], Any]) -> Any:
        """What a piece of work of the first process gives, a JSON value, in every process; its error too."""
        if self.size == 1:
            return work()
        outcome: dict[str, Any] = {}
        failed: LogitstoreError | None = None
        if self.first:
            try:
                outcome["value"] = work()
            except LogitstoreError as error:
                failed, outcome["error"] = error, str(error)
        outcome = self.told(outcome)
        if failed is not None:
            raise failed
        if "error" in outcome:
            raise RunError(outcome["error"])
        return outcome["value"]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes; it is changed in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_of(self, values: torch.Tensor) -> list[torch.Tensor]:
        """A tensor of one shape of every process, by rank, on the CPU."""
        if self.size == 1:
            return [values.cpu()]
        sent = values.to(self.device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return [each.cpu() for each in received]

    def gatherer(self, counts: list[int]) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Puts tensors (counts[rank], …) of the processes one after the other, differentiably; None in one process.

        Backward, the gradients that every process has for a row are summed: with losses weighted as this module says,
        that is the gradient of the whole batch's loss.
        """
        if self.size == 1:
            return None
        apply: Callable[..., torch.Tensor] = _Gather.apply
        return lambda values: apply(values, counts, self.rank)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, counts: list[int], rank: int) -> torch.Tensor:
        ctx.counts, ctx.rank = counts, rank
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        return torch.cat([each[:count] for each, count in zip(received, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        start = sum(ctx.counts[: ctx.rank])
        return summed[start : start + ctx.counts[ctx.rank]], None, None


def own_device(device: str) -> str:
    """The device of this process: among several on GPUs, each takes the one of its local rank.

    :raises RunError: a single GPU is named for several processes, or there are fewer GPUs than processes.
    """
    if processes() > 1 and device == "auto" and torch.cuda.is_available():
        device = "cuda"
    if processes() == 1 or not device.startswith("cuda"):
        return device
    if ":" in device:
        raise RunError(
            f"--device {device} names one GPU for {processes()} processes; give cuda, and each takes its own"
        )
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise RunError(
            f"process {local} of this machine has no GPU of its own: there are {there}; start fewer processes"
        )
    return f"cuda:{local}"


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """This process's place among those that torchrun started; a group of one without it.

    A process group that the program has made itself is used, and left as it is.

    :param device: of this process; see :func:`own_device`.
    :raises RunError: another process has ended, so that this one cannot go on, or has not come.
    """
    count = processes()
    if count == 1:
        yield Group()
        return
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    rank = int(os.environ["RANK"])
    mine = not dist.is_initialized()
    try:
        if mine:
            made: Any = dist  # whose types leave these two out
            store, _, _ = next(made.rendezvous("env://", timeout=_TIMEOUT))
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # where others' addresses are of another one
            store = made.PrefixStore(f"attempt {attempt}", store)
            _meet(store, rank, count)
            dist.init_process_group(
                "nccl" if place.type == "cuda" else "gloo", timeout=_TIMEOUT, rank=rank, world_size=count, store=store
            )
        yield Group(rank, count, place if place.type == "cuda" else torch.device("cpu"))
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, LogitstoreError) or not _is_lost(error):
            raise
        raise RunError(
            f"process {rank} of {count} has lost another one, which ended or cannot be reached any more "
            f"({str(error).splitlines()[0]}); start the same command again, and it goes on from the last checkpoint"
        ) from error
    finally:
        if mine and dist.is_initialized():
            gc.collect()  # DDP refers to itself, and to the process group, whose threads must end before the program
            dist.destroy_process_group()


def _meet(store: Any, rank: int, count: int) -> None:
    """Wait until all processes of this attempt are there; each says so in the store.

    :raises RunError: one has not come.
    """
    store.set(f"here {rank}", b"1")
    try:
        store.wait([f"here {other}" for other in range(count)], _MEETING)
    except dist.DistStoreError as error:
        raise RunError(
            f"process {rank} of {count} has waited {_MEETING} for the others, and not all came; where torchrun has "
            "started only some machines' processes again, end torchrun on all machines and start the same command again"
        ) from error


def _is_lost(error: Exception) -> bool:
    """Whether an error of a collective says that another process is not there."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text
