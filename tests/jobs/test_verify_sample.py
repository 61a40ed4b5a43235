"""A part of a store a run: everything in turn, damage until it is mended, and interruptions."""

from __future__ import annotations

import json
import math

import pytest

from logitstore.errors import UsageError
from logitstore.jobs.options import VerifyOptions
from logitstore.jobs.verify import audit as audits
from logitstore.jobs.verify.job import verify
from tests.small_store import Spec, damage, make_store

SHARDS = 7


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", Spec(clips=8 * SHARDS)).path


def asked(store, **changes):
    values = {"store": str(store), "sample": "1", "state": str(store.parent / "checked")} | changes
    return VerifyOptions(**values)


def read_blocks(store, **changes):
    """The blocks whose objects a run reads."""
    found = verify(asked(store, **changes))
    return [commit.name for commit in found.audit.sound], found


@pytest.mark.parametrize("size", ["1", "2", "3", "7", "100", "1%", "14.2%", "50 %", "100%"])
def test_every_block_is_read_once_in_a_round(store, size):
    number = float(size.strip(" %")) / 100 * SHARDS if "%" in size else int(size)
    runs = math.ceil(SHARDS / math.ceil(number))
    read = [name for _ in range(runs) for name in read_blocks(store, sample=size)[0]]
    assert read == [f"{shard:06d}-0-3" for shard in range(SHARDS)]
    blocks, found = read_blocks(store, sample=size)
    assert blocks[0] == "000000-0-3"
    assert "in round 2" in found.render()


def test_the_state_lies_outside_of_the_store(store):
    before = sorted(path.name for path in store.rglob("*"))
    verify(asked(store))
    assert sorted(path.name for path in store.rglob("*")) == before
    with pytest.raises(UsageError, match="lies in the store"):
        verify(asked(store, state=str(store / "checked")))


def test_damage_is_found_in_its_turn_and_until_it_is_mended(store):
    file = damage(store, "000001-0-3")
    damaged = file.read_bytes()
    assert verify(asked(store)).problems == ()
    for _ in range(2):
        assert "is not the object that was committed" in verify(asked(store)).problems[0]
    content = bytearray(damaged)
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert verify(asked(store)).problems == ()


def test_an_interrupted_run_is_gone_on_with(store, monkeypatch):
    check = audits._Auditor._block
    left = iter(range(2))

    def interrupted(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        check(self, *arguments)

    monkeypatch.setattr(audits._Auditor, "_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(asked(store, sample="5"))
    monkeypatch.undo()
    assert read_blocks(store, sample="5")[0] == [f"{shard:06d}-0-3" for shard in (2, 3, 4)]
    assert read_blocks(store, sample="5")[0] == [f"{shard:06d}-0-3" for shard in (5, 6)]


def test_blocks_that_come_later_are_reached(store, tmp_path):
    verify(asked(store, sample="100"))
    state = json.loads((tmp_path / "checked").read_text())
    assert state["after"] == [SHARDS - 1, 0]


@pytest.mark.parametrize("size", ["0", "0%", "101%", "-1", "a", "", "1 %%"])
def test_other_sizes_are_refused(store, size):
    with pytest.raises(UsageError, match="is no part of a store"):
        verify(asked(store, sample=size))


def test_sample_and_state_go_together(store):
    with pytest.raises(UsageError, match="go together"):
        verify(asked(store, state=None))


@pytest.mark.parametrize("content", ["", "[]", '{"manifest": "0"}', '{"manifest": 1}'])
def test_a_state_of_something_else_is_refused(store, tmp_path, content):
    (tmp_path / "checked").write_text(content)
    with pytest.raises(UsageError, match="--state"):
        verify(asked(store))
