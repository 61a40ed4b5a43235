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
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from logitstore.errors import LogitstoreError
from logitstore.jobs.build import job as jobs
from logitstore.jobs.build import line
from logitstore.jobs.options import BuildOptions, Extension
from logitstore.store import claims, cloud, storage, writer
from logitstore.store.format import commits, parts
from logitstore.store.format.layout import Targets
from logitstore.store.format.manifest import FORMAT_VERSION, Manifest, Member
from logitstore.store.writer import BlockContent
from logitstore.views.recipe import Draws, load_recipe
from tests.faults.places import Bucket, Disk, SimulatedFcntl, SimulatedOs, SimulatedPath
from tests.faults.scheduler import GUARDED, LEASE, ROOT, Builder, Scheduler, ViolationError, World

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


def _begun(manifest: Manifest, part: parts.Part, plan: Any, *_: object, **__: object) -> Any:
    return SimpleNamespace(manifest=manifest, part=part, plan=plan, close=lambda: None)


def _asked(begun: Any, *_: object, advance: Callable[[int], None], ending: Callable[[], None]) -> Any:
    content = _make_block(begun.manifest, begun.part, begun.plan)
    ending()  # the next block is claimed before this one is written
    return SimpleNamespace(content=lambda: content)


class _AtOnce(_Pool):
    """A pool of threads whose work is done when it is asked for."""

    def submit(self, act: Callable[..., Any], *values: Any) -> Any:
        found = act(*values)
        return SimpleNamespace(result=lambda: found)


_encoded: dict[Any, dict[str, bytes]] = {}
_encode_group = writer.encode_group
_tables_encoded: dict[int, bytes] = {}
_encode_clips = parts.encode_clips


def _group(arrays: Any, attributes: Any, packed: Any = None) -> dict[str, bytes]:
    parts = {f"{name}/{part}": array for name, held in (packed or {}).items() for part, array in held.items()}
    key = tuple((name, array.shape, array.tobytes()) for name, array in (arrays | parts).items())
    if key not in _encoded:
        _encoded[key] = _encode_group(arrays, attributes, packed)
    return _encoded[key]


@functools.lru_cache(maxsize=256)
def _parts_cache(contents: tuple[tuple[str, bytes], ...], shard_clips: int) -> tuple[parts.Part, ...]:
    held = dict(contents)
    return _read_parts(SimpleNamespace(names=lambda *_: iter(sorted(held)), get=held.__getitem__), shard_clips)  # type: ignore[arg-type]


_read_parts = parts.read_parts


def _parts(place: Any, shard_clips: int) -> tuple[parts.Part, ...]:
    names = [name for name in place.names(parts.CLIPS) if parts.part_number(name) is not None]
    return _parts_cache(tuple((name, place.get(name)) for name in names), shard_clips)


_plans: dict[Any, Any] = {}
_plan_extension = writer.plan_extension


def _plan(held: Any, table: pa.Table, location: str, skip_known: bool) -> Any:
    key = (tuple(part.digest for part in held), tuple(table["path"].to_pylist()), skip_known)
    if key not in _plans:
        _plans[key] = _plan_extension(held, table, location, skip_known)
    return _plans[key]


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
    """The commits of a store, uncached: Python 3.11 fills a cached property under a lock that all threads share."""

    def __init__(self, place: Any, _: Manifest, root_digest: str) -> None:
        self.place, self.root_digest = place, root_digest
        self.views = 0

    @property
    def commits(self) -> tuple[commits.Commit, ...]:
        found = commits.read_all(self.place, root_digest=self.root_digest, whole=True)
        self.views = max((commit.view_stop for commit in found), default=0)
        return found


_QUIET: Any = SimpleNamespace(notes=[], at_rates=None)  # an ensemble that has nothing to say


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
            "note": lambda message: None,
        },
        cloud: {
            "_pool": _Pool, "_check_process": lambda: None, "time": _Time, "note": lambda message: None,
            "random": SimpleNamespace(uniform=lambda low, high: World.now.scheduler.random.uniform(low, high)),
        },
        writer: {"encode_group": _group, "encode_clips": _clips, "read_parts": _parts, "plan_extension": _plan},
        jobs: {
            "try_out": lambda *_, **__: None, "Heard": lambda *_: SimpleNamespace(check=lambda commit: None),
            "time": _Time, "make_block": _make_block,
            "ClipAudio": lambda *_: None, "holds": lambda *_: True,
            "_decodes": lambda audio, clip: World.now.mended,
            "ThreadPoolExecutor": _AtOnce,
            "Piece": _Piece, "Pieces": lambda pieces: pieces[0],
        },
        line: {"Begun": _begun, "asked": _asked, "ThreadPoolExecutor": _AtOnce},
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

    :raises ViolationError: something was that must never be.
    """
    scheduler = Scheduler(seed)
    world = World.now = World(scheduler)
    world.place = place(world)
    scheduler.on_step = getattr(world.place, "on_step", scheduler.on_step)
    try:
        _disturbed(world)
    except ViolationError as violation:
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
                except ViolationError as violation:
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
    sys.exit(main())
