"""What every op is: parameters with their limits, and how four random words become the integers of a draw.

Word 0 of an op's words decides whether the op acts at all, words 1 to 3 its parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from logitstore.arrays import F32, F64, I64, U32, Bool
from logitstore.errors import RecipeError
from logitstore.texts import shown

TICKS_PER_SECOND = 100
TICK_MS = 1000 // TICKS_PER_SECOND
_LARGEST = 1e15  # that a parameter may be
MEL_STEPS = 64
WEIGHT_UNIT = 1024
DB_UNIT = 100

#: Every op by its name; see the package for how one gets here.
OPS: dict[str, type[Op]] = {}

#: Drawn integers by column, int64, all of one shape.
Columns: TypeAlias = Mapping[str, I64]


class Words(NamedTuple):
    """Four uint32 arrays (n,) of one op."""

    w0: U32
    w1: U32
    w2: U32
    w3: U32


@dataclass(frozen=True)
class Place:
    """What bounds the draws of a store: its view length (samples), its rate (Hz), the clips of a full shard."""

    clip_samples: int
    sample_rate: int
    shard_clips: int = 1

    @property
    def ticks(self) -> int:
        """Whole 10 ms ticks of a view."""
        return self.clip_samples * TICKS_PER_SECOND // self.sample_rate


@dataclass(frozen=True)
class Clips:
    """The n clips of one shard that an op draws for.

    :param lengths: int64 (n,), their own lengths in samples at the store's rate, before padding.
    :param rows: int64 (n,), their rows within the shard.
    :param shard_rows: number of rows of the shard.
    """

    lengths: I64
    rows: I64
    shard_rows: int
    place: Place


@dataclass(frozen=True)
class SqlColumn:
    """How SQL's table ``views`` shows what an op drew.

    :param name: of the column. :param doc: what it says, with its unit.
    :param values: drawn integers (n,) to what is shown (n,), whose dtype is the column's.
    :param null: drawn integers (n,) to where there is nothing to show, bool (n,); nowhere by default.
    :param of_shard: whether the values are rows of the clip's shard; SQL then shows clips.
    """

    name: str
    doc: str
    values: Callable[[Columns], Any]
    null: Callable[[Columns], Bool] | None = None
    of_shard: bool = False


def hz_to_mel(hz: Any) -> Any:
    """HTK mel of a frequency in Hz: 2595 log10(1 + f / 700), float64."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def mel_to_hz(mel: Any) -> Any:
    """Frequency in Hz of an HTK mel, float64; the inverse of :func:`hz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def mel_step_hz(steps: Any, min_hz: float, max_hz: float) -> F64:
    """Frequency in Hz, float64, of positions in 1/64 of the HTK-mel axis from ``min_hz`` to ``max_hz``."""
    low, high = hz_to_mel(min_hz), hz_to_mel(max_hz)
    return np.asarray(mel_to_hz(low + (high - low) * np.asarray(steps, dtype=np.float64) / MEL_STEPS))


@dataclass(frozen=True, kw_only=True)
class Op(ABC):
    """One augmentation. Every parameter is a field, so an op is its name and its fields.

    A subclass of :class:`WaveformOp` or of :class:`SpectrogramOp`, a frozen dataclass with keywords only, says in
    ``name`` what recipes call it and in ``columns`` which integers it draws, with what each means.
    """

    name: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    #: Whether it hides a part of the spectrogram, so that only teachers that take masks hear it.
    spectrogram: ClassVar[bool]
    #: Whether it mixes in a second clip of the shard; it then has partners, shares and a way to do without.
    mixes: ClassVar[bool] = False

    probability: float = 1.0

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" not in vars(cls):
            return
        taken = OPS.setdefault(cls.name, cls)
        if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise RecipeError(
                f"two ops are named {cls.name!r}: {taken.__module__}.{taken.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one"
            )
        OPS[cls.name] = cls

    def __post_init__(self) -> None:
        self._in_range("probability", 0.0, 1.0)

    @classmethod
    def parse(cls, recipe: str, parameters: dict[str, Any]) -> Self:
        """An op from the parameters of a recipe file.

        :raises RecipeError: an unknown parameter, or a value that is no number or out of range.
        """
        allowed = {field.name: field.type for field in fields(cls)}
        for key, value in parameters.items():
            if key not in allowed:
                raise RecipeError(
                    f"recipe {recipe!r}: op {cls.name!r} has no parameter {key!r}; allowed are {', '.join(allowed)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RecipeError(f"recipe {recipe!r}: {cls.name}.{key} is {shown(value)}; it must be a number")
            if not abs(value) <= _LARGEST:
                raise RecipeError(
                    f"recipe {recipe!r}: {cls.name}.{key} is {shown(value)}; it must be a number up to {_LARGEST:g}"
                )
            if allowed[key] in ("int", int) and value != int(value):
                raise RecipeError(f"recipe {recipe!r}: {cls.name}.{key} is {value!r}; it must be a whole number")
        whole = {key for key, kind in allowed.items() if kind in ("int", int)}
        return cls(**{key: int(value) if key in whole else float(value) for key, value in parameters.items()})

    def to_dict(self) -> dict[str, Any]:
        """``{"op": name, parameter: value, …}`` with every parameter, given or default, but for those that are None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"op": self.name} | {name: value for name, value in values.items() if value is not None}

    def fitted(self, place: Place) -> Self:
        """The same op for views of one length, with no parameter left that depends on it; what a manifest holds."""
        return self

    def unshared(self) -> Self:
        """The same op without its bounds that are shares of the view."""
        return self

    @abstractmethod
    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        """Half-open bounds of what the op draws, by column."""

    def imported_ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        """The same of draws that another program made, which may say the same in other numbers."""
        return self.ranges(place)

    @abstractmethod
    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        """The integers of n views, int64 (n,) a column, from n words and nothing else that is random."""

    @abstractmethod
    def sql_columns(self) -> tuple[SqlColumn, ...]:
        """What SQL shows of the drawn integers, in plain units."""

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str] | None:
        """How much it does to each of n views, float64 (n,) from 0, and in what unit; None where no number says so.

        What survives an op is told by it: whether it matters to teachers how much the op does.
        """
        return None

    def check(self, place: Place) -> None:
        """Refuse ranges that do not fit the length of a view; most ops fit any.

        :raises RecipeError: they do not.
        """
        return

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        """Where stored integers cannot be, though each lies within its own range: bool by column.

        :param draws: of this op, of any one shape. :param rows: each one's row within its shard, to broadcast with
            them. :param shard_rows: number of rows of the shard.
        """
        return {}

    # of ops that mix

    def partners(self, draws: Columns) -> I64:
        """The row, within its shard, of the clip that each view is mixed with; -1 where it is mixed with none."""
        raise TypeError(f"the op {self.name!r} mixes nothing")

    def partner_shares(self, draws: Columns) -> F32:
        """The share of the partner in each view, float32 in [0, 1]; 0 where there is none."""
        raise TypeError(f"the op {self.name!r} mixes nothing")

    def without_partner(self, draws: Columns, where: Bool) -> dict[str, I64]:
        """The same integers with nothing mixed in where so told; new arrays."""
        raise TypeError(f"the op {self.name!r} mixes nothing")

    # what subclasses share

    def _acts(self, words: Words) -> Bool:
        return words.w0.astype(np.uint64) < np.uint64(round(self.probability * 2.0**32))

    def _in_range(self, parameter: str, low: float, high: float, *, open_low: bool = False) -> None:
        value = getattr(self, parameter)
        if not (math.isfinite(value) and (low < value if open_low else low <= value) and value <= high):
            bracket = "(" if open_low else "["
            raise RecipeError(f"op {self.name!r}: {parameter} is {value:g}; allowed is {bracket}{low:g}, {high:g}]")

    def _ordered(self, lower: str, upper: str) -> None:
        low, high = getattr(self, lower), getattr(self, upper)
        if low > high:
            raise RecipeError(
                f"op {self.name!r}: the range is upside down, {lower} {low:g} is above {upper} {high:g}; swap them"
            )


