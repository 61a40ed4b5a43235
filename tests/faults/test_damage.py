"""Objects of a store that change, shrink or vanish: `verify` finds each, and no read gives wrong targets."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import LogitstoreError
from tests.faults.conftest import World, make_world, size
from tests.stores import contents

QUERIES = (
    "FROM topk",
    "FROM views",
    "FROM members",
    "FROM clips",
    "FROM failures",
    "SELECT class, count(*) FROM topk GROUP BY class",
    "SELECT clip, view, top1 FROM views",
    "SELECT path, max(probability) FROM topk JOIN clips USING (clip) GROUP BY path",
)
PARTS = 4  # into which the full size is divided, for several workers


@pytest.fixture(scope="module")
def whole(tmp_path_factory, nursery) -> World:
    """Nine clips in three blocks, whole and never touched; tests damage copies of it."""
    world = make_world(tmp_path_factory.mktemp("whole"), nursery, 8, "--shard-clips", "4")
    assert world.build().status == 0
    return world


@pytest.fixture(scope="module")
def answers(whole) -> dict[str, Any]:
    """What every read of the whole store gives."""
    return {name: read(whole.store) for name, read in reads(whole.store).items()}


def reads(whole: Path) -> dict[str, Callable[[Path], Any]]:
    """Every way to read targets, as functions of a store's folder that give something to compare."""
    store = open_store(whole)
    found: dict[str, Callable[[Path], Any]] = {f"sql {query}": lambda path, q=query: _sql(path, q) for query in QUERIES}
    for view in range(store.views):
        for clip in store.clips_of(view).tolist():
            found[f"targets {view} {clip}"] = lambda path, v=view, c=clip: _arrays(open_store(path).targets(v, [c]))
            found[f"draws {view} {clip}"] = lambda path, v=view, c=clip: _arrays(
                open_store(path).draws(v, [c]).columns.values()
            )
        rows = store.clips_of(view)
        found[f"targets {view}"] = lambda path, v=view, r=rows: _arrays(open_store(path).targets(v, r))
    for number in range(len(store.commits)):
        found[f"members {number}"] = lambda path, n=number: _block(path, n, "block_members")
        found[f"block {number}"] = lambda path, n=number: _block(path, n, "block_targets")
    found["clips"] = lambda path: open_store(path).clips.to_pylist()
    return found


def _arrays(values: Any) -> Any:
    return [value.tolist() for value in values]


def _block(path: Path, number: int, what: str) -> Any:
    store = open_store(path)
    name = sorted(f"{shard:06d}-0-2" for shard in range(3))[number]
    commits = {commit.name: commit for commit in store.commits}
    return _arrays(getattr(store, what)(commits[name])) if name in commits else "no such block"


def _sql(path: Path, query: str) -> Any:
    return sorted(map(repr, open_store(path).sql(query).to_pylist()))


def _check_reads(damaged: Path, answers: dict[str, Any], chosen: list[str], what: str) -> int:
    """Each read gives what it gave, or a typed error of one line; the number of errors."""
    errors = 0
    messages: list[str] = []
    for name in chosen:
        try:
            found = reads_of[name](damaged)
        except LogitstoreError as error:
            errors += 1
            messages.append(str(error))
            continue
        if found == "no such block":
            continue
        if what.startswith("deleted commits/") and name.startswith("sql"):
            known = set(answers[name])
            if "max(" not in name and "count(" not in name:
                assert set(found) <= known, f"{what}: {name}"
            continue
        assert repr(found) == repr(answers[name]), f"{what}: {name}"  # a NaN, of an unused place, is as it was too
    assert [message for message in messages if not message or "\n" in message] == []
    return errors


reads_of: dict[str, Callable[[Path], Any]] = {}


def _verify(store: Path) -> tuple[int, list[str]]:
    """Exit code of ``logitstore verify`` and what it says."""
    result = CliRunner().invoke(cli, ["verify", str(store)], catch_exceptions=True)
    if isinstance(result.exception, LogitstoreError):
        return result.exception.exit_code, [*result.output.splitlines(), str(result.exception)]
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, result.output.splitlines()


