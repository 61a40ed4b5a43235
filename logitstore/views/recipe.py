"""Recipes and draws: which augmentations a view can have, and the integers that say which it has.

A recipe is a list of ops with ranges. A draw is a row of integers that depends only on (store seed, clip key, view,
position of the op in the recipe), through a counter-based generator; see ``philox.py``. The integers are stored, so
that a view can be replayed from them alone.

=================  ==========================================================================================
draw column        meaning; ranges are half-open
=================  ==========================================================================================
roll               samples at the store's rate, signed: ``out[i] = in[(i - roll) mod n]``
gain_cdb           gain in 1/100 dB
mixup_partner      row of the partner within the clip's shard
mixup_weight       the partner's share in 1/1024; 0 where nothing is mixed
noise_snr_cdb      signal-to-noise ratio in 1/100 dB; 0 where there is no noise
noise_key          key of the noise in [1, 2**32); 0 where there is no noise
time_start         start of the masked span of time in ticks of 10 ms; 0 where nothing is masked
time_length        its length in ticks; 0 where nothing is masked
freq_low           lower end of the masked band in 1/64 of the HTK-mel axis from the op's ``min_hz`` to ``max_hz``
freq_steps         its width in the same steps; 0 where nothing is masked
=================  ==========================================================================================
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import I64
from logitstore.errors import RecipeError, UsageError
from logitstore.views.ops import (
    MEL_STEPS,
    OPS,
    TICKS_PER_SECOND,
    FrequencyMask,
    Mixup,
    Op,
    Place,
    Roll,
    TimeMask,
    Words,
    mel_step_hz,
)
from logitstore.views.philox import philox4x32, split64

if TYPE_CHECKING:
    import torch


#: What PyYAML lets out besides its own errors: of impossible dates and numbers, wrong tags, deep nesting.
_YAML_ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Draws:
    """The drawn integers of n views: ``columns[name]`` is int64 (n,), one entry a column of the recipe."""

    columns: dict[str, I64]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: Any) -> Draws:
        """The draws of some rows: an index array or a slice."""
        return Draws({name: values[rows] for name, values in self.columns.items()})


@dataclass(frozen=True)
class Masks:
    """Spans that front ends hide, four float64 arrays of shape (B,), NumPy or torch.

    ``time_start``, ``time_end`` in seconds from the start of the view; ``freq_low``, ``freq_high`` in Hz. Half-open;
    equal ends where nothing is masked. A frame or a band is masked when its centre lies in the span.
    """

    time_start: Any
    time_end: Any
    freq_low: Any
    freq_high: Any

    def __len__(self) -> int:
        return len(self.time_start)

    def __getitem__(self, rows: Any) -> Masks:
        return Masks(self.time_start[rows], self.time_end[rows], self.freq_low[rows], self.freq_high[rows])

    def to(self, device: str | torch.device) -> Masks:
        """The same spans as float64 torch tensors on a device."""
        import torch

        return Masks(
            *(torch.as_tensor(span, dtype=torch.float64).to(device)
              for span in (self.time_start, self.time_end, self.freq_low, self.freq_high))
        )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """An augmentation pipeline: ops in the order in which they act, waveform ops before spectrogram ops."""

    name: str
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        masked = ""
        for op in self.ops:
            if op.name in seen:
                raise RecipeError(f"recipe {self.name!r}: the op {op.name!r} occurs twice; each op may occur once")
            if masked and not op.spectrogram:
                raise RecipeError(
                    f"recipe {self.name!r}: waveform op {op.name!r} stands after {masked!r}; waveform ops come first"
                )
            seen.add(op.name)
            masked = op.name if op.spectrogram else masked

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the draw columns, in the order of the ops."""
        return tuple(column for op in self.ops for column in op.columns)

    @property
    def spectrogram_ops(self) -> tuple[Op, ...]:
        """The ops that act on spectrograms, and so need a front end that takes masks."""
        return tuple(op for op in self.ops if op.spectrogram)

    @property
    def has_mixup(self) -> bool:
        """Whether a view can hold a second clip."""
        return any(isinstance(op, Mixup) for op in self.ops)

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        """Half-open bounds of every draw column in a store of this clip length, rate and shard size."""
        return {column: bounds for op in self.ops for column, bounds in op.ranges(place).items()}

    def check(self, place: Place) -> None:
        """Refuse a recipe whose ranges cannot be drawn for clips of this length."""
        for op in self.ops:
            op.check(place)

    def to_dict(self) -> dict[str, Any]:
        """Name and every parameter of every op, as plain JSON values; the inverse of :func:`parse_recipe`."""
        return {"name": self.name, "ops": [op.to_dict() for op in self.ops]}


