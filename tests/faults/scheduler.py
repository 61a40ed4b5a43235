"""A seeded scheduler of simulated builders: who goes on, what goes wrong, and what must never be seen."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from logitstore.errors import LogitstoreError
from logitstore.store import claims, writer
from logitstore.store.format import commits

LEASE = claims.LEASE_SECONDS
#: A request that a builder makes right after it has seen that it holds a claim is carried out within this time.
GUARDED = LEASE / 2
ROOT = "store"
MOST_STEPS = 20_000


class ViolationError(AssertionError):
    """What must never be, was."""


class Killed(BaseException):
    """A builder has died; nothing that it would still do happens."""


# who goes on


@dataclass(eq=False)
class Actor:
    """A thread of a builder."""

    name: str
    builder: Builder
    until: float = 0.0  # it stands still until then, or …
    ready: Callable[[], bool] | None = None  # … until this holds
    done: bool = False
    baton: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Builder:
    """A process: its host and number, and whether it is alive."""

    name: str
    host: str
    pid: int
    alive: bool = True
    actors: list[Actor] = field(default_factory=list)
    guarded: float | None = None  # it has just seen that it holds a claim, and goes by that until then
    ended: str = ""


class Scheduler:
    """Decides from a seed who goes on and what goes wrong. One actor runs at a time, until its next call."""

    def __init__(self, seed: int, calm: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self.calm = calm
        self.trace: list[str] = []
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.violation: ViolationError | None = None
        self.steps = 0
        self.on_step: Callable[[], None] = lambda: None
        self.main = threading.Lock()
        self.main.acquire()
        chance = self.random.random
        # each seed has its own mixture of faults
        self.kill = 0.004 * chance() ** 2 if chance() < 0.7 else 0.0
        self.stall = 0.03 * chance() ** 2 if chance() < 0.7 else 0.0
        self.switch = chance() ** 2
        self.faulty = 0.15 * chance() ** 2 if chance() < 0.7 else 0.0

    def log(self, text: str) -> None:
        who = self.current.name if self.current else "-"
        self.trace.append(f"{self.now - 1_000_000:9.2f} {who:<12} {text}")

    def step(self, what: str, *, acts: bool = False) -> None:
        """An actor is about to do something.

        :param acts: whether it changes something that a claim guards.
        """
        actor = self.current
        assert actor is not None
        builder = actor.builder
        if not builder.alive:
            raise Killed
        self.steps += 1
        if self.steps > MOST_STEPS:
            self.fail(f"nothing ends after {MOST_STEPS} steps")
        self.log(what)
        self.now += 0.01
        if not self.calm:
            roll = self.random.random()
            if roll < self.kill:
                self.die(builder)
            elif roll < self.kill + self.stall:
                length = self.random.choice((1.0, 10.0, LEASE / 2, LEASE, 2 * LEASE, 4 * LEASE)) * self.random.random()
                if builder.guarded is not None:
                    length = min(length, (builder.guarded - self.now) * 0.9)
                if length > 0:
                    self.log(f"… stands still for {length:.1f} s")
                    if builder.guarded is None and self.random.random() < 0.5:  # the whole process
                        for one in builder.actors:
                            one.until = max(one.until, self.now + length)
                    else:
                        actor.until = self.now + length
            self.on_step()
        if self.random.random() < (0.1 if self.calm else self.switch) or actor.until > self.now:
            self.yield_()
        if acts:
            builder.guarded = None

    def die(self, builder: Builder) -> None:
        self.log(f"{builder.name} is killed")
        builder.alive = False
        raise Killed

    def wait(self, ready: Callable[[], bool], seconds: float | None = None) -> None:
        """The actor waits until something holds, or some seconds have passed."""
        actor = self.current
        assert actor is not None
        actor.ready = ready
        actor.until = float("inf") if seconds is None else self.now + seconds
        self.yield_()
        actor.ready, actor.until = None, 0.0
        if not actor.builder.alive:
            raise Killed

    def _runnable(self, actor: Actor) -> bool:
        if actor.done:
            return False
        return not actor.builder.alive or actor.until <= self.now or (actor.ready is not None and actor.ready())

    def _next(self) -> Actor | None:
        living = [actor for actor in self.actors if not actor.done]
        if not living:
            return None
        free = [actor for actor in living if self._runnable(actor)]
        urgent = [actor for actor in living if (guarded := actor.builder.guarded) and guarded - self.now < 5.0]
        if urgent and (due := [actor for actor in urgent if actor in free]):
            return due[0]
        if not free:
            self.now = max(self.now, min(actor.until for actor in living))
            if self.now == float("inf"):
                self.fail("everybody waits for ever")
            free = [actor for actor in living if self._runnable(actor)]
        return free[self.random.randrange(len(free))] if len(free) > 1 else free[0]

    def yield_(self) -> None:
        """Another actor goes on; returns when it is this one's turn again."""
        own = self.current
        assert own is not None
        chosen = self._next()
        if chosen is own:
            return
        self.current = chosen
        assert chosen is not None
        chosen.baton.release()
        own.baton.acquire()
        if not own.builder.alive:
            raise Killed

    def start(self, builder: Builder, name: str, work: Callable[[], None]) -> Actor:
        """Another actor; it begins at its first turn."""
        actor = Actor(name, builder)
        actor.baton.acquire()
        self.actors.append(actor)
        builder.actors.append(actor)

        def live() -> None:
            actor.baton.acquire()
            try:
                if builder.alive:
                    work()
            except Killed:
                pass
            except ViolationError as violation:
                self.violation = self.violation or violation
                builder.alive = False
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault of the code under test
                self.violation = self.violation or ViolationError(f"{actor.name}: {type(error).__name__}: {error}")
                self.violation.__cause__ = error
                builder.alive = False
            actor.done = True
            if actor is builder.actors[0]:
                builder.alive = False
                builder.guarded = None
            if self.violation is not None:
                for one in self.actors:
                    one.builder.alive = False
            self.current = self._next()
            (self.main if self.current is None else self.current.baton).release()

        _threads(live)
        return actor

    def run(self) -> None:
        """Let the actors go on until all have ended."""
        self.current = self._next()
        if self.current is None:
            return
        self.current.baton.release()
        self.main.acquire()
        self.actors.clear()
        if self.violation is not None:
            raise self.violation

    def fail(self, text: str) -> None:
        """Something that must never be was seen."""
        self.log(f"VIOLATION: {text}")
        raise ViolationError(text)


