"""TensorFlow's TensorBundle, the format of ``variables/`` in a SavedModel, read without TensorFlow.

``variables.index`` is a table in LevelDB's format: blocks of sorted keys, an index block, a footer of 48 bytes. The
empty key holds a ``BundleHeaderProto``; every other key is the name of a tensor, and its value a ``BundleEntryProto``
with type, shape and place. The values themselves lie, one after the other, in ``variables.data-00000-of-00001`` and
its kin, the shards. Blocks and tensors each have a CRC-32C, masked as LevelDB masks them, and all that is read is held
against it.

A bundle is a stranger's file: no size, offset or number in it is believed before it is held against the bytes that are
there, and what is wrong is one line of a :class:`BundleError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

import numpy as np

from logitstore.arrays import F32

#: Bytes that an index may have, and tensors that it may name.
MOST_INDEX = 1 << 24
_MOST_TENSORS = 20_000
_MOST_SHARDS = 10_000
_MOST_DIMENSIONS = 8
_MOST_NAME = 1024

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER = 5  # the type of a block and its checksum
_COMPRESSIONS = {1: "Snappy", 2: "zlib", 4: "zstd"}
_MASK = 0xA282EAD8
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BundleError(ValueError):
    """What is wrong with a bundle; the caller says with which."""


class Files(Protocol):
    """The files of a folder or of an archive."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none of this name."""

    def open(self, name: str) -> IO[bytes]:
        """A file to read, which can be sought forwards."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    :param dtype: TensorFlow's number of its type; 1 is float32. :param shape: its dimensions.
    :param shard: number of the file of data; ``offset`` and ``size``: bytes in it.
    :param checksum: the masked CRC-32C of these bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


@dataclass(frozen=True)
class Index:
    """What an index says: the number of ``shards``, and the tensors by name."""

    shards: int
    entries: dict[str, Entry]


def masked_crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli) of bytes, rotated and shifted as LevelDB stores it."""
    from numcodecs.checksum32 import CRC32C

    crc = int.from_bytes(bytes(CRC32C(location="start").encode(content)[:4]), "little") if content else 0
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def read_index(content: bytes) -> Index:
    """The tensors of a ``variables.index``, none of which is read.

    :raises BundleError: not such a file, a damaged one, or one with compressed blocks or of another byte order.
    """
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise BundleError(
            f"its {len(content):,} bytes do not end as a TensorBundle's index does; it is another file, or cut short"
        )
    footer = _Reader(content[-_FOOTER:-8], "its footer")
    footer.varint()
    footer.varint()  # the index of indices, which is empty
    shards, end, last = 0, 0, b""
    entries: dict[str, Entry] = {}
    for _, handle in _block(content, footer.varint(), footer.varint()):
        place = _Reader(handle, "its index of blocks")
        offset, size = place.varint(), place.varint()
        if offset < end:
            raise BundleError(f"its block at byte {offset:,} lies within another; the file is damaged")
        end = offset + size
        for key, value in _block(content, offset, size):
            if not key and not shards:
                shards = _header(value)
                continue
            name = _name(key)
            if key <= last or not shards or len(entries) >= _MOST_TENSORS:
                raise BundleError(
                    f"it names more than {_MOST_TENSORS:,} tensors"
                    if len(entries) >= _MOST_TENSORS
                    else f"it names {name[:60]!r} where its header or another name must stand; the file is damaged"
                )
            last, entries[name] = key, _entry(value, name)
    if not shards:
        raise BundleError("it is a table of LevelDB without the header of a TensorBundle")
    return Index(shards, entries)


def read_tensors(files: Files, stem: str, index: Index, names: list[str]) -> dict[str, F32]:
    """Some float32 tensors of a bundle by name, each held against its checksum.

    :param stem: what stands before ``.index`` in the name of the index's file.
    :raises BundleError: no such tensor, another type, a file that is missing or too short, or damaged values.
    :raises OSError: a file cannot be read.
    """
    for name in names:
        _check(index, name)
    found: dict[str, F32] = {}
    for shard in sorted({index.entries[name].shard for name in names}):
        file = f"{stem}.data-{shard:05d}-of-{index.shards:05d}"
        size = files.size(file)
        if size is None:
            raise BundleError(f"its values lie in {file!r}, which is not there")
        there = sorted((index.entries[name].offset, name) for name in names if index.entries[name].shard == shard)
        if sum(index.entries[name].size for _, name in there) > size:
            raise BundleError(f"its tensors claim more than the {size:,} bytes that {file!r} has")
        with files.open(file) as data:
            for offset, name in there:
                entry = index.entries[name]
                if offset + entry.size > size:
                    raise BundleError(
                        f"{name!r} lies at bytes {offset:,} to {offset + entry.size:,} of {file!r}, which has only "
                        f"{size:,}; it is cut short"
                    )
                data.seek(offset)
                content = data.read(entry.size)
                if len(content) != entry.size or masked_crc32c(content) != entry.checksum:
                    raise BundleError(f"{name!r} is damaged: its bytes in {file!r} do not have its CRC-32C")
                found[name] = np.frombuffer(content, "<f4").astype(np.float32).reshape(entry.shape)
    return found


