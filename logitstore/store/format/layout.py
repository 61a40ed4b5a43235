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

From version 3 on, entries stand class by class, as numbers ``class * rows + row``, for a class that many clips have has
small gaps; and what a view says is told from how loud it says it, for a masked view lowers all of its classes together:

``lowest``     the lowest code of each view, less the rounded mean of those of the clip's views before, modulo
               likewise, (code bytes, rows x views), views fastest; codes below are less this one
``residuals``  as above, but view by view and within it entry by entry, and in four sequences, by the prediction: codes
               that are predicted low differ less. (4 * code bytes, the longest), zeros behind the others

In blocks of a store with a quality, from version 4 on, the views of a clip keep different numbers of classes, and codes
have fewer bits than they are read as (see ``quality.py``). Beside the above they have:

``rests``      the code of the rest of each view, coded as ``lowest`` is
``views``      its columns stand in the order of ``firsts``, for what is likely is in most views
``residuals``  of codes of up to 4 bits two a byte, modulo 16, the lower half first

Multi-byte numbers are byte planes, lowest byte first. Rows of failed clips have no entries.
``docs/format.md`` is the specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, U8, U16, Bool
from logitstore.store.format.gaps import decode_gaps, encode_gaps
from logitstore.store.format.quality import REST, VALUE_BITS, coarse, fine

#: The version from which on entries stand class by class, and codes are relative to the lowest of their view.
BY_CLASS = 3
#: Predictions from which on a residual is in the second, third and fourth sequence: of codes of one byte, or of the
#: higher of two.
RESIDUAL_STEPS = (4, 10, 22)
SEQUENCES = len(RESIDUAL_STEPS) + 1
_NIBBLE_BITS = 4  # codes of so many bits or fewer have two residuals a byte
_MOST_FLAGS = 1 << 24  # rows x classes of a block up to which entries are found by flags, and not by sorting


@dataclass(frozen=True)
class Column:
    """A draw column as stored: ``value = low + sum(plane[i] << (8 * i))`` over ``planes`` byte planes."""

    name: str
    low: int
    planes: int


@dataclass(frozen=True)
class Kept:
    """What the views of a block of a store with a quality keep: ``counts`` uint16 (R, V), how many of their k places
    are used, and ``rests`` uint8 (R, V), the code of the rest, both zero in rows that failed; the ``bits`` of its
    codes; and what a view loses in the mean, in nats, which is the commit's to tell where a block is read."""

    counts: U16
    rests: U8
    bits: int
    loss: float = 0.0


@dataclass(frozen=True)
class Targets:
    """The targets of a block, in codes.

    ``classes`` uint16 (R, V, k) and ``codes`` uint16 (R, V, k), falling by code, ties by rising class; zero in rows
    that are not ``readable`` (bool (R,)). ``kept``, of a store with a quality, says how many of the k places each view
    uses; those beyond have the class C, which there is none of, and the code 0. Codes are as they are read.
    """

    classes: U16
    codes: U16
    readable: Bool
    kept: Kept | None = None


@dataclass(frozen=True)
class Entries:
    """The entries of a block as they are stored: ``numbers`` (E,) = row * C + class, and ``present`` bool (E, V)."""

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


def _codes(planes: U8) -> U16:
    """Codes, uint16 (n,), of their one or two byte planes."""
    low: U16 = planes[0].astype(np.uint16)
    return low if len(planes) == 1 else low | planes[1].astype(np.uint16) << np.uint16(8)


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


