"""A store of many clips: what opening it reads, and the rows of its clip table that are read where they are needed."""

from __future__ import annotations

import pickle
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore import open_store
from logitstore.errors import CorruptStoreError, UsageError
from logitstore.store import piece
from logitstore.store.format import commits, parts
from logitstore.store.keys import Group
from students.data import stored_views
from students.held_out import _different, default_share, held_out_clips, split
from tests.small_store import Spec, make_store

CLIPS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose clip table has groups of 32 rows: 100 files of three clips each."""
    folder = tmp_path_factory.mktemp("many")
    numbers = np.arange(CLIPS)

    def in_groups(table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        paths = pa.array([f"{number // 3:03d}.wav" for number in numbers])
        pq.write_table(
            table.set_column(0, "path", paths).set_column(1, "start", pa.array(numbers % 3)), sink, row_group_size=32
        )
        return bytes(sink.getvalue().to_pybytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logitstore.store.writer.encode_clips", in_groups)
        make_store(folder / "store", Spec(clips=CLIPS, shard_clips=64, failed=(10,)))
    return folder


def noted(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The groups of rows that are read from now on, by their clips."""
    read: list[range] = []
    own = Group.read

    def note(group: Group, columns: Any = None) -> pa.Table:
        read.append(group.clips)
        return own(group, columns)

    monkeypatch.setattr(Group, "read", note)
    return read


def test_opening_a_store_reads_no_commit_and_no_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(commits, "decode", refuse)
    monkeypatch.setattr(piece.Piece, "clip_group", refuse)
    monkeypatch.setattr(parts, "read_columns", refuse)
    store = open_store(folder / "store")
    assert (len(store), store.views, store.pieces[0].shards) == (CLIPS, 3, 5)
    assert "300 clips x 3 views" in repr(store)


def test_clips_read_the_groups_of_rows_that_they_lie_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store([make_store(tmp_path / "first", Spec()).path, folder / "store"])
    read = noted(monkeypatch)
    keys = pickle.loads(pickle.dumps(store.keys))
    assert len(keys) == 37 + CLIPS
    found = [keys[clip] for clip in (80, 73, 36, 336)]
    assert [(path, start) for path, (start, _, _) in found] == [
        ("014.wav", 1), ("012.wav", 0), ("folder/clip 000036.wav", 0), ("099.wav", 2)
    ]  # fmt: skip
    assert read == [range(69, 101), range(37), range(325, 337)]
    read.clear()
    one, near = store[38], store[39]
    assert (one.path, near.path, near.start, near.number) == ("000.wav", "000.wav", 2, 39)
    assert read == [range(37, 69)]
    assert store.clip_row(38) == store.clips.slice(38, 1).to_pylist()[0]
    with pytest.raises(UsageError, match="clip 337 is not in"):
        store[337]


@pytest.mark.parametrize("few", [0, 4096], ids=["many taken out", "few taken out"])
def test_few_files_of_many_are_held_out_without_a_look_at_all_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr("students.held_out._FEW", few)
    monkeypatch.setattr("students.held_out.LOOKED_THROUGH", 200)
    monkeypatch.setattr("students.held_out.MOST_CLIPS", 9)
    monkeypatch.setattr("students.held_out._GROUPS", 4)
    store = open_store(folder / "store")
    by_view = [store.clips_of(0)] * 2
    monkeypatch.setattr(piece.Piece, "read_clips", lambda *_: pytest.fail("the whole table was read"))
    read = noted(monkeypatch)
    share, apart = default_share(store, by_view)
    assert apart is not None
    assert share == 9 / 299
    assert (apart.files, len(apart.clips), apart.of_files) == (3, 9, pytest.approx(100, abs=10))
    assert len(set(apart.clips // 3)) == 3, "all clips of a file"
    assert len(read) == len(set(read)) <= 7, "paths say by their order in which groups they can be; each is read once"
    learned, held = split(store, by_view, share, apart)
    assert np.array_equal(np.sort(np.concatenate([learned[1], held[1]])), by_view[0])
    assert np.array_equal(held[0], held_out_clips(store, by_view, share))


@pytest.mark.parametrize("paths", [["a"], ["a", "a", "b", "c", "c"], ["b", "a", "b"], ["c", "b", "a", "a"]])
def test_different_paths_are_counted_whether_they_rise_or_not(paths: list[str]) -> None:
    assert _different(pa.chunked_array([paths], pa.string())) == len(set(paths))


def test_clip_numbers_of_views_are_one_array_while_it_is_used(folder: Path) -> None:
    store = open_store(folder / "store")
    clips = store.clips_of(0)
    assert clips.tolist() == [clip for clip in range(CLIPS) if clip != 10]
    assert store.clips_of(2) is clips
    used = weakref.ref(clips)
    del clips
    assert used() is None, "a training that holds some out has numbers of its own"
    assert len(store.clips_of(1)) == CLIPS - 1


def test_few_views_of_a_store_of_many_are_decoded_where_they_are_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.data._AHEAD", 100)
    store = open_store(folder / "store")
    store.decoded_bytes = 0  # what others have decoded is not looked at
    asked: list[str] = []
    decode = piece.Piece._decode
    monkeypatch.setattr(piece.Piece, "_decode", lambda *given: (asked.append(given[1].name), decode(*given))[1])
    views = stored_views(store, 1, [200, 9, 80])
    assert len(asked) == 1, "a look at the block of the first clip, and no more"
    views.targets(np.array([1, 2]))
    assert len(set(asked)) == 3
    before = len(asked)
    with pytest.raises(UsageError, match="clip 10 has no targets, it failed"):
        stored_views(store, 1, [280, 10])
    assert len(asked) == before, "refused without decoding"


def test_a_damaged_block_of_few_views_is_refused_before_a_batch_needs_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.data._AHEAD", 100)
    shutil.copytree(folder / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    block = store.pieces[0].commits[1]
    damaged = tmp_path / "store" / block.group / max(block.objects)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    stored_views(store, 1, [200, 9])
    with pytest.raises(CorruptStoreError, match="is not the object that was committed"):
        stored_views(store, 1, [200, 80])


def test_groups_of_rows_that_are_not_what_the_table_says_are_damage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(folder / "store")
    files = store.pieces[0].clip_files()

    class Lying:
        num_row_groups = 1

        def __getattr__(self, name: str) -> object:
            return getattr(files["clips/00000.parquet"], name)

    monkeypatch.setattr(store.pieces[0], "clip_files", lambda: {"clips/00000.parquet": Lying()})
    with pytest.raises(CorruptStoreError, match="says that it has 300 clips, and its groups of rows have 32"):
        len(store.keys)
