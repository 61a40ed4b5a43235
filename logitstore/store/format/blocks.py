"""The arrays of a block: which there are, how large each can be, and how they are read from its objects.

What a block claims is held against what its commit, the manifest and the clip table leave room for, and against the
bytes that lie there, before memory is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from logitstore.arrays import U8
from logitstore.store.format import frames
from logitstore.store.format.commits import Commit
from logitstore.store.format.layout import BY_CLASS, SEQUENCES
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.objects import (
    FRAMES,
    GROUP,
    PACKED,
    array_shape,
    decode_array,
    decode_packed,
    packed_parts,
)

#: Bytes that an array may have unpacked, whatever its objects have; and for each byte of those.
LEAST_ROOM = 1 << 25
ROOM_A_BYTE = 1 << 10


def array_planes(manifest: Manifest, views: int) -> dict[str, int]:
    """The arrays of a block with so many views by their names, and the planes of each."""
    code_bytes = manifest.quantizer.code_bytes
    planes = {"classes": 1, "views": -(-views // 8)}
    if manifest.format_version >= BY_CLASS:
        planes |= {"lowest": code_bytes, "firsts": code_bytes, "residuals": SEQUENCES * code_bytes}
        planes |= {} if manifest.quality is None else {"rests": 1}
    else:
        planes |= {"firsts": code_bytes, "residuals": code_bytes}
    if manifest.keep_members:
        planes["members"] = code_bytes * len(manifest.teachers)
    if manifest.columns:
        planes["draws"] = sum(column.planes for column in manifest.columns)
    if manifest.relations is not None:
        planes |= dict.fromkeys(manifest.relations.lengths, 1)
    if manifest.frames is not None:
        planes |= frames.ARRAYS
    return planes


def held_in(manifest: Manifest, names: Collection[str]) -> set[str]:
    """The Zarr arrays that hold some arrays of a block: from version 3 on those that say when are packed into one, and
    all others but relations into another."""
    if manifest.format_version < BY_CLASS:
        return set(names)
    relations = set() if manifest.relations is None else set(manifest.relations.lengths)
    return {name if name in relations else FRAMES if name in frames.ARRAYS else PACKED for name in names}


def decode_arrays(
    manifest: Manifest, commit: Commit, get: Callable[[str], bytes], names: Sequence[str], stored_bytes: int
) -> dict[str, U8]:
    """Some arrays of a block by their names.

    :param get: gives an object's checked bytes by its name relative to the group. :param stored_bytes: of the objects.
    :raises ValueError: an object is not what the format says, or of another size than the block can have.
    """
    planes, most = array_planes(manifest, commit.views), _most_columns(manifest, commit)
    room = max(LEAST_ROOM, ROOM_A_BYTE * stored_bytes)

    def check(name: str, found: int, columns: int, width: int) -> None:
        if found != planes[name]:
            raise ValueError(f"{name} is of shape ({found}, {columns}), not of ({planes[name]}, n)")
        if columns > most[name]:
            raise ValueError(f"{name} has {columns} columns, not {most[name]}")
        if found * width > room:
            raise ValueError(f"{name} would take {found * width:,} bytes for the {stored_bytes:,} that are stored")

    for name in names:
        if name not in planes:
            raise ValueError(f"it has no array {name}")
    arrays: dict[str, Any] = {}
    for holder in sorted({PACKED, FRAMES} & held_in(manifest, names)):
        parts = packed_parts(get(f"{holder}/{GROUP}"), holder)
        expected = [name for name in planes if held_in(manifest, [name]) == {holder}]
        if list(parts) != expected:
            raise ValueError(f"{holder} holds {', '.join(parts)}, not {', '.join(expected)}")
        width = max(part.length for part in parts.values())
        for name, part in parts.items():
            check(name, part.planes, part.length, width)
        arrays |= decode_packed(holder, parts, [name for name in names if name in parts], get)
    for name in names:
        if name not in arrays:
            found, columns = array_shape(get(f"{name}/{GROUP}"), name)
            check(name, found, columns, columns)
            arrays[name] = decode_array(name, found, columns, get)
    if {"classes", "views"} <= arrays.keys():
        entries = int(np.count_nonzero(arrays["classes"] < 255))
        for name in ("views", "firsts"):
            if name in arrays and arrays[name].shape[1] != entries:
                raise ValueError(f"{name} has {arrays[name].shape[1]} columns for {entries} entries")
    return arrays


def _most_columns(manifest: Manifest, commit: Commit) -> dict[str, int]:
    """The length of each array at most."""
    targets = commit.clips * commit.views * manifest.topk
    pairs = commit.clips * len(manifest.classes)
    entries = min(pairs, targets)
    views = commit.clips * commit.views
    most = {
        "classes": entries + pairs // 255 + 1,
        "views": entries,
        "lowest": views,
        "rests": views,
        "firsts": entries,
        "residuals": targets,
        "members": targets,
        "draws": views,
    }
    if manifest.relations is not None:
        most |= {name: length * views for name, length in manifest.relations.lengths.items()}
    if manifest.frames is not None:
        tracks = views * len(manifest.classes)
        runs = tracks * manifest.frames.count
        most |= dict.fromkeys(("frame_gaps", "frame_lengths"), runs + runs // 255 + 1)
        most |= {"frame_tracks": views, "frame_classes": tracks + tracks // 255 + 1, "frame_codes": runs}
        most["frame_runs"] = tracks + runs // 255 + 1
    return most