def encode_targets(
    targets: Targets, class_count: int, code_bytes: int, members: U16 | None = None, *, version: int = BY_CLASS
) -> dict[str, U8]:
    """The byte arrays of a block's targets.

    :param members: codes of each member at the ensemble's classes, uint16 (M, R, V, k), or None.
    :param version: of the format.
    """
    rows = np.flatnonzero(targets.readable)
    count, views, k = targets.classes.shape
    kept, by_class = targets.kept, version >= BY_CLASS
    used = np.ones((len(rows), views, k), dtype=bool)
    values = targets.codes
    if kept is not None:
        used, values = np.arange(k) < kept.counts[rows][:, :, None], coarse(values, kept.bits)
    named, row = targets.classes[rows].astype(np.int64)[used], np.broadcast_to(rows[:, None, None], used.shape)[used]
    entries, places = _entries_of(
        named * count + row if by_class else row * class_count + named, count * class_count
    )  # fmt: skip
    view_numbers = np.broadcast_to(np.arange(views)[None, :, None], used.shape)[used]
    present = np.zeros((len(entries), views), dtype=bool)
    present[places, view_numbers] = True
    codes = np.zeros((len(entries), views), dtype=np.uint16)
    codes[places, view_numbers] = values[rows][used]
    arrays = {
        "classes": encode_gaps(np.diff(entries, prepend=-1))[None],
        "views": np.stack([_pack_views(present[:, low : low + 8]) for low in range(0, views, 8)]),
    }
    if by_class:
        lowest = np.zeros((count, views), dtype=np.uint16)
        lowest[rows] = np.where(used, values[rows], 0xFFFF).min(axis=2, initial=0xFFFF)
        bits = None if kept is None else kept.bits
        arrays |= _relative_codes(lowest, targets.readable, codes, present, entries % count, code_bytes, bits)
    else:
        arrays |= _absolute_codes(codes, present, code_bytes)
    if kept is not None:
        arrays["views"] = arrays["views"][:, np.argsort(arrays["firsts"][0], kind="stable")]
        arrays["rests"] = _from_means(kept.rests, targets.readable)
    if members is not None:
        codes[places, view_numbers] = targets.codes[rows][used]
        planes = []
        for member in members:
            grid = np.zeros((len(entries), views), dtype=np.uint16)
            grid[places, view_numbers] = member[rows][used]
            planes.append(byte_planes((grid - codes)[present], code_bytes))
        arrays["members"] = np.concatenate(planes)
    return arrays


def _absolute_codes(codes: U16, present: Bool, code_bytes: int) -> dict[str, U8]:
    """``firsts`` and ``residuals`` of versions 1 and 2; ``codes`` uint16 and ``present`` bool are (E, V)."""
    by_view, codes_by_view = np.ascontiguousarray(present.T), np.ascontiguousarray(codes.T)
    firsts = np.zeros(len(codes), dtype=np.uint16)
    residuals = np.zeros(codes.shape, dtype=np.uint16)
    state = _Means(*codes.shape)
    for view, (here, held) in enumerate(zip(codes_by_view, by_view, strict=True)):
        firsts = np.where(held & (state.count == 0), here, firsts)
        residuals[:, view] = here - state.rounded()
        state.add(here, held)
    later = present & (np.cumsum(present, axis=1, dtype=np.uint16) > 1)
    return {"firsts": byte_planes(firsts, code_bytes), "residuals": byte_planes(residuals[later], code_bytes)}


def _relative_codes(
    lowest: U16, readable: Bool, codes: U16, present: Bool, row: I64, code_bytes: int, bits: int | None
) -> dict[str, U8]:
    """``lowest``, ``firsts`` and ``residuals`` from version 3 on; ``row`` int64 (E,) is that of each entry.

    :param lowest: the lowest code of each view, uint16 (R, V). :param bits: of the codes of a store with a quality.
    """
    rows, views = lowest.shape
    gaps = np.zeros((rows, views), dtype=np.uint16)
    firsts = np.zeros(len(codes), dtype=np.uint16)
    sequences: list[list[U16]] = [[] for _ in range(SEQUENCES)]
    floors, state, of_prediction = _Means(rows, views), _Means(len(codes), views), _sequences(bits)
    for view in range(views):
        gaps[:, view] = lowest[:, view] - floors.rounded()
        floors.add(lowest[:, view], readable)
        here = np.flatnonzero(present[:, view])
        above = codes[here, view] - lowest[row[here], view]
        predicted, count, total = state.rounded_at(here)
        fresh = count == 0
        firsts[here[fresh]] = above[fresh]
        residual, sequence = above - predicted, of_prediction[predicted >> 8 * (code_bytes - 1)]
        for number, kept in enumerate(sequences):
            kept.append(residual[(sequence == number) & ~fresh])
        state.put(here, count + 1, total + above)
    joined = [np.concatenate(kept) for kept in sequences]
    if _halved(bits):
        joined = [_pairs(values) for values in joined]
    residuals = np.zeros((SEQUENCES * code_bytes, max(map(len, joined))), dtype=np.uint8)
    for number, values in enumerate(joined):
        residuals[number * code_bytes : (number + 1) * code_bytes, : len(values)] = byte_planes(values, code_bytes)
    return {"lowest": byte_planes(gaps.reshape(-1), code_bytes), "firsts": byte_planes(firsts, code_bytes),
            "residuals": residuals}  # fmt: skip