def _damage(whole: World, answers: dict[str, Any], root: Path, number: int, part: int, change: Any, what: str) -> int:
    """Change ``number`` objects, one after the other; all of them are found. The number of reads that were refused."""
    reads_of.update(reads(whole.store))
    chance = random.Random(f"{what} {part}")
    damaged = root / "damaged"
    shutil.copytree(whole.store, damaged)
    originals = contents(damaged)
    assert _verify(damaged)[0] == 0, _verify(damaged)
    names: list[str] = []
    refused = 0
    missed = []
    for _ in range(number):
        if not names:
            names = sorted(originals)
            chance.shuffle(names)
        name = names.pop()
        changed = change(chance, originals[name])
        target = damaged / name
        if changed is None:
            target.unlink()
        else:
            target.write_bytes(changed)
        described = f"{what} {name}" + ("" if changed is None else f" ({len(originals[name])} bytes)")
        code, said = _verify(damaged)
        if code not in (1, 2) or not said:
            missed.append((described, code, said))
        chosen = chance.sample(sorted(name for name in answers if not name.startswith("sql")), 6)
        chosen += chance.sample([f"sql {query}" for query in QUERIES], 2)
        refused += _check_reads(damaged, answers, chosen, described)
        target.write_bytes(originals[name])
    assert missed == []
    assert _verify(damaged)[0] == 0
    return refused


def _flip(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ chance.randint(1, 255)]) + content[at + 1 :]


def _truncate(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def _delete(_chance: random.Random, _content: bytes) -> None:
    return None


@pytest.mark.parametrize("part", range(PARTS))
def test_every_changed_byte_is_found(whole, answers, tmp_path, counted, part):
    number = size("changed bytes") // PARTS
    refused = _damage(whole, answers, tmp_path, number, part, _flip, "changed")
    assert refused > number // 4
    counted("changed bytes found", number)
    counted("reads of damaged stores refused, the others right", refused)


def test_every_truncation_is_found(whole, answers, tmp_path, counted):
    number = size("truncations")
    refused = _damage(whole, answers, tmp_path, number, 0, _truncate, "truncated")
    counted("truncations found", number)
    counted("reads of damaged stores refused, the others right", refused)


def test_every_deletion_is_found(whole, answers, tmp_path, counted):
    number = size("deletions")
    refused = _damage(whole, answers, tmp_path, number, 0, _delete, "deleted")
    counted("deletions found", number)
    counted("reads of damaged stores refused, the others right", refused)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"seed":0', '"seed":1'),
        lambda text: text.replace('":', '": ', 1),
        lambda text: text + " ",
        lambda text: text.replace('"machine":"', '"machine":"a'),
        lambda text: text.replace("tone 300 Hz", "tone 301 Hz"),
    ],
    ids=["seed", "a space", "a space at the end", "made_by", "a class"],
)
def test_any_change_of_the_root_is_found(whole, tmp_path, change):
    """Its digest stands in every commit, so that a change without meaning is a change too."""
    shutil.copytree(whole.store, tmp_path / "store")
    root = tmp_path / "store" / "zarr.json"
    text = root.read_text()
    assert change(text) != text
    root.write_text(change(text))
    code, said = _verify(tmp_path / "store")
    assert code == 1, said
    assert "zarr.json" in " ".join(said)
    with pytest.raises(LogitstoreError, match=r"committed under another manifest; restore zarr\.json"):
        open_store(tmp_path / "store").targets(0, [0])
    before = contents(tmp_path / "store")
    left = whole.nursery.run(whole.root, [*_elsewhere(whole, tmp_path / "store"), "--views", "3"])
    assert left.status in (1, 2), left.out
    assert left.error
    assert contents(tmp_path / "store") == before


def test_a_build_on_a_damaged_store_is_refused_in_one_line(whole, tmp_path, counted):
    """Whichever of its objects a build reads; a block's arrays it does not."""
    store = tmp_path / "store"
    shutil.copytree(whole.store, store)
    originals = contents(store)
    chance = random.Random(9)
    for name in ("zarr.json", "clips/00000.parquet", "commits/000001-0-2.json"):
        for change in (_flip, _truncate):
            (store / name).write_bytes(change(chance, originals[name]))
            left = whole.nursery.run(whole.root, [*_elsewhere(whole, store), "--views", "3"])
            assert left.status in (1, 2), left.out
            assert left.error
            shown = (store / name).read_bytes()
            assert {**contents(store), name: shown} == {**originals, name: shown}
            (store / name).write_bytes(originals[name])
            counted("builds on damaged stores refused")


def _elsewhere(world: World, store: Path) -> list[str]:
    return [str(store) if argument == "store" else argument for argument in world.arguments]


def test_the_rows_of_a_view_name_no_clip_twice(whole):
    store = open_store(whole.store)
    for view in range(store.views):
        rows = store.clips_of(view)
        assert len(np.unique(rows)) == len(rows) == 8
