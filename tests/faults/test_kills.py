"""Builds that are killed, interrupted and terminated at random moments end as if nothing had happened."""

import random
import signal
import time

import pytest

from tests.faults.conftest import World, size
from tests.faults.nursery import Faults


def test_builds_killed_at_random_times(world: World, counted):
    """SIGKILL from outside, whenever; up to five in succession on one store."""
    chance = random.Random(1)
    began = time.monotonic()
    world.finish()
    whole = time.monotonic() - began
    wanted, kills, in_a_row = size("kills at random times"), 0, chance.randint(1, 5)
    while kills < wanted:
        child = world.start()
        time.sleep(chance.uniform(0, whole))
        child.send(signal.SIGKILL)
        status = child.wait().status
        assert status in (0, -signal.SIGKILL)
        if status:
            kills += 1
            in_a_row -= 1
            world.check_intact()
        if not status or not in_a_row or kills == wanted:
            world.finish()
            in_a_row = chance.randint(1, 5)
    counted("builds killed at a random time, resumed to the undisturbed bytes", kills)


def test_builds_killed_at_random_steps(world: World, counted):
    """SIGKILL before a random operation on a file of the store, half of them with what was being written torn."""
    chance = random.Random(2)
    wanted, kills, in_a_row = size("kills at random steps"), 0, chance.randint(1, 5)
    while kills < wanted:
        left = world.build(Faults(die_at=chance.randint(1, world.steps), torn=chance.random() < 0.5))
        assert left.status in (0, -signal.SIGKILL), left.out
        if left.status:
            kills += 1
            in_a_row -= 1
            world.check_intact()
        if not left.status or not in_a_row or kills == wanted:
            world.finish()
            in_a_row = chance.randint(1, 5)
    counted("builds killed at a random step, resumed to the undisturbed bytes", kills)


@pytest.mark.parametrize(("number", "what"), [(signal.SIGINT, "interrupts"), (signal.SIGTERM, "terminations")])
def test_builds_interrupted_at_random_times(world: World, counted, number, what):
    """One line, exit code 130, no claim left; what was finished is kept."""
    chance = random.Random(int(number))
    began = time.monotonic()
    world.finish()
    whole = time.monotonic() - began
    stopped = 0
    while stopped < size(what):
        child = world.start()
        time.sleep(chance.uniform(0, whole))
        child.send(number)
        left = child.wait()
        assert left.status in (0, 130), left.out
        if left.status:
            assert "Traceback" not in left.out, left.out
            if left.out:
                assert left.error.startswith("Error: interrupted")
            assert not [*world.store.glob("claims/*")]  # an empty folder, left between two steps, claims nothing
            world.check_intact()
            stopped += 1
        if not left.status or chance.random() < 0.3 or stopped == size(what):
            world.finish()
    counted(f"{what} survived", stopped)