@dataclass(frozen=True, kw_only=True)
class WaveformOp(Op):
    """An op that changes the clip's own samples, before they are padded."""

    spectrogram: ClassVar[bool] = False

    @abstractmethod
    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        """Change B waveforms where they are.

        Element by element, or a copy, so that the others of a batch cannot change a result; what averages over a clip
        is computed for that clip alone. In NumPy, and not in torch, whose threads would be in the way of the teachers'.

        :param waveforms: float32 (B, S) at the store's rate, zero after each clip's own length, and so afterwards.
        :param lengths: int64 (B,), the clips' own lengths in samples. :param draws: int64 (B,) a column.
        :param partners: the decoded clip that each is mixed with, or None where it is mixed with none.
        :param sample_rate: of the views, in Hz.
        """

    def turns(self, draws: Columns) -> I64 | None:
        """Of an op that only turns each clip's own n samples in a circle: by how many, int64 (B,), signed and any size;
        the i-th goes to (i + turn) mod n. So the first op of a recipe is done while samples are put where they belong.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class SpectrogramOp(Op):
    """An op that hides a part of the spectrogram; each front end applies the mask itself."""

    spectrogram: ClassVar[bool] = True
    #: What it hides: a span of time (in seconds) or a band of frequencies (in Hz).
    axis: ClassVar[Literal["time", "frequency"]]

    @abstractmethod
    def mask(self, draws: Columns) -> tuple[F64, F64]:
        """Start and end of what is hidden, float64 (n,) each, in seconds or in Hz, half-open; equal for nothing."""
