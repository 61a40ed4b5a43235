"""How a block's targets and draws lie in flat byte arrays, and how they are read back. Pure NumPy.

The views of a clip say nearly the same thing, so each clip's classes are written once, for all views of the block:

``classes``    the *entries*: the classes that occur in any view of a clip, as one rising sequence of numbers
               ``row * C + class`` over the whole block, by their gaps. A byte below 255 ends a gap; a byte 255 adds
               255 and goes on. The first gap counts from -1.
``views``      which views hold the entry: bit v mod 8 of byte plane v div 8, (planes, entries)
``firsts``     the code of the entry in its first view, (code bytes, entries)
``residuals``  its codes in the later views that hold it, entry by entry, each less the rounded mean of the entry's
               codes in the views before, modulo 2**(8 * code bytes), (code bytes, residuals)
``members``    where kept: each member's code less the ensemble's, entry by entry and view by view, modulo likewise,
               (members * code bytes, entries x their views)
``draws``      every draw column less its lowest value, as byte planes, (planes, rows x views), views fastest

Multi-byte numbers are byte planes, lowest byte first, one plane a chunk. Rows of failed clips have no entries.
``docs/format.md`` is the specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitstore.arrays import I64, U8, U16, Bool

_ESCAPE = 255
_MOST_FLAGS = 1 << 24  # rows x classes of a block up to which entries are found by flags, and not by sorting


@dataclass(frozen=True)
class Column:
    """A draw column as stored: ``value = low + sum(plane[i] << (8 * i))`` over ``planes`` byte planes."""

    name: str
    low: int
    planes: int


@dataclass(frozen=True)
class Targets:
    """The targets of a block, in codes.

    ``classes`` uint16 (R, V, k) and ``codes`` uint16 (R, V, k), falling by code, ties by rising class; zero in rows
    that are not ``readable`` (bool (R,)).
    """

    classes: U16
    codes: U16
    readable: Bool


@dataclass(frozen=True)
class Entries:
    """The entries of a block: rising ``numbers`` (E,) = row * C + class, and ``present`` bool (E, V)."""

    numbers: I64
    present: Bool


def byte_planes(values: Any, planes: int) -> U8:
    """Non-negative integers (n,) as (planes, n) bytes, lowest byte first."""
    wide = np.asarray(values, dtype=np.uint64)
    return np.stack([(wide >> np.uint64(8 * plane)).astype(np.uint8) for plane in range(planes)])


def from_planes(planes: U8) -> I64:
    """The inverse of :func:`byte_planes`."""
    total: I64 = planes[0].astype(np.int64)
    for position, plane in enumerate(planes[1:], start=1):
        total |= plane.astype(np.int64) << (8 * position)
    return total


def columns_for(ranges: dict[str, tuple[int, int]]) -> tuple[Column, ...]:
    """The stored columns for draw columns with these half-open ranges."""
    return tuple(
        Column(name, low, max(1, ((high - 1 - low).bit_length() + 7) // 8)) for name, (low, high) in ranges.items()
    )


def encode_draws(columns: Sequence[Column], draws: dict[str, I64]) -> U8:
    """Draws, each int64 (R, V), as bytes (planes, R * V); values are within the columns' ranges."""
    shape = next(iter(draws.values())).size if draws else 0
    planes = [byte_planes(draws[column.name].reshape(-1) - column.low, column.planes) for column in columns]
    return np.concatenate(planes) if planes else np.zeros((0, shape), np.uint8)


def decode_draws(columns: Sequence[Column], planes: U8, views: int) -> dict[str, I64]:
    """The inverse of :func:`encode_draws`: each column int64 (R, V)."""
    decoded, position = {}, 0
    for column in columns:
        part = planes[position : position + column.planes]
        decoded[column.name] = (from_planes(part) + column.low).reshape(-1, views)
        position += column.planes
    return decoded


