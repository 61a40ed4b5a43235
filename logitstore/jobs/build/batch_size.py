"""How many views a batch of a new store has, where that is left to the device: tried out before the first block.

The number is part of the store: a batch never crosses a block, and a store goes on with the batches that it was begun
with. So it is chosen once, with room to spare, and nothing changes it when memory runs short later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logitstore.errors import MemoryShortError, ModelOutputError, UsageError
from logitstore.jobs.options import DEFAULT_BATCH, BuildOptions
from logitstore.launched import processes
from logitstore.notes import doing
from logitstore.views.recipe import Masks

if TYPE_CHECKING:
    from logitstore.store.format.frames import FrameSpec
    from logitstore.store.format.manifest import Manifest
    from teachers.ensemble import Ensemble

_MOST = 4096
_GAIN = 1.02  # a larger batch must be faster by this, once in two doublings, for a still larger one to be tried
_NEAR = 0.97  # of the best rate is as good
_ROUNDS = 2


@dataclass(frozen=True)
class Tried:
    """Batch sizes that fit, with the views a second of each, rising; ``short`` the first that did not fit, or None."""

    rates: dict[int, float]
    short: int | None

    @property
    def chosen(self) -> int:
        """The smallest that is about as fast as any; one of which twice as much fits too, where there is such a one."""
        roomy = list(self.rates)[:-1] if self.short is not None and len(self.rates) > 1 else list(self.rates)
        best = max(self.rates[size] for size in roomy)
        return next(size for size in roomy if self.rates[size] >= _NEAR * best)

    def said(self, device: str) -> str:
        """A line for people."""
        size = self.chosen
        end = f"{self.short} do not fit" if self.short is not None else "larger ones are no faster"
        return (
            f"batches of {size} views, {self.rates[size]:,.0f} views/s on {device}; tried were 1 to "
            f"{max(self.rates)}, and {end}"
        )


def try_sizes(ask: Callable[[int], None], clock: Callable[[], float] = time.perf_counter) -> Tried:
    """Try batches of 1, 2, 4, … views until they are no faster, or do not fit.

    :param ask: asks the teachers about a batch of so many views, and waits for what they say.
    :raises MemoryShortError: not even a view alone fits.
    """
    rates: dict[int, float] = {}
    best, since, size = 0.0, 0, 1
    while size <= _MOST and since < 2:
        try:
            ask(size)  # which warms up
            began = clock()
            for _ in range(_ROUNDS):
                ask(size)
        except (MemoryShortError, ModelOutputError, MemoryError):  # some libraries say it in words of their own
            if not rates:
                raise
            return Tried(rates, size)
        rates[size] = _ROUNDS * size / max(clock() - began, 1e-9)
        since = 0 if rates[size] >= _GAIN * best else since + 1
        best = max(best, rates[size])
        size *= 2
    return Tried(rates, None)


def batch_size_of(
    options: BuildOptions,
    ensemble: Ensemble,
    samples: int,
    stored: Manifest | None,
    *,
    masked: bool,
    frames: FrameSpec | None,
) -> tuple[int, list[str]]:
    """How many views a batch has, and what to say of that.

    :param samples: of a view. :param masked: whether views are masked. :param frames: what a store keeps of when.
    :param stored: the manifest of the store that goes on, whose number it is.
    :raises UsageError: it is to be tried out by several processes, which would find different numbers.
    :raises MemoryShortError: not even a view alone fits.
    """
    if isinstance(options.batch_size, int):
        return options.batch_size, []
    if stored is not None:
        return stored.batch_size, [f"batches of {stored.batch_size} views, which the store was begun with"]
    device = ensemble.device
    cluster = options.engine == "ray" and options.device == "cuda"
    if device.type == "cpu" and not cluster:
        return DEFAULT_BATCH, [f"batches of {DEFAULT_BATCH} views, as --batch-size auto has on a CPU"]
    if processes() > 1 or cluster:
        raise UsageError(
            "--batch-size auto tries out one GPU, and several processes might find several numbers; begin the store "
            "with one process and --shards 0:1, or give a number"
        )
    import torch

    doing("trying how many views go through the teachers at a time")
    noise = np.random.default_rng(0)

    def ask(views: int) -> None:
        waveforms = torch.from_numpy(0.1 * noise.standard_normal((views, samples), np.float32))
        masks = Masks(*(np.zeros(views) for _ in range(4))) if masked else None  # which hide nothing
        by_rate = ensemble.at_rates(waveforms)
        said = ensemble.outputs(
            waveforms, masks, features=options.relations is not None, frames=frames, by_rate=by_rate
        )
        said.probabilities.cpu()  # which waits for the GPU

    tried = try_sizes(ask)
    torch.cuda.empty_cache()
    return tried.chosen, [tried.said(str(device))]