def _sequences(bits: int | None) -> U8:
    """Which sequence a residual is in, by its prediction, uint8 (256,)."""
    shift = 0 if bits is None else VALUE_BITS - bits
    steps = [max(step >> shift, number) for number, step in enumerate(RESIDUAL_STEPS, start=1)]
    return np.searchsorted(steps, np.arange(256), side="right").astype(np.uint8)


def _halved(bits: int | None) -> bool:
    """Whether two residuals share a byte."""
    return bits is not None and bits <= _NIBBLE_BITS


def _pairs(values: U16) -> U16:
    """Residuals modulo 16, two a byte, the first in the lower half; of an odd number the last half is 0."""
    halves = np.pad(values & np.uint16(15), (0, len(values) % 2)).reshape(-1, 2)
    paired: U16 = halves[:, 0] | halves[:, 1] << np.uint16(4)
    return paired


def _from_means(values: U8, readable: Bool) -> U8:
    """Numbers of views (R, V), less the rounded mean of those of the views before, modulo 256: uint8 (1, R * V)."""
    gaps, state = np.zeros(values.shape, np.uint16), _Means(*values.shape)
    for view, here in enumerate(values.T.astype(np.uint16)):
        gaps[:, view] = here - state.rounded()
        state.add(here, readable)
    return byte_planes(gaps.reshape(-1), 1)


def _to_values(gaps: U8, readable: Bool, views: int) -> U8:
    """The inverse of :func:`_from_means`; 0 in rows that failed."""
    if gaps.shape[1] != len(readable) * views:
        raise ValueError(f"rests has {gaps.shape[1]} columns, not {len(readable) * views}")
    values, state = np.zeros((len(readable), views), np.uint8), _Means(len(readable), views)
    for view, here in enumerate(gaps.reshape(-1, views).T):
        values[:, view] = here + state.rounded().astype(np.uint8)
        state.add(values[:, view].astype(np.uint16), readable)
    values[~readable] = 0
    if values.size and int(values.max()) >= REST.cells:
        raise ValueError(f"rests has the code {int(values.max())}, and the highest is {REST.cells - 1}")
    return values


def decode_entries(
    arrays: dict[str, U8], rows: int, views: int, class_count: int, version: int = BY_CLASS, bits: int | None = None
) -> Entries:
    """The entries of a block from its arrays ``classes`` and ``views``, and with a quality ``firsts``.

    :param bits: of the codes of a block of a store with a quality.

    :raises ValueError: the entries do not rise, are of other rows and classes than there are, or are others in number
        than ``views`` has.
    """
    gaps = decode_gaps(arrays["classes"][0])
    if len(gaps) != arrays["views"].shape[1] or (gaps < 1).any():
        raise ValueError(f"classes are not {arrays['views'].shape[1]} rising entries")
    numbers = np.cumsum(gaps) - 1
    if len(numbers) and int(numbers[-1]) >= rows * class_count:
        raise ValueError(f"classes is not rising below {rows} rows x {class_count} classes")
    if version >= BY_CLASS:
        label, row = np.divmod(numbers, rows)
        numbers = row * class_count + label
    planes = [
        np.unpackbits(plane[:, None], axis=1, bitorder="little")[:, : views - 8 * position]
        for position, plane in enumerate(arrays["views"])
    ]
    present = np.concatenate(planes, axis=1).astype(bool)
    if bits is not None:
        by_first, present = present, np.empty_like(present)
        present[np.argsort(arrays["firsts"][0], kind="stable")] = by_first
    return Entries(numbers, present)


