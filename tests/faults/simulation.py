"""Builds in one process under a seeded scheduler: a simulated disk or bucket, a simulated clock, the real builder code.

What runs is the job's own loop, the claims with their renewal, the writer, the commits and both storages, down to what
they ask of the operating system or of the object store. Only these are replaced: the folder, the requests, the clock,
locks and events, and the ensemble, which answers at once. At every such call the scheduler decides from its seed who
goes on, and what goes wrong: a builder is killed, stands still beyond its claim, the machine loses its power, a request
fails, is carried out and its answer is lost, is repeated, or is carried out seconds later.

``python -m tests.faults.simulation --seed 17`` prints what happens under a seed; ``--seeds 10000`` tries so many.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from logitstore.errors import LogitstoreError
from logitstore.jobs.build import job as jobs
from logitstore.jobs.options import BuildOptions, Extension
from logitstore.store import claims, cloud, storage, writer
from logitstore.store.format import commits, parts
from logitstore.store.format.layout import Targets
from logitstore.store.format.manifest import FORMAT_VERSION, Manifest, Member
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import BlockContent
from logitstore.views.recipe import Draws, load_recipe

LEASE = claims.LEASE_SECONDS
#: A request that a builder makes right after it has seen that it holds a claim is carried out within this time.
GUARDED = LEASE / 2
ROOT = "store"
MOST_STEPS = 20_000


class Violation(AssertionError):
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
        self.violation: Violation | None = None
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
            except Violation as violation:
                self.violation = self.violation or violation
                builder.alive = False
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault of the code under test
                self.violation = self.violation or Violation(f"{actor.name}: {type(error).__name__}: {error}")
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
        raise Violation(text)


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


# a folder, down to what is asked of the operating system


@dataclass(eq=False)
class File:
    """A file: what a reader finds, and what is left of it if the power fails."""

    content: bytes = b""
    kept: bytes | None = None
    changed: float = 0.0
    locked: Builder | None = None

    def lose(self, chance: random.Random) -> None:
        if self.kept != self.content:
            torn = self.content[: chance.randrange(len(self.content) + 1)]
            self.content = self.kept if self.kept is not None and chance.random() < 0.5 else torn
        self.kept = self.content


@dataclass(eq=False)
class Folder:
    """A folder: its entries, and those that are left if the power fails."""

    entries: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def lose(self, chance: random.Random) -> None:
        for name in sorted(self.entries.keys() | self.kept.keys()):
            now, then = self.entries.get(name), self.kept.get(name)
            if now is not then and chance.random() < 0.5:
                if then is None:
                    del self.entries[name]
                else:
                    self.entries[name] = then
        self.kept = dict(self.entries)
        for entry in self.entries.values():
            entry.lose(chance)


class Disk:
    """A POSIX file system: names appear and vanish in one step; what was not synced may be lost with the power."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.root = Folder()
        self.open_files: dict[int, Any] = {}
        self._flat: dict[str, bytes] | None = None

    def storage(self) -> LocalStorage:
        return LocalStorage(ROOT)

    def fill(self, objects: dict[str, bytes]) -> None:
        """Begin with some objects, all of them safe."""
        for name, content in objects.items():
            *folders, last = name.split("/")
            at = self.root
            for folder in (ROOT, *folders):
                inside = at.kept[folder] = at.entries.setdefault(folder, Folder())
                at = inside
            at.kept[last] = at.entries[last] = File(content, content)

    def object(self, name: str) -> bytes | None:
        """An object's bytes, if it is there."""
        at: Any = self.root.entries.get(ROOT)
        for part in name.split("/"):
            at = at.entries.get(part) if isinstance(at, Folder) else None
        return at.content if isinstance(at, File) else None

    def objects(self) -> dict[str, bytes]:
        """Every object of the store, scratch included."""
        if self._flat is None:
            store = self.root.entries.get(ROOT)
            self._flat = dict(self._walk(store, "")) if store is not None else {}
        return self._flat

    def _walk(self, folder: Folder, base: str) -> Iterator[tuple[str, bytes]]:
        for name, entry in folder.entries.items():
            if isinstance(entry, Folder):
                yield from self._walk(entry, f"{base}{name}/")
            else:
                yield f"{base}{name}", entry.content

    def crash(self) -> None:
        """The power fails: every builder is gone, and so is, perhaps, what was not synced."""
        self._flat = None
        self.open_files.clear()
        self.root.lose(self.world.scheduler.random)
        self.world.see_all()

    def settle(self) -> None:
        """Nothing is under way here."""

    # calls

    def call(self, what: str, path: Any = "", acts: bool = False) -> None:
        self.world.scheduler.step(f"{what} {path}", acts=acts)

    def find(self, path: PurePosixPath) -> Any:
        entry: Any = self.root
        for name in path.parts:
            if not isinstance(entry, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if name not in entry.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            entry = entry.entries[name]
        return entry

    def changed(self, *paths: PurePosixPath) -> None:
        self._flat = None
        for path in paths:
            self.world.see_object("/".join(path.parts[1:]))

    def opened(self, what: Any) -> int:
        number = len(self.open_files) + 10
        while number in self.open_files:
            number += 1
        self.open_files[number] = what
        return number


class _Handle:
    """An open file."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.number = _disk().opened(file)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self.number)

    def write(self, content: bytes) -> int:
        scheduler = _disk().world.scheduler
        half = len(content) // 2
        self.file.content += content[:half]  # a builder can die in the middle
        _disk()._flat = None
        scheduler.step("write")
        self.file.content += content[half:]
        self.file.changed = scheduler.now
        _disk()._flat = None
        return len(content)

    def read(self) -> bytes:
        _disk().call("read")
        return self.file.content

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self.number


def _disk() -> Disk:
    found = World.now.place
    assert isinstance(found, Disk)
    return found


def _close(number: int) -> None:
    file = _disk().open_files.pop(number, None)
    if isinstance(file, File) and file.locked is World.now.builder:
        file.locked = None


class SimulatedPath(PurePosixPath):
    """What the storage asks of a path."""

    def read_bytes(self) -> bytes:
        _disk().call("read", self)
        found = _disk().find(self)
        if isinstance(found, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        return bytes(found.content)

    def open(self, mode: str = "r") -> _Handle:
        _disk().call(f"open {mode}", self)
        if mode.startswith("x"):
            folder = _disk().find(self.parent)
            if self.name in folder.entries:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))
            folder.entries[self.name] = File(changed=_disk().world.scheduler.now)
            _disk()._flat = None
        elif mode.startswith("w"):
            folder = _disk().find(self.parent)
            file = folder.entries.setdefault(self.name, File())
            file.content = b""
            _disk()._flat = None
        return _Handle(_disk().find(self))

    def stat(self) -> Any:
        found = _disk().find(self)
        size = len(found.content) if isinstance(found, File) else 0
        return SimpleNamespace(st_size=size, st_mtime=getattr(found, "changed", 0.0), st_ino=id(found), st_dev=0)

    def exists(self) -> bool:
        try:
            _disk().find(self)
        except OSError:
            return False
        return True

    def __truediv__(self, name: Any) -> SimulatedPath:
        return _joined(self, name)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        if exist_ok and self.exists():
            return None
        for path in [*reversed(self.parents[:-1]), self] if parents else [self]:
            try:
                folder = _disk().find(path.parent)
                if path.name in folder.entries:
                    if path == self and not exist_ok:
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
                    continue
                _disk().call("mkdir", path)
                folder = _disk().find(path.parent)
                folder.entries.setdefault(path.name, Folder())
            except FileNotFoundError:  # it has been removed meanwhile; that is the caller's
                if path == self or not parents:
                    raise
                return self.mkdir(parents, exist_ok)

    def unlink(self, missing_ok: bool = False) -> None:
        _disk().call("unlink", self, acts=not self._scratch)
        try:
            folder = _disk().find(self.parent)
            del folder.entries[self.name]
        except (FileNotFoundError, KeyError):
            if not missing_ok:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
            return
        _disk().changed(self)

    def rmdir(self) -> None:
        folder = _disk().find(self.parent)
        own = _disk().find(self)
        if own.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        _disk().call("rmdir", self)
        own, folder = _disk().find(self), _disk().find(self.parent)
        if own.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        del folder.entries[self.name]

    def replace(self, target: Any) -> None:  # type: ignore[override]
        _disk().call("rename to", target, acts=True)
        into = _disk().find(target.parent)
        folder = _disk().find(self.parent)
        if self.name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        into.entries[target.name] = folder.entries.pop(self.name)
        _disk().changed(target)

    rename = replace

    @property
    def _scratch(self) -> bool:
        return len(self.parts) > 1 and self.parts[1] == storage.SCRATCH


@functools.lru_cache(maxsize=4096)
def _joined(path: PurePosixPath, name: Any) -> SimulatedPath:
    return PurePosixPath.__truediv__(path, name)  # type: ignore[return-value]


class SimulatedOs:
    """What the storage asks of ``os``."""

    O_RDONLY = os.O_RDONLY
    O_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
    fspath = staticmethod(os.fspath)
    path = os.path
    PathLike = os.PathLike

    @staticmethod
    def getpid() -> int:
        return World.now.builder.pid

    @staticmethod
    def link(source: SimulatedPath, target: SimulatedPath) -> None:
        _disk().call("link to", target, acts=True)
        file = _disk().find(source)
        into = _disk().find(target.parent)
        if target.name in into.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        into.entries[target.name] = file
        _disk().changed(target)

    @staticmethod
    def open(path: Any, flags: int) -> int:
        return _disk().opened(_disk().find(SimulatedPath(path)))

    @staticmethod
    def close(number: int) -> None:
        _close(number)

    @staticmethod
    def fstat(number: int) -> Any:
        return SimpleNamespace(st_ino=id(_disk().open_files[number]), st_dev=0)

    @staticmethod
    def fsync(number: int) -> None:
        _disk().call("fsync")
        found = _disk().open_files.get(number)
        if isinstance(found, File):
            found.kept = found.content
        elif isinstance(found, Folder):
            found.kept = dict(found.entries)

    @staticmethod
    def walk(path: SimulatedPath) -> Iterator[tuple[str, list[str], list[str]]]:
        _disk().call("list", path)
        try:
            found = _disk().find(SimulatedPath(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        if isinstance(found, File):
            return
        pending = [(str(path), found)]
        while pending:
            where, folder = pending.pop()
            names = sorted(folder.entries)
            folders = [name for name in names if isinstance(folder.entries[name], Folder)]
            files = [name for name in names if isinstance(folder.entries[name], File)]
            yield where, folders, files
            pending += [(f"{where}/{name}", folder.entries[name]) for name in folders if name in folder.entries]


class SimulatedFcntl:
    """What the storage asks of ``fcntl``: locks of files, gone with the process."""

    LOCK_EX, LOCK_NB = 2, 4

    @staticmethod
    def flock(number: int, flags: int) -> None:
        _disk().call("lock")
        file = _disk().open_files[number]
        if file.locked is not None and file.locked.alive:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        file.locked = World.now.builder


# a bucket, down to the requests


class AlreadyExistsError(Exception):
    """A condition was not met."""


class RequestError(Exception):
    """A request that has failed for good."""


@dataclass
class Late:
    """A request that is still under way."""

    what: str
    name: str
    apply: Callable[[], None]
    until: float


class Bucket:
    """An object store, as ``obstore`` shows it: strongly consistent, puts in one step, conditional where asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: dict[str, bytes] = {}
        self.late: list[Late] = []
        self.by_content = world.scheduler.random.random() < 0.5  # whether an ETag is a digest, as S3's are
        self.version = 0
        self.tags: dict[str, str] = {}

    def storage(self) -> cloud.ObjectStorage:
        made = object.__new__(cloud.ObjectStorage)
        made._scheme, made._bucket, made._location = "s3", ROOT, f"s3://{ROOT}"
        made._api, made._store = self, None
        made._errors = SimpleNamespace(BaseError=RequestError)
        made._unmet = (AlreadyExistsError, AlreadyExistsError)
        return made

    def fill(self, objects: dict[str, bytes]) -> None:
        """Begin with some objects."""
        for name in sorted(objects, key=lambda name: name.startswith(commits.FOLDER)):
            self._put(name, objects[name], "create")

    def object(self, name: str) -> bytes | None:
        """An object's bytes, if it is there."""
        return self.held.get(name)

    def objects(self) -> dict[str, bytes]:
        return self.held

    def crash(self) -> None:
        """The power of the builders' machine fails; the bucket is elsewhere."""
        self.world.see_all()

    def settle(self) -> None:
        """What is under way arrives."""
        while self.late:
            self._land(self.late.pop(0))

    def on_step(self) -> None:
        scheduler = self.world.scheduler
        for one in [one for one in self.late if one.until <= scheduler.now or scheduler.random.random() < 0.05]:
            self.late.remove(one)
            self._land(one)

    def _land(self, one: Late) -> None:
        self.world.scheduler.log(f"{one.what} {one.name} arrives late")
        with contextlib.suppress(AlreadyExistsError):
            one.apply()

    # requests

    def _request(self, what: str, name: str, apply: Callable[[], Any], *, writes: bool, late: bool = True) -> Any:
        scheduler = self.world.scheduler
        scheduler.step(f"{what} {name}", acts=False)
        try:
            for _ in range(3):
                roll = scheduler.random.random() / max(scheduler.faulty, 1e-9)
                if scheduler.calm or roll >= 1.0:
                    return apply()
                if roll < 0.3:
                    scheduler.log("… is lost on the way")
                elif roll < 0.7 or not writes or not late:
                    with contextlib.suppress(AlreadyExistsError, FileNotFoundError):
                        apply()
                    scheduler.log("… is done, and its answer is lost")
                else:
                    self.late.append(Late(what, name, apply, scheduler.now + 20 * scheduler.random.random()))
                    scheduler.log("… is under way, and not waited for")
                if scheduler.random.random() < 0.2:
                    scheduler.log("… has failed")
                    raise RequestError("no answer")
                scheduler.step(f"{what} {name} again")
            return apply()
        finally:
            if writes:
                self.world.builder.guarded = None

    def _put(self, name: str, content: bytes, mode: Any) -> None:
        there = name in self.held
        if (mode == "create" and there) or (isinstance(mode, dict) and self.tags.get(name) != mode["e_tag"]):
            raise AlreadyExistsError
        self.held[name] = content
        self.version += 1
        self.tags[name] = hashlib.md5(content).hexdigest() if self.by_content else str(self.version)
        self.world.see_object(name)

    def put(self, _: Any, name: str, content: bytes, mode: Any = "overwrite") -> None:
        kind = "replace" if isinstance(mode, dict) else {"create": "create", "overwrite": "put"}[mode]
        self._request(kind, name, lambda: self._put(name, content, mode), writes=True)

    def get(self, _: Any, name: str) -> Any:
        def read() -> Any:
            if name not in self.held:
                raise FileNotFoundError(name)
            content, tag = self.held[name], self.tags[name]
            return SimpleNamespace(bytes=lambda: content, meta={"e_tag": tag, "version": None})

        return self._request("get", name, read, writes=False)

    def head(self, _: Any, name: str) -> Any:
        return self._request("head", name, lambda: {"size": len(self.held[name])}, writes=False)

    def delete(self, _: Any, name: str) -> None:
        def remove() -> None:
            if self.held.pop(name, None) is not None:
                self.tags.pop(name)
                self.world.see_object(name)

        self._request("delete", name, remove, writes=True, late=False)

    def list(self, _: Any, prefix: str | None, offset: str | None = None, chunk_size: int = 0) -> Any:
        begin = f"{prefix}/" if prefix else ""

        def found() -> Any:
            return [
                {"path": name, "size": len(self.held[name])}
                for name in sorted(self.held)
                if name.startswith(begin) and (offset is None or name > offset)
            ]

        return [self._request("list", begin, found, writes=False)]


# time, threads, processes


class _Time:
    @staticmethod
    def time() -> float:
        return World.now.scheduler.now

    monotonic = time

    @staticmethod
    def sleep(seconds: float) -> None:
        World.now.scheduler.step("sleep")
        World.now.scheduler.wait(lambda: False, seconds)


class _Lock:
    def __init__(self) -> None:
        self.held = False

    def __enter__(self) -> None:
        if self.held:
            World.now.scheduler.wait(lambda: not self.held)
        self.held = True

    def __exit__(self, *_: object) -> None:
        self.held = False


class _Event:
    def __init__(self) -> None:
        self.on = False

    def set(self) -> None:
        self.on = True

    def is_set(self) -> bool:
        return self.on

    def wait(self, seconds: float | None = None) -> bool:
        if not self.on:
            World.now.scheduler.wait(lambda: self.on, seconds)
        return self.on


class _Thread:
    def __init__(self, target: Callable[[], None], name: str, daemon: bool = False) -> None:
        self.target, self.name = target, name

    def start(self) -> None:
        builder = World.now.builder
        self.actor = World.now.scheduler.start(builder, f"{builder.name} {self.name}", self.target)

    def join(self) -> None:
        if not self.actor.done:
            World.now.scheduler.wait(lambda: self.actor.done)


class _Pool:
    """Does one after the other what a pool of threads does at once, in an order of the scheduler's."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, act: Callable[..., Any], *values: Any) -> Iterator[Any]:
        calls = list(zip(*values, strict=True))
        order = list(range(len(calls)))
        World.now.scheduler.random.shuffle(order)
        found: dict[int, Any] = {}
        for number in order:
            found[number] = act(*calls[number])
        return iter([found[number] for number in range(len(calls))])


def _exists(pid: int) -> bool:
    found = World.now.living.get(pid)
    return found is not None and found.alive


def _hex(_: int = 0) -> str:
    return f"{World.now.scheduler.random.getrandbits(32):08x}"


# the builds


@functools.cache
def _tables() -> tuple[pa.Table, pa.Table]:
    """The clips of a build, and of an extension."""

    def table(names: str) -> pa.Table:
        count = len(names)
        return pa.table(
            {
                "path": pa.array([f"{name}.wav" for name in names]),
                "start": pa.array([0] * count, pa.int64()),
                "length": pa.array([16_000] * count, pa.int64()),
                "rate": pa.array([16_000] * count, pa.int32()),
            }
        )

    return table("abcd"), table("ef")


@functools.cache
def _manifest() -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION, classes=("a", "b", "c"), scores="sigmoid",
        teachers=(Member("net", "0" * 32, "sigmoid", 16_000, 1.0, {}),), average="probability",
        recipe_document=load_recipe("none").to_dict(), draw_columns=(), seed=0, sample_rate=16_000, clip_seconds=1.0,
        topk=1, value_bits=8, shard_clips=2, batch_size=8, device_kind="cpu", precision="float32", keep_members=False,
        made_by={},
    )  # fmt: skip


FAILING = 1  # the clip that cannot be decoded at first


@functools.cache
def _content(first: int, clips: int, view_start: int, views: int, failed: bool) -> BlockContent:
    shape = (clips, views, 1)
    numbers = np.arange(first, first + clips)[:, None, None] + np.arange(view_start, view_start + views)[None, :, None]
    readable = np.ones(clips, bool)
    if failed:
        readable[FAILING - first] = False
    classes = np.broadcast_to(numbers % 3, shape).astype(np.uint16)
    codes = np.broadcast_to(10 + numbers, shape).astype(np.uint16)
    classes[~readable], codes[~readable] = 0, 0
    reasons = {FAILING - first: "no audio"} if failed else {}
    return BlockContent(Targets(classes, codes, readable), None, Draws({}), reasons, ())


def _make_block(manifest: Manifest, part: parts.Part, plan: Any, *_: object, **__: object) -> BlockContent:
    world = World.now
    failed = FAILING in plan.clips and not world.mended
    world.scheduler.step(f"asks the teachers of shard {plan.shard}, views {plan.view_start} to {plan.view_stop - 1}")
    return _content(plan.clips.start, len(plan.clips), plan.view_start, plan.views, failed)


_encoded: dict[Any, dict[str, bytes]] = {}
_encode_group = writer.encode_group
_tables_encoded: dict[int, bytes] = {}
_encode_clips = parts.encode_clips


def _group(arrays: Any, attributes: Any) -> dict[str, bytes]:
    key = tuple((name, array.shape, array.tobytes()) for name, array in arrays.items())
    if key not in _encoded:
        _encoded[key] = _encode_group(arrays, attributes)
    return _encoded[key]


@functools.lru_cache(maxsize=256)
def _parts_cache(contents: tuple[tuple[str, bytes], ...], shard_clips: int) -> tuple[parts.Part, ...]:
    held = dict(contents)
    return _read_parts(SimpleNamespace(names=lambda *_: iter(sorted(held)), get=held.__getitem__), shard_clips)  # type: ignore[arg-type]


_read_parts = parts.read_parts


def _parts(place: Any, shard_clips: int) -> tuple[parts.Part, ...]:
    names = [name for name in place.names(parts.CLIPS) if parts.part_number(name) is not None]
    return _parts_cache(tuple((name, place.get(name)) for name in names), shard_clips)


_clip_bytes: dict[tuple[str, ...], bytes] = {}


def _clips(table: pa.Table) -> bytes:
    key = tuple(table["path"].to_pylist())
    if key not in _clip_bytes:
        _clip_bytes[key] = _encode_clips(table)
    return _clip_bytes[key]


def _options(views: int, extends: bool, retry: bool) -> BuildOptions:
    return _made_options(views, extends, retry)


@functools.cache
def _made_options(views: int, extends: bool, retry: bool) -> BuildOptions:
    kind: Any = Extension if extends else BuildOptions
    return kind(source="audio", out=ROOT, teachers=["net"], views=views, retry_failed=retry)


class _Watched(claims.Claimer):
    """The claims of a builder, whose answers are watched."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        World.now.of_claimer[id(self)] = World.now.builder
        self.ends = False

    def take(self, shard: int) -> bool:
        taken = super().take(shard)
        if taken:
            World.now.see_held(self, shard)
        return taken

    def _sure(self, name: str) -> bool:
        kept = super()._sure(name)
        if kept:
            if not self.ends:
                World.now.see_held(self, _shard(name))
            World.now.builder.guarded = World.now.scheduler.now + GUARDED
        return kept

    def _delete(self, name: str) -> None:
        self.ends = True  # from here on it no longer acts on the claim
        if World.now.holders.get(_shard(name)) is self:
            del World.now.holders[_shard(name)]
        try:
            super()._delete(name)
        finally:
            self.ends = False
            World.now.builder.guarded = None


def _shard(claim: str) -> int:
    return int(claim.rpartition("/")[2].partition(".")[0])


class _Piece:
    """The commits of a store in the end. (The cached ones are read under a lock that all threads of Python 3.11 share.)"""

    def __init__(self, place: Any, _: Manifest, root_digest: str) -> None:
        self.place, self.root_digest = place, root_digest
        self.views = 0

    @property
    def commits(self) -> tuple[commits.Commit, ...]:
        found = commits.read_all(self.place, root_digest=self.root_digest, whole=True)
        self.views = max((commit.view_stop for commit in found), default=0)
        return found


_QUIET: Any = SimpleNamespace(notes=[])  # an ensemble that has nothing to say


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """What the code under test asks of the machine is asked of the simulation."""
    host = SimpleNamespace(gethostname=lambda: World.now.builder.host)
    secret = SimpleNamespace(token_hex=_hex)
    here: dict[Any, dict[str, Any]] = {
        storage: {
            "os": SimulatedOs, "Path": SimulatedPath, "socket": host, "secrets": secret, "time": _Time,
            "ThreadPoolExecutor": _Pool, "process_exists": _exists, "fcntl": SimulatedFcntl,
        },
        claims: {
            "os": SimulatedOs, "socket": host, "secrets": secret, "time": _Time, "process_exists": _exists,
            "threading": SimpleNamespace(Lock=_Lock, Event=_Event, Thread=_Thread), "Claimer": _Watched,
        },
        cloud: {"_pool": _Pool, "_check_process": lambda: None},
        writer: {"encode_group": _group, "encode_clips": _clips, "read_parts": _parts},
        jobs: {
            "try_out": lambda *_, **__: None, "Heard": lambda *_: SimpleNamespace(check=lambda commit: None),
            "time": _Time, "make_block": _make_block, "ClipAudio": lambda *_: None, "holds": lambda *_: True,
            "_decodes": lambda audio, clip: World.now.mended,
            "ThreadPoolExecutor": lambda *_: contextlib.nullcontext(), "Piece": _Piece, "Pieces": lambda pieces: pieces[0],
        },
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for module, names in here.items():
            for name, value in names.items():
                stack.enter_context(patch.object(module, name, value, create=name == "fcntl"))
        yield


@dataclass(frozen=True)
class Command:
    """What a user runs: a build of so many views, or an extension; with ``--retry-failed``."""

    views: int = 1
    extends: bool = False
    retry: bool = False


def _builder(world: World, name: str, host: str) -> Builder:
    world.pids += 1
    made = world.living[world.pids] = Builder(name, host, world.pids)
    return made


def _start(world: World, command: Command, name: str, host: str) -> Builder:
    """A builder that runs a command; it ends as the command line's process would."""
    builder = _builder(world, name, host)

    def work() -> None:
        options = _options(command.views, command.extends, command.retry)
        table = _tables()[command.extends]
        job = jobs.Job(options, None, table, _QUIET, _manifest(), world.place.storage(), 1, "cpu")  # type: ignore[arg-type]
        try:
            jobs.fill(job, jobs.Progress())
            builder.ended = "well"
        except LogitstoreError as error:
            builder.ended = str(error)
        world.scheduler.log(f"{name} ends: {builder.ended}")

    world.scheduler.start(builder, name, work)
    return builder


def _finish(world: World, command: Command, name: str) -> None:
    """An undisturbed run; it must end well."""
    builder = _start(world, command, name, "last")
    calm, world.scheduler.calm = world.scheduler.calm, True
    world.scheduler.run()
    world.scheduler.calm = calm
    if builder.ended != "well":
        world.scheduler.fail(f"an undisturbed {name} ends with: {builder.ended}")


#: What is done to a store, in this order; each by several builders at once.
PHASES = (
    (Command(), False),
    (Command(views=3), False),
    (Command(views=3, retry=True), True),
    (Command(views=3, extends=True), True),
)


def run_seed(seed: int, place: type[Disk] | type[Bucket]) -> Scheduler:
    """One seed: phases of builders at once, disturbed, and an undisturbed run in the end.

    :raises Violation: something was that must never be.
    """
    scheduler = Scheduler(seed)
    world = World.now = World(scheduler)
    world.place = place(world)
    scheduler.on_step = getattr(world.place, "on_step", scheduler.on_step)
    try:
        _disturbed(world)
    except Violation as violation:
        violation.args = (f"seed {seed} on a {place.__name__.lower()}: {violation}",)
        raise
    finally:
        last[:] = [scheduler]
    return scheduler


last: list[Scheduler] = []


def _disturbed(world: World) -> None:
    scheduler, chance = world.scheduler, world.scheduler.random
    first = chance.randrange(len(PHASES))
    if first:
        world.place.fill(undisturbed(first))
        world.mended = any(mends for _, mends in PHASES[:first])
    chosen = PHASES[first : first + 1 + (chance.random() < 0.4)]
    _mend(world, chosen[0][1])
    number = 0

    def start(command: Command) -> None:
        nonlocal number
        for _ in range(chance.choice((1, 2, 2, 3))):
            number += 1
            _start(world, command, f"builder {number}", chance.choice(("one", "two")))

    def later() -> None:
        """The next command is run while builders of the one before may still be there."""
        if len(chosen) > 1:
            scheduler.wait(
                lambda: len([one for one in world.living.values() if one.alive]) == 1, LEASE * chance.random()
            )
            _mend(world, chosen[1][1])
            start(chosen[1][0])

    start(chosen[0][0])
    scheduler.start(_builder(world, "user", "user"), "user", later)
    scheduler.run()
    if chance.random() < 0.3:
        scheduler.log("the power fails")
        world.place.crash()
    if chance.random() < 0.5:
        start(chosen[-1][0])
        scheduler.run()
    world.place.settle()
    world.see_all()
    scheduler.now += 2 * 3600  # claims have expired, and other hosts' scratch is old
    _finish(world, chosen[-1][0], "last")
    world.see_all()
    if len(chosen) == 1:
        _compare(scheduler, world.place.objects(), undisturbed(first + 1))
    else:
        _possible(world, chosen[-1][0])


def _mend(world: World, mends: bool) -> None:
    if mends and not world.mended:
        world.place.settle()  # which takes seconds, and a person longer
        world.scheduler.log("the audio is mended")
        world.mended = True


def _compare(scheduler: Scheduler, found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Is a finished store the undisturbed one, byte for byte?"""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            scheduler.fail(f"the finished store lacks {name}")
        elif name not in expected:
            scheduler.fail(f"the finished store has {name} too much")
        elif found[name] != expected[name]:
            scheduler.fail(f"{name} of the finished store is not that of an undisturbed one")


def _possible(world: World, command: Command) -> None:
    """Where one command began before another had ended: is every block one that an undisturbed builder makes, every
    view there once, and nothing too much?"""
    found = dict(world.place.objects())
    expected = {
        name: content for name, content in found.items() if name.partition("/")[0] in ("zarr.json", parts.CLIPS)
    }
    if not expected.items() <= undisturbed(len(PHASES)).items():
        world.scheduler.fail("the manifest or the clip table of the finished store is not the undisturbed one")
    views: list[tuple[int, int]] = []
    for name, content in found.items():
        if name.startswith(f"{commits.FOLDER}/"):
            commit = commits.decode(content, name)
            views += [(commit.shard, view) for view in range(commit.view_start, commit.view_stop)]
            expected |= _block(commit.shard, commit.view_start, commit.view_stop, bool(commit.failed), commit.group)
            if commit.failed and command.retry:
                world.scheduler.fail(f"{name} of the finished store has a failed clip that can be decoded")
    shards = 3 if command.extends else 2
    if sorted(views) != [(shard, view) for shard in range(shards) for view in range(command.views)]:
        world.scheduler.fail(f"the finished store holds the views {sorted(views)}")
    _compare(world.scheduler, found, expected)


@functools.cache
def undisturbed(phases: int) -> dict[str, bytes]:
    """What the first commands make with nobody else and nothing wrong."""
    with _calm() as world:
        for command, mends in PHASES[:phases]:
            world.mended = world.mended or mends
            _finish(world, command, "undisturbed")
        return dict(world.place.objects())


@functools.cache
def _block(shard: int, view_start: int, view_stop: int, failed: bool, group: str) -> dict[str, bytes]:
    """A commit and its objects, as the writer writes them with nobody else and nothing wrong."""
    with _calm() as world:
        held = undisturbed(len(PHASES))
        world.place.fill({name: held[name] for name in held if name.partition("/")[0] in ("zarr.json", parts.CLIPS)})

        def write() -> None:
            target = world.place.storage()
            table = _parts(target, _manifest().shard_clips)
            own = writer.StoreWriter(target, _manifest(), held["zarr.json"], table, table)
            clips = own.clips_of(shard)
            content = _content(clips.start, len(clips), view_start, view_stop - view_start, failed)
            own.write_block(shard, view_start, view_stop, content, group)

        world.scheduler.start(_builder(world, "writer", "one"), "writer", write)
        world.scheduler.run()
        return {
            name: content
            for name, content in world.place.objects().items()
            if name.partition("/")[0] in ("blocks", commits.FOLDER)
        }


@contextlib.contextmanager
def _calm() -> Iterator[World]:
    """A world in which nothing goes wrong, instead of the one of now."""
    before = World.now
    world = World.now = World(Scheduler(0, calm=True))
    world.place = Bucket(world)
    try:
        yield world
    finally:
        World.now = before


PLACES = {"folder": Disk, "bucket": Bucket}


def main(arguments: list[str] | None = None) -> int:
    """Print what happens under a seed, or try many."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=main.__doc__)
    parser.add_argument("--seed", type=int, help="the seed to show, step by step")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to try")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--place", choices=PLACES, help="where the store lies (both)")
    given = parser.parse_args(arguments)
    places = [PLACES[given.place]] if given.place else list(PLACES.values())
    wrong = 0
    began = time.perf_counter()
    with simulated():
        for place in places:
            seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
            for seed in seeds:
                try:
                    run_seed(seed, place)
                except Violation as violation:
                    wrong += 1
                    print(violation)
                if given.seed is not None:
                    print("\n".join(last[0].trace))
    seconds = time.perf_counter() - began
    if given.seed is None:
        count = given.seeds * len(places)
        print(f"{count:,} seeds, {count / seconds:.0f} a second, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.modules["tests.faults.simulation"] = sys.modules["__main__"]
    sys.exit(main())
