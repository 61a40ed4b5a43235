"""Several builders on one store finish it once, whatever becomes of one of them."""

import random
import re
import signal
import time

from tests.faults.conftest import World, size
from tests.faults.nursery import Faults

READABLE_VIEWS = 24


def _made(out: str) -> int:
    found = re.search(r"^made +([\d,]+) views", out, re.MULTILINE)
    assert found, out
    return int(found[1].replace(",", ""))


def test_four_builders_at_once_finish_a_store_once(world: World, counted):
    chance = random.Random(3)
    rounds = size("rounds of four builders")
    for _ in range(rounds):
        builders = []
        for _ in range(4):
            builders.append(world.start())
            time.sleep(chance.uniform(0, 0.1))
        left = [builder.wait() for builder in builders]
        assert [one.status for one in left] == [0] * 4, [one.out for one in left]
        assert sum(_made(one.out) for one in left) == READABLE_VIEWS
        world.check_finished()
        assert world.build().out.count("made       0 views") == 1
        world.finish()
    counted("stores finished once by four builders at once", rounds)


def test_four_builders_of_which_two_are_killed(world: World, counted):
    chance = random.Random(4)
    rounds = size("rounds of four builders")
    for _ in range(rounds):
        faults = [Faults(die_at=chance.randint(20, world.steps // 3), torn=True) for _ in range(2)]
        builders = [world.start(fault) for fault in [*faults, Faults(), Faults()]]
        left = [builder.wait() for builder in builders]
        assert all(one.status in (0, -signal.SIGKILL) for one in left)
        assert [one.status for one in left[2:]] == [0, 0], [one.out for one in left]
        world.build()  # sweeps what the dead left, where the living had finished before
        world.check_finished()
        world.finish()
    counted("stores finished by four builders of which two were killed", rounds)


def test_a_builder_that_dies_on_another_host_holds_up_nobody_for_longer_than_its_claim(world: World, counted):
    lease = 12.0  # longer than a builder takes to begin
    left = world.build(Faults(die_at=world.steps // 2, host="elsewhere", lease=lease))
    died = time.monotonic()
    assert left.status == -signal.SIGKILL
    held = list((world.store / "claims").iterdir())
    assert held
    left = world.build()
    waited = time.monotonic() - died
    assert left.status == 0
    assert re.search(
        "waiting for [12] shards that other builders have claimed", left.out
    )  # the next one is begun early
    assert lease - 1.0 < waited < lease + 10.0
    world.check_finished(scratch=True)  # whether another host's writer is gone is known an hour later
    counted("claims of the dead that were waited for no longer than they lasted")


def test_a_builder_that_was_suspended_beyond_its_claim_does_no_harm(world: World, counted):
    """Its shard is taken over; when it wakes, it finds its block made, and the same."""
    chance = random.Random(5)
    sleepers = []
    for _ in range(2):
        sleeper = world.start(Faults(lease=1.0, host="asleep"))
        time.sleep(chance.uniform(0.2, 0.5))
        sleeper.send(signal.SIGSTOP)
        sleepers.append(sleeper)
    left = world.build(Faults(lease=1.0))
    assert left.status == 0, left.out
    for sleeper in sleepers:
        sleeper.send(signal.SIGCONT)
    for sleeper in sleepers:
        left = sleeper.wait()
        assert left.status == 0, left.out
    world.build()
    world.check_finished()
    counted("suspended builders that woke up late", len(sleepers))
