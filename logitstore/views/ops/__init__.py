"""The ops of a recipe: parameters with their limits, and how random words become integers.

Word 0 of an op's four random words decides whether the op acts at all, words 1 to 3 its parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F64, I64, U32
from logitstore.errors import RecipeError
from logitstore.views.philox import uniform_integers

TICKS_PER_SECOND = 100
MEL_STEPS = 64
WEIGHT_UNIT = 1024
DB_UNIT = 100


class Words(NamedTuple):
    """Four uint32 arrays (n,) of one op."""

    w0: U32
    w1: U32
    w2: U32
    w3: U32


@dataclass(frozen=True)
class Place:
    """What of a store a draw's ranges depend on: view length (samples), rate (Hz), rows of a full shard."""

    clip_samples: int
    sample_rate: int
    shard_clips: int = 1

    @property
    def ticks(self) -> int:
        """Whole 10 ms ticks of a view."""
        return self.clip_samples * TICKS_PER_SECOND // self.sample_rate


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
class Op:
    """One augmentation. Every parameter is a field, so an op is its name and its fields."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    spectrogram: ClassVar[bool] = False

    probability: float = 1.0

    def __post_init__(self) -> None:
        self._in_range("probability", 0.0, 1.0)

    @classmethod
    def parse(cls, recipe: str, parameters: dict[str, Any]) -> Self:
        """An op from the parameters of a recipe file."""
        allowed = {field.name: field.type for field in fields(cls)}
        for key, value in parameters.items():
            if key not in allowed:
                raise RecipeError(
                    f"recipe {recipe!r}: op {cls.name!r} has no parameter {key!r}; allowed are {', '.join(allowed)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RecipeError(f"recipe {recipe!r}: {cls.name}.{key} is {value!r}; it must be a number")
            if allowed[key] == "int" and value != int(value):
                raise RecipeError(f"recipe {recipe!r}: {cls.name}.{key} is {value!r}; it must be a whole number")
        return cls(**{key: int(value) if allowed[key] == "int" else float(value) for key, value in parameters.items()})

    def to_dict(self) -> dict[str, Any]:
        """``{"op": name, parameter: value, …}`` with every parameter, given or default."""
        return {"op": self.name} | {field.name: getattr(self, field.name) for field in fields(self)}

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        """Half-open bounds of the op's draw columns."""
        raise TypeError(f"{type(self).__name__} is an abstract op")

    def check(self, place: Place) -> None:
        """Refuse ranges that do not fit the view length; most ops fit any."""

    def draw(
        self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place
    ) -> dict[str, I64]:  # fmt: skip
        """Integers of n views; see :func:`logitstore.views.recipe.draw` for the arguments."""
        raise TypeError(f"{type(self).__name__} is an abstract op")

    def _acts(self, words: Words) -> npt.NDArray[np.bool_]:
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
class Roll(Op):
    """Circular shift of the clip's own samples by up to ``max_fraction`` of its length, to either side."""

    name: ClassVar[str] = "roll"
    columns: ClassVar[tuple[str, ...]] = ("roll",)

    max_fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_fraction", 0.0, 1.0, open_low=True)

    def _most(self, lengths: Any) -> Any:
        return np.floor(np.asarray(lengths, dtype=np.float64) * self.max_fraction).astype(np.int64)

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        most = int(self._most(place.clip_samples))
        return {"roll": (-most, most + 1)}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        most = self._most(lengths)
        return {"roll": np.where(self._acts(words), uniform_integers(words.w1, -most, most + 1), 0)}


@dataclass(frozen=True, kw_only=True)
class Gain(Op):
    """A gain between ``min_db`` and ``max_db``, in steps of 0.01 dB."""

    name: ClassVar[str] = "gain"
    columns: ClassVar[tuple[str, ...]] = ("gain_cdb",)

    min_db: float = -6.0
    max_db: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_db", -120.0, 120.0)
        self._in_range("max_db", -120.0, 120.0)
        self._ordered("min_db", "max_db")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_db * DB_UNIT), round(self.max_db * DB_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        low, high = self._bounds()
        return {"gain_cdb": (min(low, 0), max(high, 1))}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        return {"gain_cdb": np.where(self._acts(words), uniform_integers(words.w1, *self._bounds()), 0)}


@dataclass(frozen=True, kw_only=True)
class Mixup(Op):
    """A second clip of the same shard, unaugmented: ``(1 - w) * clip + w * partner``, looped or cut to its length.

    w is uniform over [``min_weight``, ``max_weight``] in steps of 1/1024 and is the partner's share. Levels are left
    as they are: the sum is convex, so it never clips where neither clip does.
    """

    name: ClassVar[str] = "mixup"
    columns: ClassVar[tuple[str, ...]] = ("mixup_partner", "mixup_weight")

    probability: float = 0.5
    min_weight: float = 0.0
    max_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_weight", 0.0, 1.0)
        self._in_range("max_weight", 0.0, 1.0)
        self._ordered("min_weight", "max_weight")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_weight * WEIGHT_UNIT), round(self.max_weight * WEIGHT_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"mixup_partner": (0, place.shard_clips), "mixup_weight": (0, self._bounds()[1])}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        acts = self._acts(words) & (shard_rows > 1)
        other = uniform_integers(words.w1, 0, max(shard_rows - 1, 1))
        weight = np.where(acts, uniform_integers(words.w2, *self._bounds()), 0)
        partner = other + (other >= rows)  # any row of the shard but the clip's own
        return {"mixup_partner": np.where(weight > 0, partner, 0), "mixup_weight": weight}


