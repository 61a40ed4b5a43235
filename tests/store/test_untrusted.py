"""Stores by strangers: what is in one leads nowhere outside of it, and takes no more than what is there.

Digests are right everywhere, for anybody can compute them. ``tests/faults/test_fuzz_store.py`` tries the rest.
"""

# ruff: noqa: E501 - tables of what is refused, a line each
from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore import open_store
from logitstore.errors import CorruptStoreError, LogitstoreError, StoreError, UsageError
from logitstore.jobs.status import status
from logitstore.jobs.verify.audit import audit
from logitstore.store import claims
from logitstore.store.cloud import ObjectStorage
from logitstore.store.format import room
from logitstore.store.format.manifest import decode_root
from logitstore.store.format.objects import array_shape, decode_array
from logitstore.store.names import check_name, group_attempt
from logitstore.store.storage import LocalStorage, Storage
from logitstore.store.writer import StoreWriter
from tests.faults.fuzz_store import digest, signed
from tests.small_store import Spec, make_store
from tests.stores import contents

SPEC = Spec(clips=6, shard_clips=4, view_ranges=((0, 2),), failed=(1,), version=1)  # an object for each array


@pytest.fixture
def made(tmp_path) -> Path:
    """A store of six clips in two blocks, in a folder with something precious beside it."""
    make_store(tmp_path / "home" / "store", SPEC, label=pa.array(["a", "b"] * 3))
    (tmp_path / "home" / "documents").mkdir()
    (tmp_path / "home" / "documents" / "thesis.txt").write_text("precious")
    return tmp_path / "home" / "store"


