"""Byte arrays as Zarr objects: name -> bytes. Written with zarr-python, read back without it.

Every array of a block is uint8 of shape (planes, n) in chunks of (1, n), each chunk one zstd frame. That is little
enough to read directly, which spares a cold reader the import of zarr, and lets it check a digest before it decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from logitstore.arrays import U8
from logitstore.errors import CorruptStoreError

ZSTD_LEVEL = 19
GROUP = "zarr.json"


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
    """One array of a group, uint8 (planes, length).

    :param get: gives an object's checked bytes by its name relative to the group.
    :raises CorruptStoreError: a chunk does not hold ``length`` bytes.
    """
    from numcodecs.zstd import Zstd

    array = np.empty((planes, length), dtype=np.uint8)
    if not length:
        return array
    codec = Zstd()
    for plane in range(planes):
        chunk = f"{name}/c/{plane}/0"
        try:
            decoded = np.frombuffer(codec.decode(get(chunk)), dtype=np.uint8)
        except RuntimeError as error:
            raise CorruptStoreError(f"{chunk} is not a zstd frame: {error}") from error
        if len(decoded) != length:
            raise CorruptStoreError(f"{chunk} holds {len(decoded)} bytes, not {length}")
        array[plane] = decoded
    return array


def array_shape(metadata: bytes) -> tuple[int, int]:
    """(planes, n) from an array's ``zarr.json``."""
    import json

    planes, length = json.loads(metadata)["shape"]
    return int(planes), int(length)