@dataclass(frozen=True, kw_only=True)
class Noise(Op):
    """White noise at a signal-to-noise ratio between ``min_snr_db`` and ``max_snr_db``, in steps of 0.01 dB."""

    name: ClassVar[str] = "noise"
    columns: ClassVar[tuple[str, ...]] = ("noise_snr_cdb", "noise_key")

    probability: float = 0.5
    min_snr_db: float = 10.0
    max_snr_db: float = 40.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_snr_db", -120.0, 120.0)
        self._in_range("max_snr_db", -120.0, 120.0)
        self._ordered("min_snr_db", "max_snr_db")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_snr_db * DB_UNIT), round(self.max_snr_db * DB_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        low, high = self._bounds()
        return {"noise_snr_cdb": (min(low, 0), max(high, 1)), "noise_key": (0, 1 << 32)}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        acts = self._acts(words)
        key = np.maximum(words.w2.astype(np.int64), 1)
        snr = uniform_integers(words.w1, *self._bounds())
        return {"noise_snr_cdb": np.where(acts, snr, 0), "noise_key": np.where(acts, key, 0)}


@dataclass(frozen=True, kw_only=True)
class TimeMask(Op):
    """A span of less than ``max_seconds`` of the view is hidden; its length is uniform, then its place."""

    name: ClassVar[str] = "time_mask"
    columns: ClassVar[tuple[str, ...]] = ("time_start", "time_length")
    spectrogram: ClassVar[bool] = True

    max_seconds: float = 1.92

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_seconds", 1 / TICKS_PER_SECOND, 3600.0)
        ticks = self.max_seconds * TICKS_PER_SECOND
        if abs(ticks - round(ticks)) > 1e-6:
            raise RecipeError(f"op 'time_mask': max_seconds is {self.max_seconds:g}; it must be a multiple of 0.01 s")

    @property
    def max_ticks(self) -> int:
        """``max_seconds`` in ticks of 10 ms."""
        return round(self.max_seconds * TICKS_PER_SECOND)

    def check(self, place: Place) -> None:
        if self.max_ticks > place.ticks:
            raise RecipeError(
                f"op 'time_mask': max_seconds {self.max_seconds:g} is longer than a view of "
                f"{place.ticks / TICKS_PER_SECOND:g} s; make the mask shorter or --clip-seconds longer"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"time_start": (0, place.ticks + 1), "time_length": (0, self.max_ticks)}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        length = np.where(self._acts(words), uniform_integers(words.w1, 0, self.max_ticks), 0)
        start = uniform_integers(words.w2, 0, place.ticks - length + 1)
        start = np.where(length > 0, start, 0)
        return {"time_start": start, "time_length": length}


@dataclass(frozen=True, kw_only=True)
class FrequencyMask(Op):
    """A span of less than ``max_steps`` / 64 of the HTK-mel axis from ``min_hz`` to ``max_hz`` is hidden."""

    name: ClassVar[str] = "frequency_mask"
    columns: ClassVar[tuple[str, ...]] = ("freq_low", "freq_steps")
    spectrogram: ClassVar[bool] = True

    max_steps: int = 24
    min_hz: float = 0.0
    max_hz: float = 8000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_steps", 1, MEL_STEPS)
        self._in_range("min_hz", 0.0, 192000.0)
        self._in_range("max_hz", 0.0, 192000.0)
        if self.min_hz >= self.max_hz:
            raise RecipeError(
                f"op 'frequency_mask': the range is upside down, min_hz {self.min_hz:g} is not below max_hz "
                f"{self.max_hz:g}; swap them"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"freq_low": (0, MEL_STEPS + 1), "freq_steps": (0, self.max_steps)}

    def draw(self, words: Words, *, lengths: I64, rows: I64, shard_rows: int, place: Place) -> dict[str, I64]:
        length = np.where(self._acts(words), uniform_integers(words.w1, 0, self.max_steps), 0)
        start = uniform_integers(words.w2, 0, MEL_STEPS - length + 1)
        start = np.where(length > 0, start, 0)
        return {"freq_low": start, "freq_steps": length}


OPS: dict[str, type[Op]] = {op.name: op for op in (Roll, Gain, Mixup, Noise, TimeMask, FrequencyMask)}
