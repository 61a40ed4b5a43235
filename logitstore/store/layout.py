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
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_ESCAPE = 255


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
    _, views, _ = targets.classes.shape
    numbers = rows[:, None, None] * class_count + targets.classes[rows].astype(np.int64)
    entries, inverse = np.unique(numbers, return_inverse=True)
    inverse = inverse.reshape(numbers.shape)
    view_numbers = np.arange(views)[None, :, None]
    present = np.zeros((len(entries), views), dtype=bool)
    present[inverse, view_numbers] = True
    codes = np.zeros((len(entries), views), dtype=np.int64)
    codes[inverse, view_numbers] = targets.codes[rows]

    first = present.argmax(axis=1) if len(entries) else np.zeros(0, np.int64)
    firsts = codes[np.arange(len(entries)), first]
    later = _later_views(present, first)
    residuals = np.zeros_like(codes)
    total, count = firsts.copy(), np.ones(len(entries), np.int64)
    for view in range(views):
        here = later[:, view]
        residuals[here, view] = codes[here, view] - _rounded_mean(total[here], count[here])
        total[here] += codes[here, view]
        count[here] += 1
    arrays = {
        "classes": _encode_gaps(np.diff(entries, prepend=-1))[None],
        "views": np.stack([_pack_views(present[:, low : low + 8]) for low in range(0, views, 8)]),
        "firsts": byte_planes(firsts, code_bytes),
        "residuals": byte_planes(residuals[later] & (256**code_bytes - 1), code_bytes),
    }
    if members is not None:
        planes = []
        for member in members:
            grid = np.zeros((len(entries), views), dtype=np.int64)
            grid[inverse, view_numbers] = member[rows]
            planes.append(byte_planes((grid - codes)[present] & (256**code_bytes - 1), code_bytes))
        arrays["members"] = np.concatenate(planes)
    return arrays


def decode_entries(arrays: dict[str, U8], views: int) -> Entries:
    """The entries of a block from its arrays ``classes`` and ``views``."""
    numbers = np.cumsum(_decode_gaps(arrays["classes"][0])) - 1
    bits = [
        np.unpackbits(plane[:, None], axis=1, bitorder="little")[:, : views - 8 * position]
        for position, plane in enumerate(arrays["views"])
    ]
    return Entries(numbers, np.concatenate(bits, axis=1).astype(bool))


def decode_codes(arrays: dict[str, U8], entries: Entries) -> I64:
    """The codes of every entry in every view, int64 (E, V), 0 where the view lacks it."""
    code_bytes = len(arrays["firsts"])
    modulus = 256**code_bytes
    count_entries, views = entries.present.shape
    codes = np.zeros((count_entries, views), dtype=np.int64)
    if not count_entries:
        return codes
    first = entries.present.argmax(axis=1)
    later = _later_views(entries.present, first)
    residuals = np.zeros((count_entries, views), dtype=np.int64)
    residuals[later] = from_planes(arrays["residuals"])
    firsts = from_planes(arrays["firsts"])
    codes[np.arange(count_entries), first] = firsts
    total, count = firsts.copy(), np.ones(count_entries, np.int64)
    for view in range(views):
        here = later[:, view]
        value = (residuals[here, view] + _rounded_mean(total[here], count[here])) % modulus
        codes[here, view] = value
        total[here] += value
        count[here] += 1
    return codes


def decode_targets(arrays: dict[str, U8], rows: int, views: int, k: int, class_count: int) -> Targets:
    """The targets of a block of ``rows`` clips; the inverse of :func:`encode_targets`.

    :raises ValueError: the arrays do not hold k classes for every view of every readable row.
    """
    entries = decode_entries(arrays, views)
    codes = decode_codes(arrays, entries)
    entry, view = np.nonzero(entries.present)
    row, label = np.divmod(entries.numbers[entry], class_count)
    # one integer a target, so that one sort puts them by (row, view, falling code, rising class)
    packed = ((row * views + view) << 32) | ((0xFFFF - codes[entry, view]) << 16) | label
    packed.sort()
    readable = np.zeros(rows, dtype=bool)
    readable[row] = True
    if len(packed) != int(readable.sum()) * views * k:
        raise ValueError(f"{len(packed)} targets are not {k} in each of {views} views of {int(readable.sum())} clips")
    grid = packed.reshape(-1, views, k)
    classes = np.zeros((rows, views, k), dtype=np.uint16)
    values = np.zeros((rows, views, k), dtype=np.uint16)
    classes[readable] = grid & 0xFFFF
    values[readable] = 0xFFFF - ((grid >> 16) & 0xFFFF)
    return Targets(classes, values, readable)


def decode_members(arrays: dict[str, U8], targets: Targets, class_count: int) -> U16:
    """Each member's codes at the ensemble's classes, uint16 (M, R, V, k), in the order of ``targets``."""
    rows, views, k = targets.classes.shape
    code_bytes = len(arrays["firsts"])
    entries = decode_entries(arrays, views)
    codes = decode_codes(arrays, entries)[entries.present]
    entry, view = np.nonzero(entries.present)
    place = np.full((len(entries.numbers), views), -1, dtype=np.int64)
    place[entry, view] = np.arange(len(entry))
    readable = np.flatnonzero(targets.readable)
    numbers = readable[:, None, None] * class_count + targets.classes[readable].astype(np.int64)
    index = place[np.searchsorted(entries.numbers, numbers), np.arange(views)[None, :, None]]
    count = len(arrays["members"]) // code_bytes
    decoded = np.zeros((count, rows, views, k), dtype=np.uint16)
    for member in range(count):
        planes = arrays["members"][member * code_bytes : (member + 1) * code_bytes]
        values = (from_planes(planes) + codes) % 256**code_bytes
        decoded[member, readable] = values[index]
    return decoded


def _rounded_mean(total: I64, count: I64) -> I64:
    return (2 * total + count) // (2 * count)


def _later_views(present: Bool, first: I64) -> Bool:
    later = present.copy()
    later[np.arange(len(present)), first] = False
    return later


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
