"""Ten thousand seeds of builders, disks and buckets that go wrong; and bugs put in on purpose, which are all found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from logitstore.errors import StoreError
from logitstore.store import claims
from logitstore.store.cloud import ObjectStorage
from logitstore.store.format import commits
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import StoreWriter
from tests.faults import simulation
from tests.faults.conftest import FULL
from tests.faults.simulation import PLACES, ViolationError, run_seed, simulated

#: Seeds on each place, in so many tests that two workers share them.
SEEDS = {"folder": 2_500, "bucket": 7_500}
TESTS = 10
MOST = 3_000  # seeds that a bug may take to be found


@pytest.mark.parametrize("number", range(TESTS))
@pytest.mark.parametrize("place", SEEDS)
def test_builders_under_a_seeded_scheduler(place, number, counted):
    count = SEEDS[place] // TESTS * (10 if FULL else 1)
    with simulated():
        for seed in range(number * count, (number + 1) * count):
            run_seed(seed, PLACES[place])
    counted(f"simulated seeds on a {place}", count)


def test_a_seed_replays_exactly():
    def trace(seed: int, place: str) -> list[str]:
        return list(run_seed(seed, PLACES[place]).trace)

    with simulated():
        for place in PLACES:
            first = [trace(seed, place) for seed in range(5)]
            assert [trace(seed, place) for seed in range(5)] == first
            assert len({tuple(each) for each in first}) == 5


def test_the_schedule_of_a_seed_is_printed(capsys):
    assert simulation.main(["--seed", "3", "--place", "bucket"]) == 0
    out = capsys.readouterr().out
    assert "create zarr.json" in out or "get zarr.json" in out
    assert "ends: well" in out


# bugs, put in on purpose


class _Later:
    """A storage that writes a block's objects after its commit."""

    def __init__(self, storage: Any) -> None:
        self.storage, self.held = storage, dict[str, bytes]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def create_many(self, contents: dict[str, bytes]) -> list[str]:
        self.held = contents
        return []

    def create(self, name: str, content: bytes, still: Any = None) -> bool:
        made = self.storage.create(name, content)
        self.storage.create_many(self.held)
        return bool(made)


@contextlib.contextmanager
def commit_before_the_objects() -> Iterator[None]:
    write = StoreWriter.write_block

    def planted(self: StoreWriter, *arguments: Any, **keywords: Any) -> Any:
        real, self.storage = self.storage, _Later(self.storage)
        try:
            return write(self, *arguments, **keywords)
        finally:
            self.storage = real

    with patch.object(StoreWriter, "write_block", planted):
        yield


def claim_not_looked_at_before_the_commit() -> Any:
    return patch.object(claims.Claimer, "keep", lambda self, shard: True)


@contextlib.contextmanager
def lost_answer_taken_for_success() -> Iterator[None]:
    """A conditional write that meets another's object is taken for the repetition of its own."""

    def planted(self: Any, name: str, content: bytes, expected: bytes) -> bool:
        made = replace(self, name, content, expected)
        return made or next(iter(self.get_many([name]))) is not None

    replace = ObjectStorage.replace
    with patch.object(ObjectStorage, "replace", planted):
        yield


@contextlib.contextmanager
def lost_answer_taken_for_failure() -> Iterator[None]:
    """A commit whose answer was lost is thought not to be there, and its block's objects are removed."""
    write = StoreWriter.write_block

    def planted(self: StoreWriter, shard: int, *arguments: Any, **keywords: Any) -> Any:
        try:
            return write(self, shard, *arguments, **keywords)
        except StoreError:
            for name in self.storage.names(arguments[3]):
                self.storage.delete(name)
            raise

    with patch.object(StoreWriter, "write_block", planted):
        yield


@contextlib.contextmanager
def sweep_of_a_live_builder() -> Iterator[None]:
    def planted(self: StoreWriter, committed: Any) -> None:
        kept = {commit.group for commit in committed}
        for name in list(self.storage.names("blocks")):
            if "/".join(name.split("/")[:2]) not in kept:
                self.storage.delete(name)

    with patch.object(StoreWriter, "sweep", planted), patch.object(claims, "claimed_shards", lambda _: []):
        yield


@contextlib.contextmanager
def rename_without_fsync() -> Iterator[None]:
    sync = simulation.SimulatedOs.fsync

    def planted(number: int) -> None:
        if isinstance(simulation.World.now.place.open_files.get(number), simulation.Folder):
            sync(number)

    with patch.object(simulation.SimulatedOs, "fsync", staticmethod(planted)):
        yield


def folders_not_flushed() -> Any:
    return patch.object(LocalStorage, "_sync_folders", lambda self, names: None)


@contextlib.contextmanager
def replacing_in_two_steps() -> Iterator[None]:
    """As it was done: what is there is read, and then written over."""

    def planted(self: LocalStorage, name: str, content: bytes, expected: bytes) -> bool:
        if next(self.get_many([name])) != expected:
            return False
        self.put(name, content)
        return next(self.get_many([name])) == content

    with patch.object(LocalStorage, "replace", planted):
        yield


@contextlib.contextmanager
def commit_over_another() -> Iterator[None]:
    """As it was done: a commit is put, whatever is there, and however long ago the claim was taken."""

    def planted(self: Any, name: str, content: bytes, still: Any = None) -> bool:
        if not name.startswith(commits.FOLDER):
            return bool(create(self, name, content))
        self.put(name, content)
        return True

    create = ObjectStorage.create
    with patch.object(ObjectStorage, "create", planted), patch.object(claims.Claimer, "keep", lambda *_: True):
        yield


BUGS: list[tuple[Callable[[], Any], str]] = [
    (commit_before_the_objects, "bucket"),
    (claim_not_looked_at_before_the_commit, "bucket"),
    (lost_answer_taken_for_success, "bucket"),
    (lost_answer_taken_for_failure, "bucket"),
    (sweep_of_a_live_builder, "bucket"),
    (rename_without_fsync, "folder"),
    (folders_not_flushed, "folder"),
    (replacing_in_two_steps, "folder"),
    (commit_over_another, "bucket"),
]


def seeds_until_found(bug: Callable[[], Any], place: str) -> tuple[int, str]:
    """How many seeds it takes until a bug is seen, and as what."""
    with bug(), simulated():
        for seed in range(MOST):
            try:
                run_seed(seed, PLACES[place])
            except ViolationError as violation:
                return seed + 1, str(violation)
    return 0, f"not found in {MOST} seeds"


@pytest.mark.parametrize(("bug", "place"), BUGS, ids=lambda value: getattr(value, "__name__", value))
def test_a_bug_put_in_on_purpose_is_found(bug, place, counted):
    seeds, what = seeds_until_found(bug, place)
    assert seeds, what
    counted(f"seeds until found: {bug.__name__.replace('_', ' ')}", seeds)
