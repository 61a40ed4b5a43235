"""TensorBundles: what is read, and what of a stranger's file is refused."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from logitstore.models.tensorbundle import BundleError, masked_crc32c, read_index, read_tensors
from tests.bundles import block, entry, field, masked, table, varint, write_bundle

HEADER = (b"", field(1, 1))


class Files:
    """Those of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, name: str) -> int | None:
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")


def tensors(count: int = 45) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    shapes = [(), (1,), (2, 3), (3, 1, 4), (5,)]
    return {f"layer-{n}/{'x' * (n % 4)}kernel": random.normal(size=shapes[n % 5]).astype("f4") for n in range(count)}


def read(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    index = read_index((folder / "v.index").read_bytes())
    return read_tensors(Files(folder), "v", index, names)


def test_the_checksum_is_crc32c_as_leveldb_masks_it():
    unmasked = 0xE3069283  # of "123456789", the check value of CRC-32C
    assert masked_crc32c(b"123456789") == ((unmasked >> 15 | unmasked << 17) + 0xA282EAD8) & 0xFFFFFFFF
    for content in (b"", b"\0", bytes(range(256))):
        assert masked_crc32c(content) == masked(content)


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_come_back_from_any_number_of_files(tmp_path, shards):
    written = tensors()
    write_bundle(tmp_path / "v", written, shards)
    index = read_index((tmp_path / "v.index").read_bytes())
    assert (index.shards, set(index.entries)) == (shards, set(written))
    back = read(tmp_path, [*written])
    for name, tensor in written.items():
        np.testing.assert_array_equal(back[name], tensor)
        assert back[name].shape == tensor.shape


def test_a_changed_byte_of_a_value_names_its_tensor(tmp_path):
    written = tensors(9)
    write_bundle(tmp_path / "v", written)
    place = read_index((tmp_path / "v.index").read_bytes()).entries["layer-7/xxxkernel"]
    data = bytearray((tmp_path / "v.data-00000-of-00001").read_bytes())
    data[place.offset] ^= 1
    (tmp_path / "v.data-00000-of-00001").write_bytes(data)
    with pytest.raises(BundleError, match=r"'layer-7/xxxkernel' is damaged: its bytes in .* do not have its CRC-32C"):
        read(tmp_path, [*written])
    assert len(read(tmp_path, ["layer-8/kernel"])) == 1


def test_a_file_of_values_that_is_missing_or_cut_is_named(tmp_path):
    written = tensors(9)
    write_bundle(tmp_path / "v", written, 2)
    data = tmp_path / "v.data-00001-of-00002"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"lies at bytes [\d,]+ to [\d,]+ of 'v.data-00001-of-00002', which has only"):
        read(tmp_path, [*written])
    data.unlink()
    with pytest.raises(BundleError, match=r"lie in 'v.data-00001-of-00002', which is not there"):
        read(tmp_path, [*written])


def test_no_cut_and_no_changed_byte_of_an_index_passes_or_ends_in_another_error(tmp_path):
    write_bundle(tmp_path / "v", tensors(30))
    whole = (tmp_path / "v.index").read_bytes()
    expected = read_index(whole)
    footer, unread = len(whole) - 48, 0
    for size in range(0, len(whole), 7):
        with pytest.raises(BundleError, match=r"cut short"):
            read_index(whole[:size])
    for at in [*range(0, footer, 11), *range(footer, len(whole))]:
        changed = bytearray(whole)
        changed[at] ^= 0x55
        found = None
        with suppress(BundleError):
            found = read_index(bytes(changed))
        assert found in (None, expected)
        unread += found is not None
    assert unread < 45  # the padding of the footer, the index of indices, and where that lies


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes do not end as a TensorBundle's index"),
        (b"PK\3\4" * 40, "do not end as a TensorBundle's index"),
        (table([(b"a", b"b")]), "names 'a' where its header"),
        (table([]), "without the header"),
        (table([HEADER], kind=1), r"compressed \(Snappy\)"),
        (table([HEADER], kind=9), r"compressed \(type 9\)"),
        (table([(b"", field(1, 1) + field(2, 1))]), "big-endian"),
        (table([(b"", field(1, 1 << 40))]), "claims 1,099,511,627,776 files"),
        (table([HEADER, (b"b", b""), (b"a", b"")]), "names 'a' where"),
        (table([HEADER, (b"b", b""), (b"b", b"")]), "names 'b' where"),
        (table([HEADER, (b"\xff", b"")]), "no UTF-8"),
        (table([HEADER, (b"k" * 2000, b"")]), "a key of more bytes than can be"),
        (table([HEADER, (b"a", b"\x0f")]), "wire type 7"),
        (table([HEADER, (b"a", b"\x08" + b"\xff" * 10 + b"\x01")]), "more than 64 bits"),
        (table([HEADER, (b"a", b"\x12\x7f")]), "the entry of 'a' ends too early"),
        (table([HEADER, (b"a", field(2, b"".join([field(2, field(1, 2))] * 9)))]), "more than 8 dimensions"),
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_is_refused(content, message):
    with pytest.raises(BundleError, match=message):
        read_index(content)


def test_blocks_that_lie_within_each_other_are_refused():
    part = block([HEADER])
    handle = varint(0) + varint(len(part) - 5)
    index = block([(b"a", handle), (b"b", handle)])
    footer = varint(0) + varint(0) + varint(len(part)) + varint(len(index) - 5)
    whole = part + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    with pytest.raises(BundleError, match="lies within another"):
        read_index(whole)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry((2, 3), 0, 0, b"\0" * 20), r"the shape \(2, 3\) and 20 bytes"),
        (entry((1 << 62, 1 << 62, 0), 0, 0, b"\0" * 4), "they do not fit"),
        (entry((2,), 0, 0, b"\0" * 8, dtype=3), "of TensorFlow's type 3; only float32"),
        (entry((2,), 4, 0, b"\0" * 8), "lies in file 4 of values, and there are 1"),
        (entry((2,), 0, 1 << 62, b"\0" * 8), "lies at bytes 4,611,686,018,427,387,904"),
        (entry((40,), 0, 0, b"\0" * 160), "claim more than the 64 bytes"),
        (b"", "type 0"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_before_it_is_read(tmp_path, value, message):
    (tmp_path / "v.index").write_bytes(table([HEADER, (b"a", value)]))
    (tmp_path / "v.data-00000-of-00001").write_bytes(b"\0" * 64)
    with pytest.raises(BundleError, match=message):
        read(tmp_path, ["a"])


def test_a_name_that_is_not_there_is_named(tmp_path):
    write_bundle(tmp_path / "v", tensors(3))
    with pytest.raises(BundleError, match="none of its 3 tensors is 'b'"):
        read(tmp_path, ["b"])