CED = Recipe(
    "ced",
    (
        Roll(probability=0.5, max_fraction=0.5),
        TimeMask(max_seconds=1.92),
        FrequencyMask(max_steps=24, min_hz=0.0, max_hz=8000.0),
    ),
)
NONE = Recipe("none", ())
BUILT_IN = {recipe.name: recipe for recipe in (CED, NONE)}


def load_recipe(name_or_path: str) -> Recipe:
    """A built-in recipe by its name (``ced``, ``none``), or one read from a YAML file.

    :raises RecipeError: unknown name, unreadable file, unknown op or parameter, a range upside down.
    """
    from pathlib import Path

    import yaml

    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise RecipeError(f"no recipe {name_or_path!r}: give a YAML file or one of {', '.join(sorted(BUILT_IN))}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, *_YAML_ERRORS) as error:
        raise RecipeError(f"recipe {name_or_path!r} is not readable YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(document, default_name=path.stem)


def parse_recipe(document: Any, default_name: str = "recipe") -> Recipe:
    """A recipe from ``{"name": …, "ops": [{"op": …, parameter: …}, …]}`` or from the list of ops alone.

    :raises RecipeError: anything else; the message names the op, the parameter and what is allowed.
    """
    if isinstance(document, list):
        document = {"ops": document}
    if not isinstance(document, dict) or not isinstance(document.get("ops"), list):
        raise RecipeError(f"recipe {default_name!r} has no list `ops`; it needs `ops:` and one `- op: NAME` an op")
    unknown = sorted(str(key) for key in set(document) - {"name", "ops"})
    if unknown:
        raise RecipeError(f"recipe {default_name!r}: unknown key {unknown[0]!r}; allowed are name, ops")
    name = str(document.get("name", default_name))
    ops = []
    for position, item in enumerate(document["ops"]):
        if not isinstance(item, dict) or "op" not in item:
            raise RecipeError(f"recipe {name!r}: entry {position + 1} of ops is not of the form `- op: NAME`")
        kind = OPS.get(str(item["op"]))
        if kind is None:
            raise RecipeError(f"recipe {name!r}: unknown op {item['op']!r}; allowed are {', '.join(OPS)}")
        ops.append(kind.parse(name, {key: value for key, value in item.items() if key != "op"}))
    return Recipe(name, tuple(ops))


def clip_key(path: str, start: int, length: int) -> int:
    """64 bits that stand for a clip: BLAKE2b of the path in UTF-8, a zero byte, start and length as int64 LE."""
    content = path.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<qq", start, length)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def draw(
    recipe: Recipe,
    *,
    seed: int,
    keys: Sequence[tuple[str, int, int]],
    view: int | I64,
    lengths: I64,
    place: Place,
    rows: I64 | None = None,
    shard_rows: int = 1,
) -> Draws:
    """The draws of n clips of one shard.

    :param seed: the store's seed in [0, 2**64).
    :param keys: n clip keys (path, start, length), start and length in the file's own sample frames.
    :param view: the view of every row, an integer or int64 (n,).
    :param lengths: int64 (n,), the clips' own lengths in samples at the store's rate, before padding.
    :param place: clip length and rate of the store.
    :param rows: int64 (n,), the clips' rows within their shard; used by mixup. The first n rows by default.
    :param shard_rows: number of rows of the shard; used by mixup.
    """
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} is out of range; allowed are 0 to 2**64 - 1")
    clip_low, clip_high = split64(np.array([clip_key(*key) for key in keys], dtype=np.uint64))
    views = np.broadcast_to(np.asarray(view, dtype=np.uint64), clip_low.shape)
    row_numbers = np.arange(len(keys), dtype=np.int64) if rows is None else rows
    columns: dict[str, I64] = {}
    for position, op in enumerate(recipe.ops):
        words = philox4x32((clip_low, clip_high, views, position), split64(seed))
        columns |= op.draw(Words(*words), lengths=lengths, rows=row_numbers, shard_rows=shard_rows, place=place)
    return Draws(columns)


def masks(recipe: Recipe, draws: Draws) -> Masks | None:
    """The spans that the draws hide, in seconds and Hz; None where the recipe has no spectrogram op."""
    if not recipe.spectrogram_ops:
        return None
    nothing = np.zeros(len(draws), dtype=np.float64)
    time_start = time_end = freq_low = freq_high = nothing
    for op in recipe.spectrogram_ops:
        if isinstance(op, FrequencyMask):
            axis = mel_step_hz(np.arange(MEL_STEPS + 1), op.min_hz, op.max_hz)
            low, steps = draws.columns["freq_low"], draws.columns["freq_steps"]
            freq_low, freq_high = axis[low], axis[low + steps]
        else:
            start, length = draws.columns["time_start"], draws.columns["time_length"]
            time_start, time_end = start / TICKS_PER_SECOND, (start + length) / TICKS_PER_SECOND
    return Masks(time_start, time_end, freq_low, freq_high)