def encode_targets(targets: Targets, class_count: int, code_bytes: int, members: U16 | None = None) -> dict[str, U8]:
    """The byte arrays of a block's targets.

    :param members: codes of each member at the ensemble's classes, uint16 (M, R, V, k), or None.
    """
    rows = np.flatnonzero(targets.readable)
    views = targets.classes.shape[1]
    numbers = rows[:, None, None] * class_count + targets.classes[rows].astype(np.int64)
    entries, places = _entries_of(numbers, len(targets.readable) * class_count)
    view_numbers = np.arange(views)[None, :, None]
    present = np.zeros((len(entries), views), dtype=bool)
    present[places, view_numbers] = True
    codes = np.zeros((len(entries), views), dtype=np.uint16)
    codes[places, view_numbers] = targets.codes[rows]

    by_view, codes_by_view = np.ascontiguousarray(present.T), np.ascontiguousarray(codes.T)
    firsts = np.zeros(len(entries), dtype=np.uint16)
    residuals = np.zeros((len(entries), views), dtype=np.uint16)
    state = _Means(len(entries), views)
    for view in range(views):
        here = codes_by_view[view]
        firsts = np.where(by_view[view] & (state.count == 0), here, firsts)
        residuals[:, view] = here - state.rounded()
        state.add(here, by_view[view])
    later = present & (np.cumsum(present, axis=1, dtype=np.uint16) > 1)
    arrays = {
        "classes": _encode_gaps(np.diff(entries, prepend=-1))[None],
        "views": np.stack([_pack_views(present[:, low : low + 8]) for low in range(0, views, 8)]),
        "firsts": byte_planes(firsts, code_bytes),
        "residuals": byte_planes(residuals[later], code_bytes),
    }
    if members is not None:
        planes = []
        for member in members:
            grid = np.zeros((len(entries), views), dtype=np.uint16)
            grid[places, view_numbers] = member[rows]
            planes.append(byte_planes((grid - codes)[present], code_bytes))
        arrays["members"] = np.concatenate(planes)
    return arrays


def decode_entries(arrays: dict[str, U8], views: int) -> Entries:
    """The entries of a block from its arrays ``classes`` and ``views``.

    :raises ValueError: the entries do not rise, or are others in number than ``views`` has.
    """
    gaps = _decode_gaps(arrays["classes"][0])
    if len(gaps) != arrays["views"].shape[1] or (gaps < 1).any():
        raise ValueError(f"classes are not {arrays['views'].shape[1]} rising entries")
    numbers = np.cumsum(gaps) - 1
    bits = [
        np.unpackbits(plane[:, None], axis=1, bitorder="little")[:, : views - 8 * position]
        for position, plane in enumerate(arrays["views"])
    ]
    return Entries(numbers, np.concatenate(bits, axis=1).astype(bool))


def decode_targets(arrays: dict[str, U8], rows: int, views: int, k: int, class_count: int) -> Targets:
    """The targets of a block of ``rows`` clips; the inverse of :func:`encode_targets`.

    :raises ValueError: the arrays do not hold k classes for every view of every readable row.
    """
    return decode_block(arrays, rows, views, k, class_count)[0]


def decode_members(arrays: dict[str, U8], targets: Targets, class_count: int) -> U16:
    """Each member's codes at the ensemble's classes, uint16 (M, R, V, k), in the order of ``targets``."""
    rows, views, k = targets.classes.shape
    members = decode_block(arrays, rows, views, k, class_count)[1]
    return np.zeros((0, rows, views, k), np.uint16) if members is None else members


def decode_block(arrays: dict[str, U8], rows: int, views: int, k: int, class_count: int) -> tuple[Targets, U16 | None]:
    """The targets of a block of ``rows`` clips and, where ``arrays`` holds them, the codes of its members.

    :raises ValueError: the arrays do not hold k classes for every view of every readable row.
    """
    entries = decode_entries(arrays, views)
    by_view = np.ascontiguousarray(entries.present.T)
    codes = _decode_codes(arrays, entries.present, by_view)
    row, label = np.divmod(entries.numbers, class_count)
    readable = np.zeros(rows, dtype=bool)
    readable[row] = True
    kept = np.flatnonzero(readable)
    shape = (views, len(kept), k)
    view, entry = np.nonzero(by_view)  # by view, then by row, then by rising class: k of each row
    held = f"{len(entry)} targets are not {k} in each of {views} views of {len(kept)} clips"
    if len(entry) != views * len(kept) * k:
        raise ValueError(held)
    owners = row[entry].reshape(shape)
    if (owners != kept[:, None]).any():
        raise ValueError(held)
    # one integer a target, so that sorting the k of a view puts them in falling order of code, ties by rising class
    packed = (0xFFFF - codes[view, entry].astype(np.uint32)) << np.uint32(16)
    packed |= label.astype(np.uint32)[entry]
    packed = packed.reshape(shape)
    members = None
    if "members" in arrays:
        wide = (packed.astype(np.uint64) << np.uint64(16)) | np.arange(k, dtype=np.uint64)
        wide.sort(axis=2)
        packed, order = (wide >> np.uint64(16)).astype(np.uint32), (wide & np.uint64(0xFFFF)).astype(np.int64)
        members = _decode_members(arrays["members"], len(arrays["firsts"]), entries.present, codes, readable, order)
    else:
        packed.sort(axis=2)
    classes = np.zeros((rows, views, k), dtype=np.uint16)
    values = np.zeros((rows, views, k), dtype=np.uint16)
    classes[kept] = (packed & np.uint32(0xFFFF)).astype(np.uint16).transpose(1, 0, 2)
    values[kept] = (0xFFFF - (packed >> np.uint32(16))).astype(np.uint16).transpose(1, 0, 2)
    return Targets(classes, values, readable), members


