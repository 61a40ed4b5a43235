"""Recipes and draws: which augmentations a view can have, and the integers that say which it has.

A recipe is a list of ops with ranges. A draw is a row of integers that depends only on (store seed, clip key, view,
position of the op in the recipe), through a counter-based generator; see ``philox.py``. The integers are stored, so
that a view can be replayed from them alone. What each integer means stands with its op, in ``ops/``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from logitstore.arrays import F32, F64, I64, Bool
from logitstore.digests import small_digest
from logitstore.documents import DocumentError, load_yaml
from logitstore.errors import RecipeError, UsageError
from logitstore.texts import shown
from logitstore.views.ops import OPS, Clips, Op, Place, SpectrogramOp, SqlColumn, Words, find_op
from logitstore.views.ops.band_stop import BandStop
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.gain import Gain
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.silence import Silence
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.philox import philox4x32, split64

if TYPE_CHECKING:
    import torch

AnOp = TypeVar("AnOp", bound=Op)

_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Draws:
    """The drawn integers of n views: ``columns[name]`` is int64 (n,), one entry a column of the recipe."""

    columns: dict[str, I64]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, positions: Any) -> Draws:
        """The draws at some positions: an index array or a slice."""
        return Draws({name: values[positions] for name, values in self.columns.items()})

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """The draws of several parts, at least one, one after the other."""
        return cls({name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns})


@dataclass(frozen=True)
class Masks:
    """What front ends hide of B views, four float64 arrays of shape (B,), NumPy or torch.

    ``time_start``, ``time_end`` in seconds from the start of the view; ``freq_low``, ``freq_high`` in Hz. Half-open;
    equal ends where nothing is masked. A frame or a band is masked when its centre lies between them.
    """

    time_start: Any
    time_end: Any
    freq_low: Any
    freq_high: Any

    def __len__(self) -> int:
        return len(self.time_start)

    def __getitem__(self, positions: Any) -> Masks:
        return Masks(*(ends[positions] for ends in vars(self).values()))

    def to(self, device: str | torch.device) -> Masks:
        """The same masks as float64 torch tensors on a device."""
        import torch

        return Masks(*(torch.as_tensor(ends, dtype=torch.float64).to(device) for ends in vars(self).values()))

    def copy(self) -> Masks:
        """The same masks in arrays of their own."""
        return Masks(*(ends.copy() if isinstance(ends, np.ndarray) else ends.clone() for ends in vars(self).values()))


@dataclass(frozen=True)
class Recipe:
    """An augmentation pipeline: ops in the order in which they act, waveform ops before spectrogram ops."""

    name: str
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        masked = ""
        hidden: dict[str, str] = {}
        mixing = ""
        for op in self.ops:
            if op.name in seen:
                raise RecipeError(f"recipe {self.name!r}: the op {op.name!r} occurs twice; each op may occur once")
            if masked and not op.spectrogram:
                raise RecipeError(
                    f"recipe {self.name!r}: waveform op {op.name!r} stands after {masked!r}; waveform ops come first"
                )
            if isinstance(op, SpectrogramOp) and hidden.setdefault(op.axis, op.name) != op.name:
                raise RecipeError(
                    f"recipe {self.name!r}: the ops {hidden[op.axis]!r} and {op.name!r} both mask {op.axis}; keep one"
                )
            if mixing and op.mixes:
                raise RecipeError(f"recipe {self.name!r}: {mixing!r} and {op.name!r} both mix in a clip; keep one")
            seen.add(op.name)
            masked = op.name if op.spectrogram else masked
            mixing = op.name if op.mixes else mixing
        columns = list(self.columns)
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise RecipeError(f"recipe {self.name!r}: two ops draw the column {twice[0]!r}; rename that of one op")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the draw columns, in the order of the ops."""
        return tuple(column for op in self.ops for column in op.columns)

    @property
    def sql_columns(self) -> tuple[SqlColumn, ...]:
        """How SQL shows the draws, in the order of the ops."""
        return tuple(column for op in self.ops for column in op.sql_columns())

    @property
    def spectrogram_ops(self) -> tuple[SpectrogramOp, ...]:
        """The ops that act on spectrograms, and so need a front end that takes masks."""
        return tuple(op for op in self.ops if isinstance(op, SpectrogramOp))

    @property
    def has_mixup(self) -> bool:
        """Whether a view can hold a second clip."""
        return self._mixing is not None

    @property
    def _mixing(self) -> Op | None:
        return next((op for op in self.ops if op.mixes), None)

    def find(self, kind: type[AnOp]) -> AnOp | None:
        """The recipe's op of a kind; None where it has none."""
        return next((op for op in self.ops if isinstance(op, kind)), None)

    def amounts(self, place: Place) -> list[tuple[Op, float, str]]:
        """The ops that say how much they do to a view, the most that each can do, and its unit.

        :param place: of the views.
        """
        found = []
        for op in self.ops:
            ends = {name: np.array([low, high - 1]) for name, (low, high) in op.ranges(place).items()}
            said = op.amount(ends, place)
            if said is not None and said[0].max() > 0:
                found.append((op, float(said[0].max()), said[1]))
        return found

    def partners(self, draws: Draws) -> I64 | None:
        """The row, within its shard, of the clip that each of n views is mixed with, and -1 for none: int64 (n,).

        None of a recipe that mixes nothing.
        """
        return None if self._mixing is None else self._mixing.partners(draws.columns)

    def partner_shares(self, draws: Draws) -> F32:
        """The partner's share of each of n views, float32 (n,) in [0, 1]; 0 where nothing is mixed."""
        if self._mixing is None:
            return np.zeros(len(draws), np.float32)
        return self._mixing.partner_shares(draws.columns)

    def without_partner(self, draws: Draws, where: Bool) -> Draws:
        """The same draws with nothing mixed in where so told, bool (n,)."""
        if self._mixing is None:
            return draws
        return Draws(draws.columns | self._mixing.without_partner(draws.columns, where))

    def ranges(self, place: Place, *, imported: bool = False) -> dict[str, tuple[int, int]]:
        """Half-open bounds of every draw column in a store of this clip length, rate and shard size.

        :param imported: of draws that another program made.
        """
        found: dict[str, tuple[int, int]] = {}
        for op in self.ops:
            found |= op.imported_ranges(place) if imported else op.ranges(place)
        return found

    def impossible(
        self, draws: Draws, rows: I64, shard_rows: int, place: Place, *, imported: bool = False
    ) -> dict[str, Bool]:
        """Where stored integers cannot be what was drawn: outside of their ranges, or of what goes with them.

        :param rows: each view's row within its shard, to broadcast with the columns of ``draws``, of any one shape.
        :param imported: whether another program may have drawn them.
        :returns: bool by column, of that shape.
        """
        found: dict[str, Bool] = {}
        theirs = self.ranges(place, imported=imported)
        for name, (low, high) in self.ranges(place).items():
            values = draws.columns[name]
            found[name] = (values < min(low, theirs[name][0])) | (values >= max(high, theirs[name][1]))
        for op in self.ops:
            for name, wrong in op.impossible(draws.columns, rows, shard_rows, place).items():
                found[name] = found[name] | wrong
        return found

    def check(self, place: Place) -> None:
        """Refuse a recipe whose ranges cannot be drawn for clips of this length."""
        for op in self.ops:
            op.check(place)

    def fitted(self, place: Place) -> Recipe:
        """The recipe for views of one length, with no bound left that is a share of it; what a manifest holds."""
        return Recipe(self.name, tuple(op.fitted(place) for op in self.ops))

    def unshared(self) -> Recipe:
        """The recipe without its bounds that are shares of the view."""
        return Recipe(self.name, tuple(op.unshared() for op in self.ops))

    def to_dict(self) -> dict[str, Any]:
        """Name and every parameter of every op, as plain JSON values; the inverse of :func:`parse_recipe`."""
        return {"name": self.name, "ops": [op.to_dict() for op in self.ops]}


