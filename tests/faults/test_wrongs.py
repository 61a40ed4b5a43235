"""Teachers that fail in the middle of a build, and clips that vanish in the middle of one."""

import random
from pathlib import Path

import numpy as np
import pytest

from logitstore import open_store
from tests.faults.conftest import World, make_world, size
from tests.faults.nursery import Faults
from tests.stores import TONE_TEACHER, contents

FAULTS = {
    "nan": "gave NaN for clip 0 of a batch",
    "shape": "gave the shape (4, 7); it must be (clips, classes) = (4, 8)",
    "out_of_range": "probabilities lie in [0, 1]",
    "raises": "failed: RuntimeError: out of memory, say",
}
#: A teacher that says itself which it is, as one does whose code is mended.
STATED = TONE_TEACHER.replace("self.slope =", 'self.digest = f"tones-{slope}"\n        self.slope =')
REPAIRED = STATED.replace("if self.calls < 5:", "if True:")


@pytest.fixture(scope="module")
def repaired(tmp_path_factory, nursery) -> World:
    """A world with a teacher that is going to be broken."""
    world = make_world(tmp_path_factory.mktemp("repaired"), nursery, 12, "--shard-clips", "2")
    assert REPAIRED != STATED != TONE_TEACHER
    return world


@pytest.mark.parametrize("fault", FAULTS)
def test_a_teacher_that_fails_in_the_middle(repaired: World, counted, fault):
    """One line that names it; what was committed stays; with the teacher repaired, the build goes on."""
    chance = random.Random(fault)
    for _ in range(size("teacher faults")):
        spec = f"python:tones:{fault}"
        arguments = [a.replace("python:tones:steep", spec) for a in repaired.arguments]
        teachers = repaired.root / "tones.py"
        teachers.write_text(REPAIRED)
        assert repaired.nursery.run(repaired.root, arguments).status == 0
        world = World(repaired.root, repaired.nursery, arguments, contents(repaired.store), 0)
        world.finish()
        teachers.write_text(STATED.replace("calls < 5", f"calls < {chance.randint(1, 8)}"))
        left = world.build()
        assert left.status == 1, left.out
        assert spec in left.error
        assert FAULTS[fault] in left.error
        assert not (world.store / "claims").exists()
        before = world.check_intact()
        assert before < 7

        teachers.write_text(REPAIRED.replace("slope=4.0", "slope=5.0"))
        left = world.build()
        assert left.status == 2, left.out
        assert "teachers: stored" in left.error
        assert world.check_intact() == before

        teachers.write_text(REPAIRED)
        world.finish()
    counted("teachers that failed midway, survived", size("teacher faults"))


def test_clips_that_vanish_between_scan_and_decoding(world: World, counted):
    """The clip is recorded as failed and nothing else changes; it can be retried when it is back."""
    chance = random.Random(8)
    arguments = [a.replace("mixed.yaml", "ced") for a in world.arguments]
    plain = World(world.root, world.nursery, arguments, {}, world.steps)
    assert plain.build().status == 0
    whole = _answers(world.store)
    vanished = wanted = size("clips deleted")
    while vanished:
        _remove(world.store)
        clip = world.root / "audio" / chance.choice(sorted(key for key in whole if key.endswith(".wav")))
        content = clip.read_bytes()
        left = plain.build(Faults(remove_at=chance.randint(1, world.steps // 2), remove=str(clip)))
        assert left.status == 0, left.out
        key = clip.relative_to(world.root / "audio").as_posix()
        found = _answers(world.store)
        if "failures   2" in left.out:
            vanished -= 1
            assert f"{key}: cannot be opened: No such file or directory" in left.out
            assert sorted(set(whole) - set(found)) == [key]
        for other, answer in found.items():
            np.testing.assert_equal(answer, whole[other])
        assert "made       0 views" in plain.build().out
        clip.write_bytes(content)
        left = plain.build(None, "--retry-failed")
        assert left.status == 0, left.out
        assert "failures   1" in left.out
        np.testing.assert_equal(_answers(world.store), whole)
    counted("clips that vanished after the scan, recorded and retried", wanted)


def _answers(store: Path) -> dict[str, list]:
    """Targets and draws of every view by the clip's path."""
    opened = open_store(store)
    paths = opened.clips["path"].to_pylist()
    found: dict[str, list] = {}
    for view in range(opened.views):
        for clip in opened.clips_of(view).tolist():
            targets = [values[0] for values in opened.targets(view, [clip])]
            found.setdefault(paths[clip], []).append((targets, opened.draws(view, [clip]).columns))
    return found


def _remove(store: Path) -> None:
    import shutil

    shutil.rmtree(store)