def _decode_codes(arrays: dict[str, U8], present: Bool, by_view: Bool) -> U16:
    """The codes of every entry in every view, uint16 (V, E), 0 where the view lacks it.

    :param present: bool (E, V). :param by_view: the same as (V, E).
    """
    entries, views = present.shape
    codes = np.zeros((views, entries), dtype=np.uint16)
    later = present & (np.cumsum(present, axis=1, dtype=np.uint16) > 1)
    residuals = np.zeros((entries, views), dtype=np.uint16)
    stored = from_planes(arrays["residuals"])
    if len(stored) != np.count_nonzero(later):
        raise ValueError(f"residuals has {len(stored)} columns, not {np.count_nonzero(later)}")
    residuals[later] = stored
    residuals_by_view = np.ascontiguousarray(residuals.T)
    firsts = from_planes(arrays["firsts"]).astype(np.uint16)
    mask = np.uint16(256 ** len(arrays["firsts"]) - 1)
    state = _Means(entries, views)
    for view in range(views):
        value = (residuals_by_view[view] + state.rounded()) & mask
        codes[view] = np.where(state.count == 0, firsts, value) * by_view[view]
        state.add(codes[view], by_view[view])
    return codes


def _decode_members(planes: U8, code_bytes: int, present: Bool, codes: U16, readable: Bool, order: I64) -> U16:
    """Codes of the members, uint16 (M, R, V, k).

    :param order: int64 (V, readable rows, k): the order of the targets of a view among its rising classes.
    """
    views, kept, k = order.shape
    entry, view = np.nonzero(present)  # as they are stored: by entry, then by view
    ensemble = codes[view, entry]
    grouped = np.argsort(view, kind="stable")  # by view, and entries rise within it
    count = len(planes) // code_bytes
    decoded = np.zeros((count, len(readable), views, k), dtype=np.uint16)
    mask = np.uint16(256**code_bytes - 1)
    for member in range(count):
        residuals = from_planes(planes[member * code_bytes : (member + 1) * code_bytes]).astype(np.uint16)
        values = ((residuals + ensemble) & mask)[grouped].reshape(views, kept, k)
        decoded[member, readable] = np.take_along_axis(values, order, axis=2).transpose(1, 0, 2)
    return decoded


class _Means:
    """The rounded mean of each entry's codes so far; integers of 32 bits where those are enough."""

    def __init__(self, entries: int, views: int) -> None:
        self.kind: type[np.signedinteger[Any]] = np.int32 if views < 1 << 14 else np.int64
        self.total = np.zeros(entries, self.kind)
        self.count = np.zeros(entries, self.kind)

    def rounded(self) -> U16:
        """uint16 (E,); 0 of an entry that no view has named."""
        twice = 2 * np.maximum(self.count, 1)
        mean: U16 = ((2 * self.total + self.count) // twice).astype(np.uint16)
        return mean

    def add(self, codes: U16, present: Bool) -> None:
        """One view: codes uint16 (E,), 0 where it lacks the entry, and which it names."""
        self.total += codes
        self.count += present


def _entries_of(numbers: I64, limit: int) -> tuple[I64, I64]:
    """The distinct numbers, rising, and the place of each number among them; numbers lie in [0, limit)."""
    if limit > _MOST_FLAGS:
        entries, places = np.unique(numbers, return_inverse=True)
        return entries, places.reshape(numbers.shape)
    named = np.zeros(limit, dtype=bool)
    named[numbers] = True
    place = np.cumsum(named, dtype=np.int32)
    return np.flatnonzero(named), place[numbers].astype(np.int64) - 1


def _pack_views(present: Bool) -> U8:
    return np.packbits(present, axis=1, bitorder="little")[:, 0] if len(present) else np.zeros(0, np.uint8)


def _encode_gaps(gaps: I64) -> U8:
    escapes, last = np.divmod(gaps, _ESCAPE)
    encoded = np.full(int(len(gaps) + escapes.sum()), _ESCAPE, dtype=np.uint8)
    encoded[np.cumsum(escapes + 1) - 1] = last
    return encoded


def _decode_gaps(encoded: U8) -> I64:
    total = np.cumsum(encoded.astype(np.int64))
    positions = total[encoded < _ESCAPE]
    return np.diff(positions, prepend=0)