def decode_block(
    arrays: dict[str, U8],
    rows: int,
    views: int,
    k: int,
    class_count: int,
    version: int = BY_CLASS,
    bits: int | None = None,
) -> tuple[Targets, U16 | None]:
    """The targets of a block of ``rows`` clips, the inverse of :func:`encode_targets`.

    :returns: with them, where ``arrays`` holds any, each member's codes at the ensemble's classes, uint16 (M, rows,
        views, k), in the same order; else None.
    :param bits: of the codes of a block of a store with a quality, of which k is the most classes of a view; None of
        others.
    :raises ValueError: the arrays do not hold k classes for every view of every readable row; with ``bits``, 1 to k.
    """
    entries = decode_entries(arrays, rows, views, class_count, version, bits)
    present, by_view = entries.present, np.ascontiguousarray(entries.present.T)
    row, label = np.divmod(entries.numbers, class_count)
    readable = np.zeros(rows, dtype=bool)
    readable[row] = True
    if version >= BY_CLASS:
        codes = _decode_relative(arrays, by_view, row, readable, bits)
        by_row = np.argsort(row.astype(np.uint16) if rows <= 1 << 16 else row, kind="stable")
        row, label = row.take(by_row), label.take(by_row)
        by_view, codes = by_view.take(by_row, axis=1), codes.take(by_row, axis=1)
    else:
        codes, by_row = _decode_codes(arrays, present, by_view), np.arange(len(row))
    kept = np.flatnonzero(readable)
    flat = np.flatnonzero(by_view)  # by view, then by row, then by rising class: k of each row
    named = codes.reshape(-1).take(flat)
    if bits is None:
        counts, entry = None, _entries_of_k(flat, row, kept, views, k)
        slots: I64 | slice = slice(None)
    else:
        named = fine(named, bits)
        counts, entry, slots = _entries_of_some(flat, row, kept, views, k)
    # one integer a target, so that sorting the k of a view puts them in falling order of code, ties by rising class
    keys = (0xFFFF - named.astype(np.uint32)) << np.uint32(16)
    keys |= label.astype(np.uint32).take(entry)
    flat_packed = np.full(views * len(kept) * k, 0xFFFFFFFF, dtype=np.uint32)  # which no target is, and sorts last
    flat_packed[slots] = keys
    packed = flat_packed.reshape(views, len(kept), k)
    members = None
    if "members" in arrays:
        wide = (packed.astype(np.uint64) << np.uint64(16)) | np.arange(k, dtype=np.uint64)
        wide.sort(axis=2)
        packed, order = (wide >> np.uint64(16)).astype(np.uint32), (wide & np.uint64(0xFFFF)).astype(np.int64)
        stored = _stored_members(arrays["members"], present, by_row)
        members = _decode_members(stored, len(arrays["firsts"]), named, readable, order, slots)
    else:
        packed.sort(axis=2)
    packed = packed.transpose(1, 0, 2)
    classes, values = packed.astype(np.uint16), (0xFFFF - (packed >> np.uint32(16))).astype(np.uint16)
    if len(kept) < rows:
        whole = np.zeros((2, rows, views, k), dtype=np.uint16)
        whole[0, kept], whole[1, kept] = classes, values
        classes, values = whole
    if bits is None or counts is None:
        return Targets(classes, values, readable), members
    each = np.zeros((rows, views), dtype=np.uint16)
    each[kept] = counts.reshape(views, len(kept)).T
    unused = readable[:, None, None] & (np.arange(k) >= each[:, :, None])
    classes[unused] = class_count
    rests = _to_values(arrays["rests"], readable, views)
    return Targets(classes, values, readable, Kept(each, rests, bits)), members