_idle: list[tuple[threading.Lock, list[Callable[[], None]]]] = []


def _threads(work: Callable[[], None]) -> None:
    """Run something in a thread of its own, one that has done with other work where there is one."""
    if _idle:
        lock, box = _idle.pop()
        box.append(work)
        lock.release()
        return
    lock, box = threading.Lock(), [work]

    def serve() -> None:
        while True:
            lock.acquire()
            box.pop()()
            _idle.append((lock, box))

    threading.Thread(target=serve, daemon=True).start()
    lock_first = lock
    del lock_first


class World:
    """One seed's scheduler, place and builders, and what is watched of them."""

    now: ClassVar[World]

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.mended = False
        self.pids = 100
        self.living: dict[int, Builder] = {}
        self.holders: dict[int, claims.Claimer] = {}  # who was last told that it has a shard
        self.of_claimer: dict[int, Builder] = {}
        self.place: Any = None

    @property
    def builder(self) -> Builder:
        assert self.scheduler.current is not None
        return self.scheduler.current.builder

    # what is watched

    def see_object(self, name: str) -> None:
        """An object has changed: is every committed block that it is of whole?"""
        folder, _, rest = name.partition("/")
        if folder == commits.FOLDER:
            self._whole(name)
        elif folder == "blocks":
            block = rest.partition("/")[0].partition(".")[0]
            self._whole(f"{commits.FOLDER}/{block}.json", name)

    def _whole(self, commit: str, changed: str | None = None) -> None:
        content = self.place.object(commit)
        if content is None:
            return
        found = _decoded(content, commit)
        if found is None:
            self.scheduler.fail(f"{commit} is damaged")
            return
        group, named = found
        if changed is not None and not changed.startswith(f"{group}/"):
            return
        for name, expected in named.items() if changed is None else [(changed, named.get(changed))]:
            held = self.place.object(name)
            if held is None:
                self.scheduler.fail(f"{commit} is there and {name} is not")
            elif expected is None or _digest(held) != expected:
                self.scheduler.fail(f"{commit} is there and {name} is another object")

    def see_all(self) -> None:
        """Is every committed block whole, and one of those that an undisturbed build makes?"""
        for name in self.place.objects():
            if name.startswith(f"{commits.FOLDER}/"):
                self._whole(name)

    def see_held(self, claimer: claims.Claimer, shard: int) -> None:
        """A builder has been told that it holds a shard: nobody else may believe so."""
        other = self.holders.get(shard)
        if other is not None and other is not claimer:
            written = other._held.get(f"{claims.FOLDER}/{shard:06d}.json")
            builder = self.of_claimer[id(other)]
            if builder.alive and written is not None:
                claim = claims._decode(written)
                assert claim is not None
                if claim.expires > self.scheduler.now:
                    self.scheduler.fail(f"two builders hold shard {shard}: {self.builder.name} and {builder.name}")
        self.holders[shard] = claimer


@functools.lru_cache(maxsize=4096)
def _decoded(content: bytes, name: str) -> tuple[str, dict[str, str]] | None:
    try:
        commit = commits.decode(content, name)
    except LogitstoreError:
        return None
    return commit.group, {f"{commit.group}/{each}": digest for each, digest in commit.objects.items()}


@functools.lru_cache(maxsize=4096)
def _digest(content: bytes) -> str:
    return str(writer.digest(content))