#: As published, for clips of 10 s. What recipes are called ``ced`` bounds its masks by shares of the view as well.
CED = Recipe(
    "ced",
    (
        Roll(probability=0.5, max_fraction=0.5),
        TimeMask(max_seconds=1.92),
        FrequencyMask(max_steps=24, min_hz=0.0, max_hz=8000.0),
    ),
)
NONE = Recipe("none", ())
#: The built-in recipe that costs teachers least, and that every teacher hears.
GENTLE = "gentle"
_SHARE = 0.192
#: ``wave`` is ``ced`` for teachers that take no masks: of the same seed, view and clip it hides the same.
BUILT_IN = {
    recipe.name: recipe
    for recipe in (
        Recipe("ced", (CED.ops[0], TimeMask(max_seconds=1.92, max_share=_SHARE), CED.ops[2])),
        Recipe(
            "wave",
            (
                CED.ops[0],
                Silence(max_seconds=1.92, max_share=_SHARE),
                BandStop(max_steps=24, min_hz=0.0, max_hz=8000.0),
            ),
        ),
        # what teachers hear that never learnt to do without a band; its silence is where that of `wave` is
        Recipe(GENTLE, (CED.ops[0], Silence(max_seconds=1.92, max_share=_SHARE), Gain())),
        NONE,
    )
}
#: The choice between ``ced`` and ``wave`` by what the teachers take; see :func:`fitting`.
AUTO = "auto"


