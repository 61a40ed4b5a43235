"""Byte arrays as Zarr objects: name -> bytes. Written with zarr-python, read back without it.

Every array of a block is uint8 of shape (planes, n) in chunks of (1, n), each chunk one zstd frame. That is little
enough to read directly, which spares a cold reader the import of zarr, and lets it check a digest before it decodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from logitstore.arrays import U8
from logitstore.store.names import shown

ZSTD_LEVEL = 19
GROUP = "zarr.json"
_MOST_DESCRIPTION = 1 << 16


def encode_group(arrays: Mapping[str, U8], attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """A Zarr v3 group of uint8 arrays (planes, n) as objects, by their names relative to the group."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    contents: dict[str, Any] = {}
    store = MemoryStore(contents)
    with zarr.config.set({"json_indent": None, "array.write_empty_chunks": True}):
        group = zarr.create_group(store, attributes=dict(attributes), zarr_format=3)
        for name, array in arrays.items():
            target = group.create_array(
                name,
                shape=array.shape,
                chunks=(1, max(1, array.shape[1])),
                dtype="uint8",
                compressors=ZstdCodec(level=ZSTD_LEVEL),
                fill_value=0,
            )
            if array.size:
                target[:] = array
    return {name: contents[name].to_bytes() for name in sorted(contents)}


def decode_array(name: str, planes: int, length: int, get: Callable[[str], bytes]) -> U8:
    """One array of a group, uint8 (planes, length). No more is unpacked than that, whatever a chunk claims.

    :param get: gives an object's checked bytes by its name relative to the group.
    :raises ValueError: a chunk does not hold ``length`` bytes.
    """
    import pyarrow as pa

    array = np.empty((planes, length), dtype=np.uint8)
    if not length:
        return array
    for plane in range(planes):
        chunk = f"{name}/c/{plane}/0"
        content = get(chunk)
        try:
            array[plane] = np.frombuffer(pa.decompress(content, length, codec="zstd"), dtype=np.uint8)
        except (pa.ArrowException, OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{chunk} is not a zstd frame of {length} bytes: {why}") from error
    return array


def array_shape(metadata: bytes, name: str) -> tuple[int, int]:
    """(planes, n) from an array's ``zarr.json``, which describes such an array as this module writes and no other.

    Plain Zarr libraries then read the same bytes, and load no codec that is not of the specification.

    :raises ValueError: it describes something else.
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
    planes, length = shape
    expected: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, max(1, length)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise ValueError(f"{name}: {key} is {shown(found.get(key))}, not {json.dumps(value)}")
    if not _is_zstd(found.get("codecs")):
        raise ValueError(f"{name}: codecs are {shown(found.get('codecs'))}; allowed are bytes and zstd")
    strange = sorted(found.keys() - expected.keys() - {"shape", "codecs", "attributes", "dimension_names"})
    if strange and (strange != ["storage_transformers"] or found["storage_transformers"]):
        raise ValueError(f"{name}/{GROUP} has {shown(strange[0])}, which no array of a store has")
    return planes, length


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