class _Reader:
    """The bytes of something, from its start to its end."""

    def __init__(self, content: bytes, what: str) -> None:
        self.content, self.what, self.at = content, what, 0

    def __bool__(self) -> bool:
        return self.at < len(self.content)

    def take(self, size: int) -> bytes:
        """So many bytes more."""
        if size > len(self.content) - self.at:
            raise BundleError(f"{self.what} ends too early; the file is damaged")
        self.at += size
        return self.content[self.at - size : self.at]

    def varint(self) -> int:
        """An unsigned number of 64 bits, seven of them a byte, the lowest first."""
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    break
                return value
        raise BundleError(f"{self.what} has a number of more than 64 bits; the file is damaged")

    def fields(self) -> Iterator[tuple[int, int, int | bytes]]:
        """The fields of a message of Protocol Buffers: number, wire type and value."""
        while self:
            key = self.varint()
            kind = key & 7
            if kind == _VARINT:
                yield key >> 3, kind, self.varint()
            elif kind == _BYTES:
                yield key >> 3, kind, self.take(self.varint())
            elif kind in (_FIXED32, _FIXED64):
                yield key >> 3, kind, int.from_bytes(self.take(4 if kind == _FIXED32 else 8), "little")
            else:
                raise BundleError(f"{self.what} has a field of the unknown wire type {kind}; the file is damaged")


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block of a table, in their order."""
    end = offset + size
    if end + _TRAILER > len(content) - _FOOTER:
        raise BundleError(f"a block lies at bytes {offset:,} to {end:,} of {len(content):,}; the file is damaged")
    kind = content[end]
    if kind:
        how = _COMPRESSIONS.get(kind, f"type {kind}")
        raise BundleError(f"its blocks are compressed ({how}), which TensorFlow does not do; write the model anew")
    if masked_crc32c(content[offset : end + 1]) != int.from_bytes(content[end + 1 : end + _TRAILER], "little"):
        raise BundleError(f"the block at byte {offset:,} is damaged: its bytes do not have its CRC-32C")
    block = content[offset:end]
    restarts = struct.unpack("<I", block[-4:])[0] if size >= 4 else 0
    if not 0 < restarts <= size // 4 - 1:
        raise BundleError(f"the block at byte {offset:,} claims {restarts:,} restarts in {size:,} bytes")
    reader = _Reader(block[: -4 * (restarts + 1)], f"the block at byte {offset:,}")
    key = b""
    while reader:
        shared, fresh, length = reader.varint(), reader.varint(), reader.varint()
        if shared > len(key) or shared + fresh > _MOST_NAME:
            raise BundleError(f"the block at byte {offset:,} has a key of more bytes than can be; the file is damaged")
        key = key[:shared] + reader.take(fresh)
        yield key, reader.take(length)


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise BundleError(f"it names a tensor {key[:60]!r}, which is no UTF-8") from None


def _header(value: bytes) -> int:
    """The number of shards that a ``BundleHeaderProto`` states."""
    numbers = {number: said for number, kind, said in _Reader(value, "its header").fields() if kind == _VARINT}
    shards = int(numbers.get(1, 0))
    if numbers.get(2, 0):
        raise BundleError("its values are big-endian; only little-endian ones are read")
    if not 1 <= shards <= _MOST_SHARDS:
        raise BundleError(f"it claims {shards:,} files of values; allowed are 1 to {_MOST_SHARDS:,}")
    return shards


def _entry(value: bytes, name: str) -> Entry:
    """A ``BundleEntryProto``."""
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    for number, _, said in _Reader(value, f"the entry of {name!r}").fields():
        if number == 2:
            shape = _shape(said if isinstance(said, bytes) else b"", name)
        elif isinstance(said, int):
            numbers[number] = said
    dtype, shard, offset, size, checksum = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
    return Entry(dtype, shape, shard, offset, size, checksum)


def _shape(value: bytes, name: str) -> tuple[int, ...]:
    """A ``TensorShapeProto``."""
    what = f"the shape of {name!r}"
    dimensions = []
    for number, _, said in _Reader(value, what).fields():
        if number == 2 and isinstance(said, bytes):
            sizes = [size for field, _, size in _Reader(said, what).fields() if field == 1 and isinstance(size, int)]
            dimensions.append(sizes[-1] if sizes else 0)
            if len(dimensions) > _MOST_DIMENSIONS:
                raise BundleError(f"{what} has more than {_MOST_DIMENSIONS} dimensions")
    return tuple(dimensions)


def _check(index: Index, name: str) -> None:
    """Refuse a tensor that is not there, or whose shape does not fit its bytes."""
    entry = index.entries.get(name)
    if entry is None:
        raise BundleError(f"none of its {len(index.entries)} tensors is {name!r}")
    if entry.dtype != _FLOAT:
        raise BundleError(f"{name!r} is of TensorFlow's type {entry.dtype}; only float32, type 1, is read")
    if 4 * math.prod(entry.shape) != entry.size:
        raise BundleError(f"{name!r} has the shape {entry.shape} and {entry.size:,} bytes; they do not fit")
    if entry.shard >= index.shards:
        raise BundleError(f"{name!r} lies in file {entry.shard} of values, and there are {index.shards}")
