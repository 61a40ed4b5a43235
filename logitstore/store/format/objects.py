"""Byte arrays as Zarr objects: name -> bytes. Written with zarr-python, read back without it.

Every array of a block is uint8 of shape (planes, n), each plane a zstd frame: in chunks of (1, n), an object each; or,
from version 3 on, several arrays *packed* one below the other into one array, zeros behind the shorter, whose planes
are the inner chunks of one shard, a single object. That is little enough to read directly, which spares a cold reader
the import of zarr, and lets it check a digest before it decodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from logitstore.arrays import U8
from logitstore.store.names import shown

ZSTD_LEVEL = 19
GROUP = "zarr.json"
#: The arrays that hold others, those of targets and those that say when; and the attribute of them that says which:
#: [name, planes, n] of each, in their order.
PACKED, FRAMES, PARTS = "packed", "frames", "parts"
_INDEX = np.dtype("<u8")  # of a shard: offset and length of each inner chunk, then a CRC-32C
_CHECKSUM_BYTES = 4
_MOST_DESCRIPTION = 1 << 16
_ENCODING = Lock()


class Part(NamedTuple):
    """Where an array lies in the packed one: its first row there, its planes, and their length."""

    row: int
    planes: int
    length: int


def encode_group(
    arrays: dict[str, U8], attributes: Mapping[str, Any], packed: Mapping[str, Mapping[str, U8]] | None = None
) -> dict[str, bytes]:
    """A Zarr v3 group of uint8 arrays (planes, n) as objects, by their names relative to the group.

    One at a time in a process: zarr's settings are those of all its threads, and one that ends here would take them
    from another.

    :param packed: more arrays, by the name of the one that they are packed into.
    """
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    contents: dict[str, Any] = {}
    store = MemoryStore(contents)
    with _ENCODING, zarr.config.set({"json_indent": None, "array.write_empty_chunks": True}):
        group = zarr.create_group(store, attributes=dict(attributes), zarr_format=3)
        for name, array in (arrays | {name: _pack(parts) for name, parts in (packed or {}).items()}).items():
            chunk = (1, max(1, array.shape[1]))
            parts = (packed or {}).get(name)
            target = group.create_array(
                name,
                shape=array.shape,
                chunks=chunk,
                shards=(max(1, len(array)), chunk[1]) if parts is not None else None,
                dtype="uint8",
                compressors=ZstdCodec(level=ZSTD_LEVEL),
                fill_value=0,
                attributes={PARTS: [[key, *part.shape] for key, part in parts.items()]} if parts is not None else None,
            )
            if array.size:
                target[:] = array
    objects = {name: contents[name].to_bytes() for name in sorted(contents)}
    if packed:  # zarr-python writes spaces
        described = {name: json.loads(data) for name, data in objects.items() if name.endswith(GROUP)}
        objects |= {name: json.dumps(found, separators=(",", ":")).encode() for name, found in described.items()}
    return objects


def _pack(arrays: Mapping[str, U8]) -> U8:
    """Some arrays (planes, n), one below the other, with zeros behind the shorter."""
    width = max((array.shape[1] for array in arrays.values()), default=0)
    return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays.values()])


def decode_array(name: str, planes: int, length: int, get: Callable[[str], bytes]) -> U8:
    """One array of a group, uint8 (planes, length). No more is unpacked than that, whatever a chunk claims.

    :param get: gives an object's checked bytes by its name relative to the group.
    :raises ValueError: a chunk does not hold ``length`` bytes.
    """
    array = np.empty((planes, length), dtype=np.uint8)
    if not length:
        return array
    for plane in range(planes):
        chunk = f"{name}/c/{plane}/0"
        array[plane] = _unpacked(get(chunk), length, chunk)
    return array


def decode_packed(
    holder: str, parts: Mapping[str, Part], names: Sequence[str], get: Callable[[str], bytes]
) -> dict[str, U8]:
    """Some of the arrays that are packed into one, each uint8 (planes, length).

    :param holder: the name of that one. :param parts: of all that are, see :func:`packed_parts`.
    :param get: as of :func:`decode_array`.
    :raises ValueError: the shard is not of that many planes, or what lies behind an array in its rows is not zero.
    """
    planes = sum(part.planes for part in parts.values())
    width = max((part.length for part in parts.values()), default=0)
    if not width:
        return {name: np.zeros((parts[name].planes, 0), dtype=np.uint8) for name in names}
    where = f"{holder}/c/0/0"
    shard = get(where)
    index_bytes = planes * 2 * _INDEX.itemsize
    end = len(shard) - index_bytes - _CHECKSUM_BYTES
    if end < 0:
        raise ValueError(f"{where} has {len(shard)} bytes, too few for the index of {planes} planes")
    index = np.frombuffer(shard, dtype=_INDEX, count=2 * planes, offset=end).reshape(planes, 2).tolist()
    view, arrays = memoryview(shard), {}
    for name in names:
        row, count, length = parts[name]
        array = np.empty((count, width), dtype=np.uint8)
        for plane in range(count):
            offset, size = index[row + plane]
            if offset + size > end:
                raise ValueError(f"{where}: plane {row + plane} lies at {offset} to {offset + size}, beyond {end}")
            array[plane] = _unpacked(view[offset : offset + size], width, f"{where}: plane {row + plane}")
        if array[:, length:].any():
            raise ValueError(f"{where}: {name} has other than zeros behind its {length} columns")
        arrays[name] = array[:, :length]
    return arrays


def _unpacked(content: bytes | memoryview, length: int, chunk: str) -> U8:
    import pyarrow as pa

    try:
        return np.frombuffer(pa.decompress(content, length, codec="zstd"), dtype=np.uint8)
    except (pa.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{chunk} is not a zstd frame of {length} bytes: {why}") from error


def array_shape(metadata: bytes, name: str) -> tuple[int, int]:
    """(planes, n) from an array's ``zarr.json``, which describes such an array as this module writes and no other.

    Plain Zarr libraries then read the same bytes, and load no codec that is not of the specification.

    :raises ValueError: it describes something else.
    """
    found, (planes, length) = _description(metadata, name)
    _require_described(found, name, [1, max(1, length)])
    if not _is_zstd(found.get("codecs")):
        raise ValueError(f"{name}: codecs are {shown(found.get('codecs'))}; allowed are bytes and zstd")
    return planes, length


def packed_parts(metadata: bytes, holder: str) -> dict[str, Part]:
    """The arrays that are packed into one, by name, from the ``zarr.json`` of that; as strict as :func:`array_shape`.

    :raises ValueError: it describes something else.
    """
    found, (planes, width) = _description(metadata, holder)
    _require_described(found, holder, [max(1, planes), max(1, width)])
    if not _is_shard(found.get("codecs"), max(1, width)):
        raise ValueError(
            f"{holder}: codecs are {shown(found.get('codecs'))}; allowed is a shard of planes, as bytes and zstd"
        )
    attributes = found.get("attributes")
    listed = attributes.get(PARTS) if isinstance(attributes, dict) else None
    parts: dict[str, Part] = {}
    row = 0
    each: Any
    for each in listed if isinstance(listed, list) else [None]:
        fine = isinstance(each, list) and len(each) == 3 and isinstance(each[0], str) and each[0] not in parts
        if not fine or any(type(n) is not int or not 0 <= n < 1 << 48 for n in each[1:]):
            raise ValueError(f"{holder}: {PARTS} are {shown(listed)}, not [name, planes, n] of each array")
        parts[each[0]] = Part(row, each[1], each[2])
        row += each[1]
    if (row, max((part.length for part in parts.values()), default=0)) != (planes, width):
        raise ValueError(f"{holder} is of shape ({planes}, {width}), which its {PARTS} {shown(listed)} are not")
    return parts


def _description(metadata: bytes, name: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """What an array's ``zarr.json`` says, and its shape.

    :raises ValueError: it is no JSON, or of an array of other dimensions.
    """
    try:
        found = json.loads(metadata) if len(metadata) <= _MOST_DESCRIPTION else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}/{GROUP} is no JSON") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name}/{GROUP} describes no array")
    shape = found.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape):
        raise ValueError(f"{name} is of shape {shown(shape)}, not (planes, n)")
    return found, (shape[0], shape[1])


def _require_described(found: dict[str, Any], name: str, chunk: list[int]) -> None:
    """Refuse all that no array of a store says, but for its codecs.

    :raises ValueError: it says something else.
    """
    expected: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise ValueError(f"{name}: {key} is {shown(found.get(key))}, not {json.dumps(value)}")
    strange = sorted(found.keys() - expected.keys() - {"shape", "codecs", "attributes", "dimension_names"})
    if strange and (strange != ["storage_transformers"] or found["storage_transformers"]):
        raise ValueError(f"{name}/{GROUP} has {shown(strange[0])}, which no array of a store has")


def is_group(metadata: bytes) -> bool:
    """Whether a ``zarr.json`` is that of a group."""
    try:
        found = json.loads(metadata) if len(metadata) <= _MOST_DESCRIPTION else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("node_type") == "group" and found.get("zarr_format") == 3


def _is_zstd(codecs: Any) -> bool:
    """Whether codecs are the bytes as they are, and zstd over them."""
    if not isinstance(codecs, list) or len(codecs) != 2 or not all(isinstance(codec, dict) for codec in codecs):
        return False
    first, second = codecs
    configured = second.get("configuration")
    return (
        first.get("name") == "bytes"
        and first.get("configuration", {}) in ({}, {"endian": "little"})
        and second.get("name") == "zstd"
        and isinstance(configured, dict)
        and configured.keys() <= {"level", "checksum"}
        and first.keys() | second.keys() <= {"name", "configuration"}
    )


def _is_shard(codecs: Any, width: int) -> bool:
    """Whether codecs are one shard of inner chunks (1, width), each as :func:`_is_zstd`, with its index at the end."""
    if not isinstance(codecs, list) or len(codecs) != 1 or not isinstance(codecs[0], dict):
        return False
    found = codecs[0].get("configuration")
    little = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return (
        codecs[0].get("name") == "sharding_indexed"
        and codecs[0].keys() == {"name", "configuration"}
        and isinstance(found, dict)
        and found.keys() <= {"chunk_shape", "codecs", "index_codecs", "index_location"}
        and found.get("chunk_shape") == [1, width]
        and _is_zstd(found.get("codecs"))
        and found.get("index_codecs") == little
        and found.get("index_location", "end") == "end"
    )