def committed(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the commits of a store, and put their digests right."""
    for file in (store / "commits").iterdir():
        commit = json.loads(file.read_bytes())
        change(commit)
        file.write_bytes(signed(commit))


def put_root(store: Path, content: bytes) -> None:
    """Another manifest, under which everything was committed."""
    (store / "zarr.json").write_bytes(content)
    committed(store, lambda commit: commit.update(manifest_digest=digest(content)))


def put_part(store: Path, content: bytes) -> None:
    """Another clip table."""
    (store / "clips" / "00000.parquet").write_bytes(content)
    committed(store, lambda commit: commit.update(clip_table_digest=digest(content)))


def put_object(store: Path, name: str, content: bytes) -> None:
    """Another object in every block."""

    def change(commit: dict[str, Any]) -> None:
        (store / commit["group"] / name).write_bytes(content)
        commit["objects"][name] = digest(content)

    committed(store, change)


def read_everything(path: Path) -> None:
    """What any reader does with a store."""
    store = open_store(path)
    for view in range(store.views):
        store.targets(view, store.clips_of(view))
        store.draws(view)
    _ = store.clips, store.sql("SELECT count(class) FROM topk").to_pylist(), status(str(path)).render()


def refused(path: Path, match: str) -> None:
    """Reading is an error of one line, `verify` names the same, and nothing in the store has changed."""
    before = {name for name, _ in LocalStorage(path)._walk("")}
    with pytest.raises(LogitstoreError, match=match) as caught:
        read_everything(path)
    assert "\n" not in str(caught.value)
    found = audit(LocalStorage(path))
    assert found.problems
    assert all("\n" not in problem for problem in found.problems)
    assert {name for name, _ in LocalStorage(path)._walk("")} == before


# names


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../x", "/etc/passwd", "a//b", "a/", "a\\b", "a\0b", "a\nb", "x" * 300,
                                  "/".join("x" * 900), "a/./b"])  # fmt: skip
@pytest.mark.parametrize("place", ["folder", "memory"])
def test_no_name_leads_out_of_a_store(tmp_path, name, place):
    (tmp_path / "x").write_text("precious")
    storage: Storage = LocalStorage(tmp_path / "s") if place == "folder" else ObjectStorage("memory://names")
    for act in (
        storage.get,
        storage.size,
        storage.delete,
        lambda name: storage.put(name, b""),
        lambda name: storage.create(name, b""),
        lambda name: list(storage.get_many([name])),
    ):
        with pytest.raises(CorruptStoreError, match="is no name of an object of a store"):
            act(name)
    assert (tmp_path / "x").read_text() == "precious"


@pytest.mark.parametrize("name", ["zarr.json", "blocks/000000-0-10/classes/c/0/0", "claims/000001.json", "a b/é"])
def test_names_of_stores_are_taken(name):
    check_name(name, "")


def test_a_group_is_that_of_its_block_and_no_other():
    assert [group_attempt(f"blocks/000001-0-2{end}", "000001-0-2") for end in ("", ".r2", ".r10")] == [1, 2, 10]
    for group in ("blocks/000001-0-2.r1", "blocks/000001-0-2.r02", "blocks/000001-0-2.r", "blocks/000001-0-2.r2/..",
                  "blocks/000000-0-2", "blocks/000001-0-2.r²", "x/000001-0-2", "blocks/000001-0-2.r2.r2", ".", ""):  # fmt: skip
        assert group_attempt(group, "000001-0-2") is None


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        *(({"group": group}, "group is") for group in ("../documents", "/home/documents", ".", "", "blocks", "blocks/../x",
                                                     "blocks/000000-0-2/..", "a\0b", "blocks/000009-0-2", "x" * 5000)),
        *(({"clip_table": name}, "clip_table is") for name in ("../x", "clips", "clips/x.parquet", "a\0b", "/dev/zero")),
        *(({"objects": {name: "0" * 32}}, "is no object of a block")
          for name in ("../../../x", "x", "classes", "classes/c/-1/0", "classes/c/01/0", "x" * 5000, "classes/c/0/1")),
        *(({name: value}, "its numbers are") for name in ("shard", "first_clip", "clips", "view_start", "view_stop")
          for value in (-1, 2**70, 10**30)),
        ({"clips": 0}, "it has no clips"),
        ({"view_start": 2}, "is damaged"),
        *(({"failed": failed}, "the failed rows are not rising") for failed in ([[4, "x"]], [[-1, "x"]], [[2**70, "x"]],
                                                                          [[1, "x"], [1, "x"]], [[2, "x"], [1, "x"]])),
        ({"failed": [[0.5, "x"]]}, "is damaged"),
        ({"shard": True}, "is damaged"),
        ({"first_clip": 1}, "its shard has"),
        ({"clips": 3}, "its shard has"),
        ({"clip_table": "clips/00007.parquet"}, r"its shard has|00007\.parquet is missing"),
        *(({"fingerprints": [{"row": 0, "view": 0, "waveform": "", "features": "", "bands": [0.5] * 8} | each]}, "the fingerprint of")
          for each in ({"row": 4}, {"row": 1}, {"view": 2}, {"row": -1}, {"bands": [0.5]}, {"row": 10**30})),
    ],
)  # fmt: skip
def test_a_commit_that_no_builder_writes_is_refused(made, fields, match):
    name = "000000-0-2"
    file = made / "commits" / f"{name}.json"
    file.write_bytes(signed(json.loads(file.read_bytes()) | fields))
    refused(made, match)
    table = pq.read_table(made / "clips" / "00000.parquet")
    with pytest.raises(LogitstoreError, match=match):  # so does whoever would write
        StoreWriter.open(LocalStorage(made), decode_root((made / "zarr.json").read_bytes(), ""), table)
    assert (made.parent / "documents" / "thesis.txt").read_text() == "precious"


def test_views_are_held_by_one_commit(made):
    commit = json.loads((made / "commits" / "000000-0-2.json").read_bytes())
    other = commit | {"view_start": 1, "view_stop": 3, "group": "blocks/000000-1-3"}
    (made / "commits" / "000000-1-3.json").write_bytes(signed(other))
    refused(made, "000000-1-3.json holds views that another commit of its shard holds too")


def test_what_is_no_commit_and_no_part_is_left_aside_and_named(made):
    for name in (
        "commits/x.json",
        "commits/.DS_Store",
        "commits/0-0-2.json",
        "commits/000000-0-2 (1).json",
        "clips/x.parquet",
    ):
        (made / name).write_text("[")
    read_everything(made)
    assert sum("is no part of a store" in problem for problem in audit(LocalStorage(made)).problems) == 5


def test_parts_have_no_gaps(made):
    (made / "clips" / "00002.parquet").write_bytes((made / "clips" / "00000.parquet").read_bytes())
    with pytest.raises(CorruptStoreError, match=r"clips/00001\.parquet is missing"):
        read_everything(made)


# what is no file


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (os.mkfifo, "is a FIFO, not a file"),
    "folder": (Path.mkdir, "is a folder, not a file"),
    "socket": (_socket, "is a socket, not a file"),
    "loop": (lambda path: path.symlink_to(path.name), "is a link that leads nowhere"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a link that leads out of the store"),
    "outside": (lambda path: path.symlink_to(path.parents[3] / "documents" / "thesis.txt"), "is a link that leads"),
    "hole": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "has 1,099,511,627,776 bytes"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["zarr.json", "commits/000000-0-2.json", "clips/00000.parquet",
                                  "blocks/000000-0-2/classes/zarr.json", "blocks/000000-0-2/firsts/c/0/0"])  # fmt: skip
def test_only_plain_files_are_read(made, kind, name):
    make, match = KINDS[kind]
    if kind == "folder" and name.startswith("commits"):  # as if it was not there; `verify` misses it
        (made / name).unlink()
        make(made / name)
        assert any(
            "000000-0-2 is a block without a commit" in problem for problem in audit(LocalStorage(made)).problems
        )
        return
    if kind == "folder" and name.startswith("clips"):
        match = "is missing"
    (made / name).unlink()
    make(made / name)
    refused(made, match)


@pytest.mark.parametrize("folder", ["commits", "clips", "blocks", "blocks/000000-0-2", "blocks/000000-0-2/classes"])
def test_a_folder_that_is_a_link_out_of_the_store_is_refused(made, folder):
    (made / folder).rename(made.parent / "away")
    (made / folder).symlink_to(made.parent / "away")
    before = contents(made.parent / "away")
    with pytest.raises(CorruptStoreError, match=f"{folder} is a link that leads out of the store; copy"):
        read_everything(made)
    storage = LocalStorage(made)
    for act in (
        lambda: storage.put(f"{folder}/x", b""),
        lambda: storage.create(f"{folder}/x", b""),
        lambda: storage.delete(f"{folder}/x"),
    ):
        with pytest.raises(CorruptStoreError, match="is a link, and nothing is written through links"):
            act()
    assert contents(made.parent / "away") == before


def test_links_within_a_store_are_followed(made):
    commit = made / "commits" / "000000-0-2.json"
    commit.rename(made / "elsewhere.json")
    commit.symlink_to("../elsewhere.json")
    read_everything(made)


def test_scratch_is_not_written_through_a_link(made):
    (made / "tmp").rmdir() if (made / "tmp").exists() else None
    (made / "tmp").symlink_to(made.parent / "documents")
    storage = LocalStorage(made)
    with pytest.raises(CorruptStoreError, match="tmp is a link"):
        storage.put("x", b"")
    with pytest.raises(CorruptStoreError, match="tmp is a link"):
        storage.sweep_scratch()
    assert [file.name for file in (made.parent / "documents").iterdir()] == ["thesis.txt"]


def test_strange_scratch_is_left_alone(made):
    (made / "tmp").mkdir(exist_ok=True)
    for name in ("readme", "a~b~c", f"a~{socket.gethostname()}~x~y", f"a~{socket.gethostname()}~{'9' * 30}~y"):
        (made / "tmp" / name).write_text("x")
    left = made / "tmp" / f"a~{socket.gethostname()}~{2**31 - 1}~y"  # of a process that is no more
    left.write_text("x")
    LocalStorage(made).sweep_scratch()
    assert len(list((made / "tmp").iterdir())) == 4
    assert not left.exists()


# sizes


def _zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd").to_pybytes())


def _described(store: Path, name: str, **more: Any) -> bytes:
    return json.dumps(json.loads((store / "blocks/000000-0-2" / name / "zarr.json").read_bytes()) | more).encode()


def _shape(planes: int, length: int) -> dict[str, Any]:
    return {"shape": [planes, length], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, length]}}}


@pytest.mark.parametrize("name", ["classes", "views", "firsts", "residuals", "draws"])
@pytest.mark.parametrize("length", [10**8, 10**13])
def test_an_array_is_no_longer_than_its_block_has_room_for(made, name, length):
    planes = json.loads((made / "blocks/000000-0-2" / name / "zarr.json").read_bytes())["shape"][0]
    put_object(made, f"{name}/zarr.json", _described(made, name, **_shape(planes, length)))
    refused(made, f"{name} has {length} columns, not")


@pytest.mark.parametrize(
    "content", [b"", b"x", _zstd(bytes(10**7)), _zstd(bytes(10**7))[:-3], _zstd(b"12") + _zstd(bytes(10**6))]
)
def test_a_chunk_is_unpacked_to_its_length_and_no_further(content):
    with pytest.raises(ValueError, match="a/c/0/0 is not a zstd frame of 3 bytes"):
        decode_array("a", 1, 3, lambda _: content)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": ["a", "b"]}, {"shape": [1]}, {"shape": [1, -5]}, {"shape": [1, 2.0]}, {"shape": [True, 2]}, {"shape": None},
        {"shape": [1, 10**30]}, {"data_type": "float64"}, {"data_type": {"name": "r8"}}, {"fill_value": 1}, {"zarr_format": 2},
        {"node_type": "group"}, {"codecs": []}, {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 19, "dict": "x"}}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {}}]}, {"storage_transformers": [{"name": "x"}]},
        {"must_understand": True}, {"chunk_key_encoding": {"name": "v2"}}, {"chunk_grid": {"name": "rectilinear"}},
    ],
)  # fmt: skip
def test_only_the_arrays_of_the_format_are_opened(made, change):
    with pytest.raises(ValueError, match=r"^firsts"):
        array_shape(_described(made, "firsts", **change), "firsts")
    assert array_shape(_described(made, "firsts"), "firsts")[0] == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"{" * 9, b"9" * 6000, b"\xff", b" " * 70_000]
)
def test_descriptions_that_are_none(content):
    with pytest.raises(ValueError, match=r"^firsts"):
        array_shape(content, "firsts")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"topk": 10**9}, "topk is 1000000000"), ({"topk": 0}, "topk is 0"), ({"topk": 13}, "topk is 13, and must be 1 to 12"),
        ({"topk": 10**30}, "topk is a number of more than 64 bits"), ({"shard_clips": 0}, "shard_clips is 0"),
        ({"shard_clips": -1}, "shard_clips is -1"), ({"sample_rate": 2**63}, "sample_rate is"), ({"sample_rate": 0}, "sample_rate is 0"),
        ({"clip_seconds": 1e300}, "clip_seconds is"), ({"clip_seconds": -1.0}, "clip_seconds is"), ({"clip_seconds": 1e-9}, "no sample"),
        ({"value_bits": 5.0}, "damaged"), ({"value_bits": 3}, "3 bits a value"), ({"scores": "x"}, "scores is"), ({"average": ""}, "average is"),
        ({"seed": -1}, "seed is -1"), ({"seed": 2**64}, "seed is"), ({"classes": []}, "0 classes"), ({"classes": ["x" * 5000] * 12}, "5,000 letters"),
        ({"classes": [str(n) for n in range(65_537)]}, "65,537 classes, and a store has room for 1 to 65,536"),
        ({"digest": "md5"}, "digest is"), ({"teachers": []}, "no teachers"), ({"draw_columns": []}, "draw columns are not those"),
        ({"recipe": {"name": "x", "ops": [{"op": "roll"}]}}, "draw columns are not those"), ({"batch_size": -1}, "batch_size"),
        ({"recipe": {"name": "x", "ops": [{"op": "os.system"}]}}, "unknown op"),
    ],
)  # fmt: skip
def test_a_manifest_that_no_store_has_is_refused(made, fields, match):
    root = json.loads((made / "zarr.json").read_bytes())
    root["attributes"]["logitstore"] |= fields
    put_root(made, json.dumps(root).encode())
    refused(made, match)


def _bytes_of(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{"compression": "zstd"} | options)
    return bytes(sink.getvalue().to_pybytes())


def _clips(rows: int, path: Any = None, **more: Any) -> pa.Table:
    zeros = np.zeros(rows, np.int64)
    path = pa.array([f"{row}.wav" for row in range(rows)]) if path is None else path
    return pa.table({"path": path, "start": zeros, "length": zeros, "rate": zeros.astype(np.int32), **more})


def _repeated(rows: int, text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [text])


TABLES = {
    "a long path in all rows": (lambda: _bytes_of(_clips(20_000, _repeated(20_000, "x" * 1000)), store_schema=False)),
    "a long text of a user": (lambda: _bytes_of(_clips(20_000, more=_repeated(20_000, "x" * 2000)), store_schema=False)),
    "texts in lists": (lambda: _bytes_of(_clips(9, more=pa.array([["x" * 300] * 9000] * 9)))),
    "rows that are all alike": (lambda: _bytes_of(_clips(300_000, _repeated(300_000, "")), store_schema=False)),
    "nothing but nulls": (lambda: _bytes_of(_clips(6, more=pa.array([[None] * 2_000_000] * 6, pa.list_(pa.int64()))))),
    "zeros as they are": (lambda: _bytes_of(_clips(6, more=pa.array([bytes(10**6)] * 6)), use_dictionary=False)),
    "columns within columns": (lambda: _bytes_of(_clips(6, more=_nested(70, 6)))),
}  # fmt: skip


def _nested(depth: int, rows: int) -> pa.Array:
    array = pa.array([1] * rows)
    for _ in range(depth):
        array = pa.StructArray.from_arrays([array], ["x"])
    return array


@pytest.mark.parametrize("which", TABLES)
def test_a_clip_table_takes_no_more_memory_than_its_file_allows(made, monkeypatch, which):
    monkeypatch.setattr(room, "LEAST_ROOM", 1 << 20)
    read_everything(made)
    content = TABLES[which]()
    with pytest.raises(ValueError, match=r"would take .* in memory|cannot be .* rows|nested more than"):
        room.require_room(content, room.open_parquet(content))
    put_part(made, content)
    with pytest.raises(CorruptStoreError, match=r"clips/00000\.parquet"):
        read_everything(made)
    assert audit(LocalStorage(made)).problems


def test_a_page_that_unpacks_to_more_than_it_says_is_not_believed(tmp_path):
    """The sizes of a chunk are claims; those of its pages are what memory is taken for."""
    content = _bytes_of(_clips(6, more=pa.array([bytes(2 * 10**6)] * 6)), use_dictionary=False, write_statistics=False)
    file = room.open_parquet(content)
    claimed = [file.metadata.row_group(0).column(number).total_uncompressed_size for number in range(5)]
    assert max(claimed) > 10**7
    room.require_room(content, file)
    with pytest.raises(ValueError, match=r"would take 12,0.* in memory"):
        _with_room(1 << 20, lambda: room.require_room(content, file))
    _with_room(1 << 20, lambda: room.require_room(content, file, ["path", "start", "length", "rate"]))


def _with_room(least: int, act: Callable[[], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "LEAST_ROOM", least)
        patch.setattr(room, "ROOM_A_BYTE", 1)
        act()


def test_honest_tables_have_room(monkeypatch):
    """Paths that differ, one long file in many clips, labels, lists, and a text a clip: with no more than the ratio."""
    monkeypatch.setattr(room, "LEAST_ROOM", 1 << 18)
    rows = 50_000
    one_file = _clips(rows, _repeated(rows, "recordings/2024/station 7/2024-06-01T00-00-00.wav").cast(pa.string()))
    one_file = one_file.set_column(1, "start", pa.array(np.arange(rows) * 441_000)).set_column(
        2, "length", pa.array(np.full(rows, 441_000))
    )
    labels = pa.array([["Speech", "Music"]] * rows)
    for table in (_clips(rows), one_file, _clips(rows, label=labels), _clips(rows, text=_repeated(rows, "CC BY 4.0"))):
        content = _bytes_of(table, compression_level=19)
        room.require_room(content, room.open_parquet(content))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda table: table.drop_columns(["path"]), "path is missing"),
        (lambda table: table.drop_columns(["length"]), "length is missing"),
        (lambda table: table.set_column(2, "length", pa.nulls(6, pa.int64())), "a length is null"),
        (lambda table: table.set_column(2, "length", pa.array(list("abcdef"))), "length is string"),
        (lambda table: table.set_column(2, "length", pa.array([-1] * 6)), "a length is -1"),
        (lambda table: table.set_column(2, "length", pa.array([2**62] * 6)), "a length is 4611686018427387904"),
        (lambda table: table.set_column(1, "start", pa.array([-5] * 6)), "a start is -5"),
        (lambda table: table.set_column(0, "path", pa.array([b"\xff"] * 6).view(pa.string())), "UTF8"),
        (lambda table: table.append_column("label", table["label"]), "it has the column 'label' twice"),
        (lambda table: table.slice(0, 1), "is of a shard that the clip table does not have|its shard has"),
        (lambda table: pa.concat_tables([table, table]), "its shard has"),
    ],
)
def test_a_clip_table_that_no_store_has_is_refused(made, change, match):
    put_part(made, _bytes_of(change(pq.read_table(made / "clips" / "00000.parquet"))))
    refused(made, match)


@pytest.mark.parametrize("name", ["zarr.json", "commits/000001-0-2.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"", b"null", b"9" * 6000]
)
def test_json_that_no_parser_likes_is_refused(made, name, content):
    (made / name).write_bytes(content)
    with pytest.raises(LogitstoreError, match=r"is not a logitstore|is damaged"):
        read_everything(made)


def test_a_code_that_is_no_probability_is_refused(made):
    root = json.loads((made / "zarr.json").read_bytes())
    root["attributes"]["logitstore"]["value_bits"] = 5
    put_root(made, json.dumps(root).encode())
    refused(made, r"a code is no probability in \(0, 1\)|such views")


def test_a_draw_out_of_its_range_is_refused(made):
    planes, length = array_shape(_described(made, "draws"), "draws")
    for plane in range(planes):
        put_object(made, f"draws/c/{plane}/0", _zstd(b"\xff" * length))
    refused(made, "is outside of its range")


def test_more_classes_than_an_index_can_tell_are_refused_before_anything_is_written(made, tmp_path):
    manifest = decode_root((made / "zarr.json").read_bytes(), "")
    table = pq.read_table(made / "clips" / "00000.parquet")
    for count, fits in ((65_536, True), (65_537, False), (70_000, False)):
        wide = msgspec.structs.replace(manifest, classes=tuple(map(str, range(count))))
        out = LocalStorage(tmp_path / str(count))
        if fits:
            StoreWriter.open(out, wide, table)
            continue
        with pytest.raises(UsageError, match=f"{count:,} classes, and a store has room for 1 to 65,536"):
            StoreWriter.open(out, wide, table)
        assert not out.root.exists()


def test_verify_lists_what_is_wrong_and_goes_on(made):
    file = made / "commits" / "000000-0-2.json"
    file.write_bytes(signed(json.loads(file.read_bytes()) | {"group": "../documents"}))
    os.mkfifo(made / "blocks" / "000001-0-2" / "x")
    (made / "blocks" / "000001-0-2" / "firsts" / "c" / "0" / "0").unlink()
    (made / "a\n\x1b[2J").write_text("x")
    found = audit(LocalStorage(made))
    said = "; ".join(found.problems)
    for part in ("group is '../documents'", "blocks/000001-0-2/x is an object that no commit names",
                 "blocks/000001-0-2/firsts/c/0/0 is missing", r"'a\n\x1b[2J' is no part of a store"):  # fmt: skip
        assert part in said
    assert said.isprintable()


# claims


def _claim(**more: Any) -> bytes:
    return json.dumps({"host": "elsewhere", "pid": 1, "token": "t", "expires": time.time() + 30} | more).encode()


@pytest.mark.parametrize(
    "content",
    [_claim(expires=9e12), _claim(expires=-1), _claim(expires=1e308), b"", b"[", b"[" * 100_000, b"x" * 10**6, _claim(expires="x"),
     *(_claim(host=socket.gethostname(), pid=pid) for pid in (10**30, 0, -1, 2**31 - 1))],
    ids=map(str, range(12)),
)  # fmt: skip
def test_a_claim_that_no_builder_holds_holds_nobody_up(made, content):
    (made / "claims").mkdir()
    (made / "claims" / "000000.json").write_bytes(content)
    storage = LocalStorage(made)
    assert claims.claimed_shards(storage) == []
    assert audit(storage).problems == []
    assert claims.Claimer(storage).take(0)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), _socket])
def test_what_is_no_claim_holds_nobody_up(made, make):
    (made / "claims").mkdir()
    make(made / "claims" / "000000.json")
    for name in ("x.json", "1.json", "000001.json~"):
        (made / "claims" / name).write_bytes(_claim())
    storage = LocalStorage(made)
    assert claims.claimed_shards(storage) == []
    with claims.Claimer(storage) as claimer:
        assert claimer.take(0)
        claimer.drop(0)


def test_a_claim_that_is_not_renewed_holds_for_one_lease_by_ones_own_clock(made, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    (made / "claims").mkdir()
    file = made / "claims" / "000000.json"
    file.write_bytes(_claim(expires=time.time() + 1800))  # by a clock that is ahead
    storage = LocalStorage(made)
    claimer = claims.Claimer(storage)
    assert not claimer.take(0)
    assert f"claims/000000.json of {made} by process 1 of 'elsewhere'; delete it" in claimer.waits()
    now[0] += claims.LEASE_SECONDS - 1
    assert not claimer.take(0)
    file.write_bytes(_claim(expires=time.time() + 1801))  # its builder is alive
    now[0] += 2
    assert not claimer.take(0)
    now[0] += claims.LEASE_SECONDS + 1
    assert claimer.take(0)
    assert claimer.waits() == ""


def test_a_folder_that_cannot_be_listed_is_no_empty_one(made, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(made / "commits"))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match=r"cannot list .*Permission denied; check the permissions"):
        list(LocalStorage(made).names("commits"))
