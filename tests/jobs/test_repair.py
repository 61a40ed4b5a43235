"""Repair: what is damaged or missing comes back byte for byte, and nothing else is touched."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from logitstore.errors import CorruptStoreError, MismatchError, UsageError
from logitstore.jobs.build.job import build
from logitstore.jobs.options import RepairOptions, VerifyOptions
from logitstore.jobs.repair import repair
from logitstore.jobs.verify.job import verify
from tests.small_store import damage
from tests.stores import contents, inside, options, write_audio
from tests.test_docs import REPOSITORY, shell

TEACHERS = ("python:tones:steep", "python:tones:plain")  # in another order than the store's


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with 20 clips, one of them no audio, and their store of three shards."""
    folder = tmp_path_factory.mktemp("repair")
    write_audio(folder / "audio", 19)
    (folder / "audio" / "text.wav").write_text("no audio")
    with inside(folder):
        build(options(folder))
        yield folder


@pytest.fixture
def store(whole, tmp_path):
    return Path(shutil.copytree(whole / "store", tmp_path / "store"))


def asked(store: Path, whole: Path, **changes: object) -> RepairOptions:
    values = {"store": str(store), "audio_root": str(whole / "audio"), "teachers": TEACHERS, "device": "cpu"} | changes
    return RepairOptions(**values)  # type: ignore[arg-type]


def changed_byte(store: Path) -> None:
    damage(store, "000001-0-3")


def objects_gone(store: Path) -> None:
    shutil.rmtree(store / "blocks" / "000000-0-3" / "packed")


def commit_gone(store: Path) -> None:
    (store / "commits" / "000002-0-3.json").unlink()


def commit_damaged(store: Path) -> None:
    file = store / "commits" / "000001-0-3.json"
    file.write_bytes(file.read_bytes()[:-40])


def block_gone(store: Path) -> None:
    commit_gone(store)
    shutil.rmtree(store / "blocks" / "000002-0-3")


def leftovers(store: Path) -> None:
    shutil.copytree(store / "blocks" / "000000-0-3", store / "blocks" / "000000-0-3.r2")
    (store / "blocks" / "000001-0-3" / "stray").write_text("left")


def everything(store: Path) -> None:
    objects_gone(store)
    commit_damaged(store)
    block_gone(store)


DAMAGE = [changed_byte, objects_gone, commit_gone, commit_damaged, block_gone, leftovers, everything]


@pytest.mark.parametrize("harm", DAMAGE, ids=lambda harm: harm.__name__)
def test_what_is_damaged_comes_back_byte_for_byte(whole, store, harm):
    harm(store)
    assert contents(store) != contents(whole / "store")
    found = repair(asked(store, whole))
    assert not found.lost
    assert found.mended
    assert contents(store) == contents(whole / "store")
    again = repair(asked(store, whole))
    assert (again.problems, again.mended, again.lost) == ([], [], [])


def test_only_what_is_damaged_is_asked_of_the_teachers(whole, store):
    changed_byte(store)
    assert repair(asked(store, whole)).views == 8 * 3


@pytest.mark.parametrize("harm", [each for each in DAMAGE if each is not leftovers], ids=lambda harm: harm.__name__)
def test_without_audio_it_says_what_is_lost_and_can_drop_it(whole, store, harm):
    harm(store)
    before = contents(store)
    found = repair(RepairOptions(store=str(store)))
    assert any("clips x 3 views" in line for line in found.lost)
    assert contents(store) == before
    dropped = repair(RepairOptions(store=str(store), drop=True))
    assert dropped.lost == []
    assert len(dropped.dropped) == len([line for line in found.lost if "clips x" in line])
    assert not verify(VerifyOptions(store=str(store), partial=True)).problems
    build(options(whole, out=str(store)))
    assert contents(store) == contents(whole / "store")


def test_a_lost_part_of_the_clip_table_comes_back_from_the_source(whole, store):
    part = store / "clips" / "00000.parquet"
    part.unlink()
    found = repair(RepairOptions(store=str(store), drop=True))
    assert found.lost == ["clips/00000.parquet, 20 clips, 57 views: give SOURCE, which it was scanned from"]
    found = repair(RepairOptions(store=str(store), source=str(whole / "audio")))
    assert (found.mended, found.lost) == (["clips/00000.parquet"], [])
    assert contents(store) == contents(whole / "store")


def test_a_source_with_other_clips_gives_no_clip_table(whole, store, tmp_path):
    write_audio(tmp_path / "others", 3)
    (store / "clips" / "00000.parquet").write_bytes(b"PAR1")
    found = repair(RepairOptions(store=str(store), source=str(tmp_path / "others")))
    assert found.lost == ["clips/00000.parquet, 20 clips, 57 views: the source does not give it as it was"]


def test_other_teachers_are_refused(whole, store):
    changed_byte(store)
    before = contents(store)
    with pytest.raises(MismatchError, match="these are not the teachers"):
        repair(asked(store, whole, teachers=TEACHERS[:1]))
    assert contents(store) == before


def test_other_audio_is_refused(whole, store, tmp_path):
    changed_byte(store)
    before = contents(store)
    write_audio(tmp_path / "audio", 19, seconds=0.9)
    with pytest.raises(MismatchError, match="is not the one"):
        repair(asked(store, whole, audio_root=str(tmp_path / "audio")))
    assert contents(store) == before


def test_teachers_without_audio_are_refused(store):
    with pytest.raises(UsageError, match="--teacher needs what it heard"):
        repair(RepairOptions(store=str(store), teachers=TEACHERS))


def test_a_damaged_manifest_is_told_how_to_be_had_again(store):
    (store / "zarr.json").write_text("{}")
    with pytest.raises(CorruptStoreError, match="run the same build to another --out"):
        repair(RepairOptions(store=str(store)))


def test_a_block_that_is_claimed_is_left_alone(whole, store):
    from logitstore.store.claims import Claimer
    from logitstore.store.storage import LocalStorage

    changed_byte(store)
    with Claimer(LocalStorage(store)) as claimer:
        assert claimer.take(1)
        found = repair(asked(store, whole))
    assert any("another builder has claimed its shard" in line for line in found.lost)
    assert not repair(asked(store, whole)).lost


def test_the_session_of_the_documents_runs(whole, programs, tmp_path):
    """docs/durability.md, every command and what it prints."""
    folder = Path(shutil.copytree(whole, tmp_path / "session"))
    text = (REPOSITORY / "docs" / "durability.md").read_text()
    session = [
        each for block in re.findall(r"```console\n\$ (.*?)```", text, re.DOTALL) for each in block.split("\n$ ")
    ]
    assert len(session) == 6
    for command, _, prints in (each.partition("\n") for each in session):
        done = shell(command, folder, programs)
        assert done.returncode == (1 if "Error: " in prints else 0), f"{command}\n{done.stdout}\n{done.stderr}"
        for line in prints.splitlines():
            assert line in done.stdout + done.stderr, f"{command}\n{done.stdout}\n{done.stderr}"
