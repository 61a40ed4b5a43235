"""The plan job: what a build of so many clips and views takes, and a training from it, told from rates and sizes.

Rates are those of teachers alone. Bytes, objects and requests are told as ``build --dry-run`` tells them
(``jobs/build/sizes.py``), the memory of a training from what it keeps of each clip.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.errors import UsageError
from logitstore.jobs.build import sizes
from logitstore.jobs.options import PlanOptions
from logitstore.store.format.codec import quantizer
from logitstore.store.format.layout import columns_for
from logitstore.store.shards import default_shard_clips
from logitstore.texts import in_lines, one_line
from logitstore.views.ops import Place
from logitstore.views.recipe import BUILT_IN, masks

if TYPE_CHECKING:
    import torch

    from logitstore.store.summary import Summary
    from logitstore.views.recipe import Masks
    from teachers.ensemble import Ensemble

MEASURED = "measured"
_SECONDS, _BATCH = 3.0, 32  # of a measurement
_LEAST_RATE = 1e-6  # views a second
_RATE = 16_000  # Hz of the views whose draws are counted
#: Bytes that a training keeps of a clip in its own memory: its key, and its place in the view and in the epoch's order.
_KEY_BYTES, _ORDER_BYTES = 50, 12


@dataclass(frozen=True)
class Costs:
    """What was planned.

    ``rates`` are views a second of each teacher on one device, ``device_hours`` of all devices together, ``seconds`` on
    the clock, ``money`` None without a price. ``shared_bytes`` is the file of decoded targets and draws of a training,
    which all processes of a machine share, and ``view_bytes`` what of it an epoch works on: the kernel keeps as much of
    that in memory as there is room for. ``process_bytes`` is what each process of a training has beside it.
    """

    clips: int
    views: int
    clip_seconds: float
    teachers: tuple[str, ...]
    rates: tuple[float, ...]
    devices: int
    seconds: float
    device_hours: float
    money: float | None
    bytes: float
    bytes_a_view: float
    shards: int
    shard_clips: int
    objects: int
    build_requests: int
    verify_requests: int
    open_requests: int
    shared_bytes: int
    view_bytes: int
    process_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def render(self) -> str:
        """The lines that ``logitstore plan`` prints."""
        hours = self.clips * self.clip_seconds / 3600
        said = zip(self.teachers, self.rates, strict=True)
        clock = f" on the clock of {self.devices:,} devices" if self.devices > 1 else ""
        lines = [
            f"clips      {self.clips:,} of {self.clip_seconds:g} s, {hours:,.0f} hours of audio",
            f"views      {self.views:,} each, {self.clips * self.views:,} in all, "
            f"{self.clips * self.views * len(self.teachers):,} forward passes",
            *(f"teacher    {one_line(name)}: {rate:,.1f} views/s" for name, rate in said),
            f"time       {sizes.duration(self.seconds)}{clock}, {self.device_hours:,.1f} device hours",
            *([] if self.money is None else [f"money      {self.money:,.2f}"]),
            f"size       {_bytes(self.bytes)}, {self.bytes_a_view:.1f} bytes a view",
            f"objects    {self.objects:,}, of {self.shards:,} shards of {self.shard_clips:,} clips",
            f"requests   {self.build_requests:,} of a build on an object store, {self.verify_requests:,} to verify, "
            f"{self.open_requests:,} to open",
            f"training   {_bytes(self.process_bytes)} of memory a process, "
            f"{_bytes(self.shared_bytes)} of temporary file, of which an epoch uses {_bytes(self.view_bytes)}",
        ]
        return in_lines(lines)


def plan(options: PlanOptions) -> Costs:
    """What the build of a store takes, and a training from it.

    :raises UsageError: rates that are none, or other than one or one a teacher; no teacher.
    :raises TeacherError: one that is to be measured cannot be loaded. :raises NotAStoreError: ``like`` is no store.
    """
    like = None if options.like is None else _summary(options.like)
    _check(options)
    given = _rates(options)
    clips = round(options.clips)
    place = Place(round(options.clip_seconds * _RATE), _RATE, 1)
    planes = sum(column.planes for column in columns_for(BUILT_IN["ced"].ranges(place)))
    topk, bits, quality = options.topk or 20, options.value_bits or 8, None
    shard_clips = options.shard_clips or default_shard_clips(clips)
    if like is not None:
        topk, bits, quality = like.manifest.topk, like.manifest.value_bits, like.manifest.quality
        planes = sum(column.planes for column in like.manifest.columns)
    each = sizes.view_bytes(topk, bits, planes, quality)
    shards = -(-clips // shard_clips)
    total = clips * options.views
    size = sizes.store_bytes(clips, options.views, shards, each)
    if like is not None and like.bytes_a_view is not None:
        size = like.bytes_a_view * total
    rates = tuple(
        _measured(teacher, options) if rate is None else rate
        for teacher, rate in zip(options.teachers, given, strict=True)
    )
    hours = total * sum(1 / rate for rate in rates) / 3600
    row = topk * (4 if bits > 8 else 3) + planes
    return Costs(
        clips=clips,
        views=options.views,
        clip_seconds=options.clip_seconds,
        teachers=tuple(options.teachers),
        rates=rates,
        devices=options.devices,
        seconds=hours * 3600 / options.devices,
        device_hours=hours,
        money=None if options.price is None else hours * options.price,
        bytes=size,
        bytes_a_view=size / total,
        shards=shards,
        shard_clips=shard_clips,
        objects=sizes.BLOCK_OBJECTS * shards + sizes.STORE_OBJECTS,
        build_requests=sizes.build_requests(shards),
        verify_requests=sizes.verify_requests(shards),
        open_requests=sizes.open_requests(shards),
        shared_bytes=row * total,
        view_bytes=row * clips,
        process_bytes=(_KEY_BYTES + _ORDER_BYTES) * clips,
    )


def _check(options: PlanOptions) -> None:
    """Refuse what no store can be.

    :raises UsageError: such bits; options beside a store that says the same.
    """
    quantizer("sigmoid", options.value_bits or 8)
    for name in ("topk", "value_bits"):
        if options.like is not None and getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is that of the store of --like; leave one of the two out")


def _summary(place: str) -> Summary:
    from logitstore.store.reader import open_store
    from logitstore.store.summary import summarise

    return summarise(open_store(place))


def _rates(options: PlanOptions) -> list[float | None]:
    """Views a second of each teacher; None where it is to be measured."""
    given = [options.rates] if isinstance(options.rates, str) else list(options.rates) or [MEASURED]
    if not options.teachers:
        raise UsageError("a plan needs at least one --teacher, or a name and its --rate")
    if len(given) not in (1, len(options.teachers)):
        raise UsageError(
            f"{len(given)} rates for {len(options.teachers)} teachers; give one --rate for all of them, or one for "
            "each in their order"
        )
    return [_rate(text) for text in (given * len(options.teachers) if len(given) == 1 else given)]


def _rate(text: str) -> float | None:
    if text == MEASURED:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not _LEAST_RATE <= rate < float("inf"):
        raise UsageError(
            f"--rate {text!r} is no number of views a second; give one of at least {_LEAST_RATE:g}, or {MEASURED}"
        )
    return rate


def _measured(spec: str, options: PlanOptions) -> float:
    """Views a second of a teacher on this machine: of noise, under the draws of a recipe that it hears."""
    import torch

    from logitstore.models.machine import pick_device
    from logitstore.views.recipe import draw, fitting
    from teachers.ensemble import load_ensemble

    ensemble = load_ensemble([spec], device=pick_device(options.device))
    samples = round(options.clip_seconds * ensemble.sample_rate)
    recipe = fitting(all(member.contract.takes_masks for member in ensemble.members))
    drawn = draw(
        recipe, seed=0, keys=[(f"{number}", 0, samples) for number in range(_BATCH)], view=0,
        lengths=np.full(_BATCH, samples), place=Place(samples, ensemble.sample_rate, _BATCH), shard_rows=_BATCH,
    )  # fmt: skip
    noise = np.random.default_rng(0).standard_normal((_BATCH, samples)).astype(np.float32) * 0.1
    return rate_of(ensemble, torch.from_numpy(noise), masks(recipe, drawn), _SECONDS, features=False)[0]


def rate_of(
    ensemble: Ensemble, waveforms: torch.Tensor, hidden: Masks | None, seconds: float = 0.0, **asked: Any
) -> tuple[float, Any]:
    """Views a second of an ensemble that is asked about a batch again and again, and what it says of it.

    :param seconds: for so long, and at least once, after once that does not count. :param asked: see its ``outputs``.
    """
    said = ensemble.outputs(waveforms, hidden, **asked)
    began, done = time.perf_counter(), 0
    while not done or time.perf_counter() - began < seconds:
        said = ensemble.outputs(waveforms, hidden, **asked)
        done += len(waveforms)
    return done / (time.perf_counter() - began), said


def _bytes(size: float) -> str:
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size:,.0f} bytes"