def widened(targets: Targets, members: U16 | None, k: int, class_count: int) -> tuple[Targets, U16 | None]:
    """The same targets, and members' codes, with unused places up to k."""
    more = [(0, 0), (0, 0), (0, k - targets.classes.shape[2])]
    classes = np.pad(targets.classes, more, constant_values=class_count)
    classes[~targets.readable] = 0
    whole = Targets(classes, np.pad(targets.codes, more), targets.readable, targets.kept)
    return whole, None if members is None else np.pad(members, [(0, 0), *more])


def _entries_of_k(flat: I64, row: I64, kept: I64, views: int, k: int) -> I64:
    """The entry of each target, int64 (V * rows * k,), of k a view.

    :param flat: where bool (V, E) is set. :param row: of each entry. :param kept: the rows that have targets.
    """
    held = f"{len(flat)} targets are not {k} in each of {views} views of {len(kept)} clips"
    if len(flat) != views * len(kept) * k:
        raise ValueError(held)
    entry = (flat.reshape(views, -1) - np.arange(views)[:, None] * len(row)).reshape(-1)
    if len(flat) and not 0 <= int(entry.min()) <= int(entry.max()) < len(row):
        raise ValueError(held)
    if (row.take(entry).reshape(views, len(kept), k) != kept[:, None]).any():
        raise ValueError(held)
    return entry


def _entries_of_some(flat: I64, row: I64, kept: I64, views: int, k: int) -> tuple[I64, I64, I64]:
    """As :func:`_entries_of_k`, of 1 to k a view: how many each view of each kept row has, by view, the entry of each
    target, and which of V * rows * k places it takes."""
    view, entry = np.divmod(flat, max(1, len(row)))
    group = view * len(kept) + np.searchsorted(kept, row.take(entry))
    counts = np.bincount(group, minlength=views * len(kept))
    if len(counts) and not 1 <= int(counts.min()) <= int(counts.max()) <= k:
        raise ValueError(f"its views have {int(counts.min())} to {int(counts.max())} classes, not from 1 to {k}")
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    return counts, entry, group * k + place


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


