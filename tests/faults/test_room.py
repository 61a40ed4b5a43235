"""A disk that is full: one clear line, every committed block intact, and the same bytes once there is room."""

import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import World, size
from tests.faults.nursery import REPOSITORY, Faults, Left

PROMISE = "every committed block is intact"


def test_no_room_from_a_random_step_on(world: World, counted):
    """Every opening, making, linking and renaming of a file fails from then on, as on a disk without room."""
    chance = random.Random(6)
    full = size("full disks")
    for number in range(full):
        left = world.build(Faults(full_at=chance.randint(1, world.steps)))
        if left.status:
            assert left.status == 1
            assert "No space left on device" in left.error
            assert PROMISE in left.error
        if world.store.exists():
            world.check_intact()
        if chance.random() < 0.5 or number + 1 == full:
            world.finish()
    counted("full disks survived", full)


@pytest.fixture
def small_disk(world: World):
    """``mount(options)`` makes the store's folder a disk in memory."""
    mounted = []

    def mount(options: str) -> None:
        world.store.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(world.store)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk, and not everywhere")
        mounted.append(True)

    yield mount
    if mounted:
        subprocess.run(["umount", str(world.store)], check=True)


@pytest.mark.parametrize("resource_name", ["size", "nr_inodes"])
def test_a_small_disk_that_fills_up(world: World, counted, small_disk, resource_name):
    chance = random.Random(7)
    unit = "k" if resource_name == "size" else ""
    whole = len(world.undisturbed) * (4 if resource_name == "size" else 1)
    small_disk(f"{resource_name}={whole // 10}{unit}")
    filled = 0
    while filled < size("small disks"):
        for name in ("blocks", "commits", "clips", "tmp", "claims"):
            shutil.rmtree(world.store / name, ignore_errors=True)
        (world.store / "zarr.json").unlink(missing_ok=True)
        _remount(world.store, f"{resource_name}={chance.randint(whole // 10, whole // 2)}{unit}")
        left = world.build()
        assert left.status == 1, left.out
        assert "No space left on device" in left.error
        assert PROMISE in left.error
        world.check_intact()
        _remount(world.store, f"{resource_name}={10 * whole}{unit}")
        assert world.build().status == 0
        world.check_finished()
        filled += 1
    counted("small disks filled up, resumed to the undisturbed bytes", filled)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_limit_on_the_size_of_files(world: World, counted):
    """Each commit is larger than a block's arrays, so that the limit is met there."""
    first_commit = world.undisturbed["commits/000000-0-2.json"]
    limit = len(first_commit) - 1
    code = "from logitstore.cli.main import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, *world.arguments], cwd=world.root, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},  # they would be cut, and stay
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    error = Left(run.returncode, run.stderr).error
    assert "File too large" in error
    assert PROMISE in error
    world.check_intact()
    world.finish()
    counted("limits on file sizes survived")