def fitting(takes_masks: bool) -> Recipe:
    """The built-in recipe whose ops everybody hears.

    :param takes_masks: whether every teacher does.
    """
    return BUILT_IN["ced" if takes_masks else "wave"]


def load_recipe(name_or_path: str) -> Recipe:
    """A built-in recipe by its name (``ced``, ``wave``, ``gentle``, ``none``), or one read from a YAML file.

    :raises RecipeError: unknown name, unreadable file, unknown op or parameter, a range upside down.
    """
    from pathlib import Path

    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise RecipeError(f"no recipe {name_or_path!r}: give a YAML file or one of {', '.join(sorted(BUILT_IN))}")
    try:
        document = load_yaml(path)
    except (OSError, DocumentError) as error:
        raise RecipeError(f"recipe {name_or_path!r} is not readable YAML: {error}") from error
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
    name = document.get("name", default_name)
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise RecipeError(
            f"recipe {default_name!r}: its name is {shown(name)}; give a text of up to {_LONGEST_NAME:,} characters"
        )
    ops = []
    for position, item in enumerate(document["ops"]):
        if not isinstance(item, dict) or "op" not in item:
            raise RecipeError(f"recipe {name!r}: entry {position + 1} of ops is not of the form `- op: NAME`")
        kind = find_op(item["op"]) if isinstance(item["op"], str) else None
        if kind is None:
            raise RecipeError(f"recipe {name!r}: unknown op {shown(item['op'])}; allowed are {', '.join(sorted(OPS))}")
        ops.append(kind.parse(name, {key: value for key, value in item.items() if key != "op"}))
    return Recipe(name, tuple(ops))


def clip_key(path: str, start: int, length: int) -> int:
    """64 bits that stand for a clip: BLAKE2b of the path in UTF-8, a zero byte, start and length as int64 LE."""
    content = path.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<qq", start, length)
    return small_digest(content)


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
    :param view: the view of every clip, an integer or int64 (n,).
    :param lengths: int64 (n,), the clips' own lengths in samples at the store's rate, before padding.
    :param place: clip length and rate of the store.
    :param rows: int64 (n,), the clips' rows within their shard; used by mixup. The first n rows by default.
    :param shard_rows: number of rows of the shard; used by mixup.
    """
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} is out of range; allowed are 0 to 2**64 - 1")
    clip_low, clip_high = split64(np.array([clip_key(*key) for key in keys], dtype=np.uint64))
    views = np.broadcast_to(np.asarray(view, dtype=np.uint64), clip_low.shape)
    rows = np.arange(len(keys), dtype=np.int64) if rows is None else rows
    clips = Clips(lengths, rows, shard_rows, place)
    columns: dict[str, I64] = {}
    for position, op in enumerate(recipe.ops):
        words = philox4x32((clip_low, clip_high, views, position), split64(seed))
        columns |= op.draw(Words(*words), clips)
    return Draws(columns)


def masks(recipe: Recipe, draws: Draws) -> Masks | None:
    """What the draws hide, in seconds and Hz; None where the recipe has no spectrogram op."""
    if not recipe.spectrogram_ops:
        return None
    nothing: F64 = np.zeros(len(draws), dtype=np.float64)
    hidden = {"time": (nothing, nothing), "frequency": (nothing, nothing)}
    for op in recipe.spectrogram_ops:
        hidden[op.axis] = op.mask(draws.columns)
    return Masks(*hidden["time"], *hidden["frequency"])