def _decode_relative(arrays: dict[str, U8], by_view: Bool, row: I64, readable: Bool, bits: int | None) -> U16:
    """As :func:`_decode_codes`, of the arrays from version 3 on; ``row`` int64 (E,) is that of each entry.

    :param bits: of the codes of a block of a store with a quality.
    """
    views, entries = by_view.shape
    code_bytes = len(arrays["firsts"])
    mask, shift, of_prediction = np.uint16(256**code_bytes - 1), 8 * (code_bytes - 1), _sequences(bits)
    highest = int(mask) if bits is None else (1 << bits) - 1
    firsts = _codes(arrays["firsts"])
    if len(firsts) and int(firsts.max()) > highest:
        raise ValueError(f"firsts has the code {int(firsts.max())}, and the highest is {highest}")
    stored = arrays["residuals"]
    if len(stored) != SEQUENCES * code_bytes:
        raise ValueError(f"residuals has {len(stored)} planes, not {SEQUENCES * code_bytes}")
    sequences = [_codes(stored[place : place + code_bytes]) for place in range(0, len(stored), code_bytes)]
    per_byte, residual_mask = 1, mask
    if _halved(bits):
        per_byte, residual_mask = 2, np.uint16(15)
        sequences = [np.stack([pair & residual_mask, pair >> np.uint16(4)], axis=1).reshape(-1) for pair in sequences]
    gaps = _codes(arrays["lowest"])
    if gaps.size != len(readable) * views:
        raise ValueError(f"lowest has {gaps.size} columns, not {len(readable) * views}")
    gaps_by_view = np.ascontiguousarray(gaps.reshape(-1, views).T)
    codes = np.zeros((views, entries), dtype=np.uint16)
    floors, state = _Means(len(readable), views), _Means(entries, views)
    used = np.zeros(SEQUENCES, dtype=np.int64)
    for view in range(views):
        lowest = (gaps_by_view[view] + floors.rounded()) & mask
        floors.add(lowest, readable)
        here = np.flatnonzero(by_view[view])
        predicted, count, total = state.rounded_at(here)
        sequence = of_prediction.take(predicted >> shift)
        sequence[count == 0] = SEQUENCES
        order = np.argsort(sequence, kind="stable")
        counts = np.bincount(sequence, minlength=SEQUENCES + 1)
        found = [kept[at : at + wanted] for kept, at, wanted in zip(sequences, used, counts, strict=False)]
        used += counts[:SEQUENCES]
        fresh = order[len(order) - counts[SEQUENCES] :]
        residual = np.concatenate([*found, firsts.take(here.take(fresh))])
        if len(residual) != len(here):
            raise ValueError(f"residuals has {stored.shape[1]} columns, not {used.max()} or more")
        above = np.empty(len(here), dtype=np.uint16)
        above[order] = residual
        above += predicted
        above &= residual_mask
        state.put(here, count + 1, total + above)
        code = above.astype(np.uint32)
        code += lowest.take(row.take(here))
        if len(code) and int(code.max()) > highest:
            raise ValueError(f"residuals give the code {int(code.max())}, and the highest is {highest}")
        codes[view, here] = code
    length = -(-int(used.max()) // per_byte)
    if stored.shape[1] != length or any(kept[at:].any() for kept, at in zip(sequences, used, strict=True)):
        raise ValueError(f"residuals has {stored.shape[1]} columns, not {length} with zeros behind the others")
    return codes


def _stored_members(planes: U8, present: Bool, by_row: I64) -> U8:
    """The planes of the members by view, then by row and class.

    :param present: bool (E, V), entries as they are stored. :param by_row: the order of their rows and classes.
    """
    entry, view = np.nonzero(present)  # as they are stored: by entry, then by view
    if planes.shape[1] != len(entry):
        raise ValueError(f"members has {planes.shape[1]} columns, not {len(entry)}")
    place = np.empty(len(by_row), dtype=np.int64)
    place[by_row] = np.arange(len(by_row))
    return planes[:, np.lexsort((place[entry], view))]


def _decode_members(planes: U8, code_bytes: int, ensemble: U16, readable: Bool, order: I64, slots: I64 | slice) -> U16:
    """Codes of the members, uint16 (M, R, V, k).

    :param ensemble: its codes, in the order of ``planes``, uint16 (targets,).
    :param order: int64 (V, readable rows, k): the order of the targets of a view among its rising classes.
    :param slots: which of V * readable rows * k places the targets take, by rising class within a view.
    """
    views, kept, k = order.shape
    count = len(planes) // code_bytes
    decoded = np.zeros((count, len(readable), views, k), dtype=np.uint16)
    mask = np.uint16(256**code_bytes - 1)
    for member in range(count):
        residuals = from_planes(planes[member * code_bytes : (member + 1) * code_bytes]).astype(np.uint16)
        values = np.zeros(views * kept * k, dtype=np.uint16)
        values[slots] = (residuals + ensemble) & mask
        values = values.reshape(views, kept, k)
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
        return _rounded(self.total, self.count)

    def rounded_at(self, places: I64) -> tuple[U16, npt.NDArray[Any], npt.NDArray[Any]]:
        """Of some entries, the rounded mean, the number of codes and their sum."""
        count, total = self.count.take(places), self.total.take(places)
        return _rounded(total, count), count, total

    def add(self, codes: U16, present: Bool) -> None:
        """One view: codes uint16 (E,), 0 where it lacks the entry, and which it names."""
        self.total += codes
        self.count += present

    def put(self, places: I64, count: npt.NDArray[Any], total: npt.NDArray[Any]) -> None:
        """Of some entries, the number of codes and their sum."""
        self.count[places], self.total[places] = count, total


def _rounded(total: npt.NDArray[Any], count: npt.NDArray[Any]) -> U16:
    mean: U16 = ((2 * total + count) // (2 * np.maximum(count, 1))).astype(np.uint16)
    return mean


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
