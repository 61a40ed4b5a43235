"""Decoded targets: what is shared is what is stored, decoded once, bounded, and removed."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from logitstore import open_store
from logitstore.errors import CorruptStoreError, UsageError
from logitstore.store import decoded
from logitstore.store.piece import Piece
from tests.small_store import Spec, damage, make_store

SPEC = Spec(clips=37, shard_clips=8, view_ranges=((0, 2), (2, 5)), failed=(10, 20, 21))
BLOCKS = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("made") / "store", SPEC)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of decoded files of this test alone."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return scratch / f"logitstore-{os.getuid()}{decoded._secret()}"


@pytest.fixture
def decodes(monkeypatch):
    """How many blocks this process decodes."""
    counts = [0]
    monkeypatch.setattr(Piece, "_decode", counting(counts))
    return counts


def counting(counts):
    plain = Piece._decode

    def counted(self, commit, *more):
        counts[0] += 1
        return plain(self, commit, *more)

    return counted


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def check(store, made, views=range(5)):
    random = np.random.default_rng(0)
    for view in views:
        rows = random.choice(store.clips_of(view), 60)
        classes, probabilities = store.targets(view, rows)
        np.testing.assert_array_equal(classes, made.classes[rows, view])
        np.testing.assert_array_equal(probabilities, made.probabilities[rows, view])


def read(path, done):
    counts = [0]
    Piece._decode = counting(counts)
    store = open_store(path)
    sums = [float(store.targets(view, store.clips_of(view))[1].sum(dtype=np.float64)) for view in range(5)]
    done.put((sums, counts[0], len(files(decoded._folder()))))


def expected(made):
    return [float(made.probabilities[made.readable][:, view].sum(dtype=np.float64)) for view in range(5)]


def test_random_order_gives_what_was_stored_and_decodes_each_block_once(made, decodes):
    store = open_store(made.path)
    for _ in range(3):
        check(store, made)
    assert decodes[0] == BLOCKS


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_it_is_what_a_block_by_block_reader_sees(tmp_path, scores):
    made = make_store(tmp_path / "other", Spec(scores=scores, topk=12, classes=12))
    store = open_store(made.path)
    for commit in store.commits:
        classes, probabilities = store.block_targets(commit)
        kept = np.flatnonzero(made.readable[commit.first_clip : commit.first_clip + commit.clips])
        for view in range(commit.views):
            taken = store.targets(commit.view_start + view, commit.first_clip + kept)
            np.testing.assert_array_equal(taken[0], classes[kept, view])
            np.testing.assert_array_equal(taken[1], probabilities[kept, view])


def test_half_precision_survives(made):
    rows = np.random.default_rng(0).integers(0, 1 << 16, (3, 4, 5)).astype(np.uint16)
    classes, codes = decoded.unpack(decoded.pack(rows, rows[::-1], 2).reshape(12, -1), 5, 2)
    np.testing.assert_array_equal(classes, rows.reshape(12, 5))
    np.testing.assert_array_equal(codes, rows[::-1].reshape(12, 5))


def test_failed_rows_are_refused_with_their_reason(made):
    store = open_store(made.path)
    for view in (0, 4):
        with pytest.raises(UsageError, match=r"clip 20 has no targets, it failed: not audio; use .* store.clips_of"):
            store.targets(view, [3, 20, 10])


@pytest.mark.forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_share_one_decode(made, start):
    context = multiprocessing.get_context(start)
    done = context.Queue()
    store = open_store(made.path)
    store.pieces[0]._decoded.share()
    workers = [context.Process(target=read, args=(made.path, done)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [done.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [sums for sums, _, _ in found] == [expected(made)] * 2
    assert sum(counts for _, counts, _ in found) == BLOCKS
    assert [left for _, _, left in found] == [2, 2]  # the parent's file and its lock, and no others
    assert store.pieces[0]._decoded._file.filled.all()


class Items:
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return int(self.store.targets(index % 5, [index % 10])[0][0, 0]), len(files(decoded._folder()))


def test_a_loader_hands_the_store_to_its_workers(made):
    from torch.utils.data import DataLoader

    items = Items(open_store(made.path))
    found = list(DataLoader(items, batch_size=None, num_workers=2, multiprocessing_context="spawn"))
    assert [label for label, _ in found] == [int(made.classes[i % 10, i % 5, 0]) for i in range(30)]
    assert {left for _, left in found} == {2}


def test_the_last_reader_removes_the_file(made, folder):
    one, other = open_store(made.path), open_store(made.path)
    one.targets(0, [0])
    other.targets(1, [1])
    assert len(files(folder)) == 2
    del one
    assert len(files(folder)) == 2
    check(other, made)
    del other
    assert files(folder) == []


CHILD = """
import os, sys
from logitstore import open_store
store = open_store(sys.argv[1])
store.targets(0, [0])
print(len(os.listdir(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_what_a_process_leaves_is_removed(made, folder, ending):
    command = [sys.executable, "-c", CHILD, str(made.path), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "2\n"
        if ending == "kill":
            child.send_signal(signal.SIGKILL)
            child.wait(30)
        else:
            child.communicate("", timeout=30)
    assert len(files(folder)) == (2 if ending == "kill" else 0)
    other = make_store(folder.parent / "other", Spec(clips=3, failed=()))
    open_store(other.path).targets(0, [0])
    assert files(folder) == []


def test_a_small_disk_holds_some_views_at_a_time(made, folder, decodes):
    store = open_store(made.path)
    store.decoded_bytes = 2 * 37 * 15  # two views of 37 clips, 5 x (2 + 1) bytes
    check(store, made)
    data = next(file for file in folder.iterdir() if file.suffix != ".lock")
    assert data.stat().st_size == 4096 + 1 * 37 * 15  # the last view is left alone
    assert len(files(folder)) == 2
    assert decodes[0] == 5 + 10  # views 0-1 in the first blocks; 2-3 and then 4 in the second


def test_the_folder_is_private_and_its_name_a_secret(made, folder, tmp_path, monkeypatch):
    store = open_store(made.path)
    store.targets(0, [0])
    assert len(folder.name) == len(f"logitstore-{os.getuid()}-") + 16
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert decoded._folder() != folder
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert decoded._folder().name == f"logitstore-{os.getuid()}"


@pytest.mark.parametrize("reason", ["no bytes", "no folder", "another's folder"])
def test_without_a_file_memory_is_bounded(made, folder, decodes, monkeypatch, reason):
    if reason == "no folder":
        monkeypatch.setattr("tempfile.tempdir", str(folder / "absent"))
    if reason == "another's folder":
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setattr(decoded, "MOST_KEPT_BYTES", 3 * 8 * 3 * 15)
    store = open_store(made.path)
    store.decoded_bytes = 0 if reason == "no bytes" else None
    check(store, made)
    kept = store.pieces[0]._decoded._kept
    assert sum(block.nbytes for block in kept.values()) <= decoded.MOST_KEPT_BYTES
    assert decodes[0] > BLOCKS
    assert not folder.exists() or files(folder) == []


def test_a_full_disk_is_no_error(made, decodes, monkeypatch):
    store = open_store(made.path)
    check(store, made, [0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    check(store, made)


def test_damage_is_found_although_others_have_decoded_the_block(tmp_path):
    made = make_store(tmp_path / "store", SPEC)
    first = open_store(made.path)
    check(first, made)
    damage(made.path, "000001-0-2")
    with pytest.raises(CorruptStoreError, match="000001-0-2"):
        open_store(made.path).targets(0, [9])
    check(first, made)


def test_rows_without_targets_must_be_those_that_failed(tmp_path):
    made = make_store(tmp_path / "store", SPEC)
    store = open_store(made.path)
    commit = next(commit for commit in store.commits if commit.failed)
    lying = type(commit)(**{name: getattr(commit, name) for name in commit.__struct_fields__} | {"failed": ()})
    with pytest.raises(CorruptStoreError, match="rows without targets are not those that failed"):
        store.block_targets(lying)


def test_draws_are_read_in_any_order(made):
    store = open_store(made.path)
    rows = np.random.default_rng(1).permutation(37)
    for view in range(5):
        for name, values in store.draws(view, rows).columns.items():
            np.testing.assert_array_equal(values, made.draws[name][rows, view])


def test_neither_targets_nor_draws_need_the_clip_table(made, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", _refusing(Path.read_bytes))
    store = open_store(made.path)
    store.targets(0, [0])
    store.draws(0, [0])
    assert len(store.clips_of(0)) == 34


def _refusing(plain):
    def read_bytes(self):
        assert self.parent.name != "clips", self
        return plain(self)

    return read_bytes
