"""A build on a Ray cluster: Ray Data schedules what the blocks are made of; this process gathers and commits them.

    shards ── tasks: decode and render (CPUs) ── a pool of actors: the teachers (GPUs, or CPUs) ── here: blocks, commits

A shard's views leave a task batch by batch, as a single process makes them, and what is kept of a batch is made beside
the teachers, so only a few bytes a view come back. They may come in any order. Ray starts tasks again whose node has
died, holds tasks back while what they made is not used up, and adds actors and nodes where there is work for them.
Only this process touches the store: the cluster needs the audio and the teachers, at the same places on every node.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache, partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from logitstore.audio.cache import AudioCache
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError, LogitstoreError, MissingExtraError, StoreError, UsageError
from logitstore.jobs.build.block import (
    BatchContent,
    BlockPlan,
    Gathering,
    batch_content,
    flat_draws,
    naming,
    said_by,
    view_batches,
)
from logitstore.jobs.options import BuildOptions
from logitstore.launched import own_cores, processes
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.commits import Commit
from logitstore.store.format.parts import Part
from logitstore.store.shards import missing_views
from logitstore.texts import one_line

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source
    from logitstore.jobs.build.relate import Relator
    from logitstore.store.format.basis import Basis
    from logitstore.store.format.manifest import Manifest
    from logitstore.store.writer import StoreWriter
    from teachers.ensemble import Ensemble

PARTNER_CACHE_BYTES = 1 << 30
_MOST_BLOCKS = 4096  # that a pipeline is given at a time
_WRITERS = 4
_PROCESS_BYTES = 400 << 20
_MOST_BATCHES = 8  # that a task holds, decoded clips and views
_QUIET_SECONDS = 120.0  # without a batch, before that is said
#: Nothing is sent to Ray's makers, and what its own processes log stays in their files.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",  # what Ray holds back of lines that are alike it would print at its end, from any thread
}
_RAYS_THREAD = "ray_listen_error_messages"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOST_SHOWN = 180  # characters of what Ray says
_LEAST_CORES = 2  # one that decodes, one for the teachers
_CONNECT_SECONDS = 10.0
_PROBED = 3  # clips of a shard of which one at least must open


def check_ray(options: BuildOptions) -> None:
    """Refuse what a build on Ray cannot do, and options of Ray without it.

    :raises UsageError: one of these. :raises MissingExtraError: Ray is not installed.
    """
    if options.engine != "ray":
        for flag, given in (("--ray-address", options.ray_address), ("--ray-actors", options.ray_actors)):
            if given is not None:
                raise UsageError(f"{flag} is of a build on Ray; give --engine ray too, or leave it out")
        return
    if processes() > 1:
        raise UsageError("--engine ray starts its own processes; start it without torchrun")
    if options.retry_failed:
        raise UsageError("--retry-failed is done by one process; leave --engine out for it")
    if options.device.startswith("cuda:"):
        raise UsageError(f"--device {options.device} names one GPU of many on a cluster; give cuda")
    if (options.ray_address or "").startswith("ray://"):
        raise UsageError(
            f"--ray-address {options.ray_address} is of Ray Client, which Ray Data does not work through; run the "
            "command on a node of the cluster, as `ray job submit` does"
        )
    actors_of(options)
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "ray", "--engine ray") from None
    _require_answer(_address(options))


def _address(options: BuildOptions) -> str:
    return options.ray_address or os.environ.get("RAY_ADDRESS") or "local"


def _require_answer(address: str) -> None:
    """Refuse a cluster that is not there, for which Ray itself would wait for minutes.

    :raises StoreError: nobody listens at HOST:PORT. :raises UsageError: the address is none.
    """
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(
            f"--ray-address {address!r} is no address of a Ray cluster; give HOST:PORT of its head, or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise StoreError(
            f"no Ray cluster at {address} ({error.strerror or error}); give HOST:PORT of its head, as `ray start "
            "--head` prints it, or leave --ray-address out for one on this machine"
        ) from None


def actors_of(options: BuildOptions) -> tuple[int, int | None]:
    """How many actors are asked for, at least and at most.

    :raises UsageError: no such range.
    """
    if options.ray_actors is None:
        return 1, None
    low, colon, high = options.ray_actors.partition(":")
    if not (low or "1").isdecimal() or not (high or "1").isdecimal() or not (low or high):
        raise UsageError(
            f"--ray-actors {options.ray_actors!r} is not of the form A:B, as in 1:8, 2: or 4 (just so many)"
        )
    least = int(low or 1)
    most = least if not colon else int(high) if high else None
    if least < 1 or (most is not None and most < least):
        raise UsageError(f"--ray-actors {options.ray_actors!r}: at least 1 is needed, and no less at most")
    return least, most


def on_cluster(options: BuildOptions) -> bool:
    """Whether the teachers run on GPUs of a cluster alone: this machine has none, and its own copy of them, with which
    the first batch is tried, is on the CPU."""
    if options.engine != "ray" or options.device != "cuda":
        return False
    import torch

    return not torch.cuda.is_available()


@dataclass(frozen=True)
class Setting:
    """What every process of a cluster has to know; it is sent to each node once.

    :param folder: that the command was started in. :param basis: of a store with clips' vectors.
    :param disk_bytes: that the folder of decoded audio may take, told once: half of the room that is left is less and
        less of it.
    """

    options: BuildOptions
    manifest: Manifest
    source: Source
    device: str
    basis: Basis | None
    folder: str
    threads: int
    disk_bytes: int | None

    @classmethod
    def of(
        cls,
        options: BuildOptions,
        manifest: Manifest,
        source: Source,
        device: str,
        relator: Relator | None,
        disk: AudioCache | None,
    ) -> Setting:
        """The setting of a build."""
        basis = None if relator is None else relator.basis
        threads, most = options.workers or 1, None if disk is None else disk.most_bytes
        return cls(options, manifest, source, device, basis, os.getcwd(), threads, most)  # noqa: PTH109

    def enter(self) -> None:
        """Go to the folder that the command was started in, for what it names is named from there.

        :raises UsageError: this node has none.
        """
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UsageError(
                f"node {socket.gethostname()} has no folder {self.folder}, which the command was started in "
                f"({error.strerror}); start it in one that all nodes have"
            ) from None

    def load(self) -> Ensemble:
        """The teachers.

        :raises UsageError: this node has others than the store was begun with.
        """
        from teachers.ensemble import load_ensemble, members_as_stored

        options, manifest = self.options, self.manifest
        ensemble = load_ensemble(
            options.teachers,
            [member.weight for member in manifest.teachers],
            manifest.average,
            manifest.classes,
            sample_rate=manifest.sample_rate,
            device=self.device,
            precision=options.precision,
            scale_weights=False,
        )
        if options.compile:
            ensemble.compile()
        found, _ = members_as_stored(ensemble, manifest.teachers)
        for here, stored in zip(found, manifest.teachers, strict=True):
            if here.digest != stored.digest:
                raise UsageError(
                    f"teacher {here.name} of node {socket.gethostname()} has the digest {here.digest[:12]}, and the "
                    f"store has {stored.digest[:12]}; see that all nodes have the same files"
                )
        return ensemble


def fill_on_ray(
    setting: Setting,
    writer: StoreWriter,
    audio: ClipAudio,
    views: int,
    waiting: set[int],
    claimer: claims.Claimer,
    check: Callable[[int], Sequence[Commit]],
    *,
    advance: Callable[[int], None],
    failures: Callable[[int], None],
    note: Callable[[str], None],
) -> int:
    """Make what some shards lack on a cluster: how many views were made. The shards that are whole leave ``waiting``.

    :param views: of every clip. :param check: what a shard has; refuses to go on beside blocks of it that were made of
        other audio.
    :raises AudioError, ModelOutputError: as of a single process. :raises StoreError: the cluster failed.
    """
    made = 0
    with _cluster(setting, note) as ray:
        while True:
            claimed = set(claims.claimed_shards(writer.storage))
            stored = commits.spans(writer.storage)
            plans: list[BlockPlan] = []
            for shard in sorted(waiting):
                missing = missing_views(stored.get(shard, ()), views)
                if not missing:
                    waiting.discard(shard)
                elif len(plans) < _MOST_BLOCKS and not (shard in claimed and _is_held(claimer, shard)):
                    plans += [BlockPlan(shard, writer.clips_of(shard), start, stop) for start, stop in missing]
            if not waiting:
                return made
            if not plans:
                note(f"waiting for {len(waiting)} shards that other builders have claimed{claimer.waits()}")
                time.sleep(claimer.idle_seconds())
                continue
            desk = _Desk(setting, writer, views, claimer, check, plans, advance, failures)
            with closing(_contents(ray, setting, writer, plans)) as contents, desk, _watching(note) as came:
                for place, content in contents:
                    came()
                    if isinstance(content, LogitstoreError):
                        with naming(audio, plans[place[0]], place[1]):
                            raise content
                    desk.take(place[0], content)
            made += desk.made


def _is_held(claimer: claims.Claimer, shard: int) -> bool:
    """Whether another builder holds a shard, by the claimer's own rules: a claim that nobody renews is over at last."""
    if not claimer.take(shard):
        return True
    claimer.drop(shard)
    return False


@dataclass
class _Desk:
    """Gathers the blocks of some plans and has each written as soon as it is whole, under the claim of its shard.

    A shard that another builder has claimed meanwhile is left to it. Once a shard is claimed, what it lacks is looked
    up again: plans that are not just that are left, for another builder has been there.
    """

    setting: Setting
    writer: StoreWriter
    views: int
    claimer: claims.Claimer
    check: Callable[[int], Sequence[Commit]]
    plans: Sequence[BlockPlan]
    advance: Callable[[int], None]
    failures: Callable[[int], None]
    made: int = 0
    _open: dict[int, Gathering] = field(default_factory=dict)
    _there: dict[int, int] = field(default_factory=dict)  # views of each that have come
    _left: set[int] = field(default_factory=set)  # plans of what another makes or has made
    _pending: dict[Future[Commit | None], int] = field(default_factory=dict)

    def __enter__(self) -> _Desk:
        self._of_shard: dict[int, set[int]] = {}
        for number, plan in enumerate(self.plans):
            self._of_shard.setdefault(plan.shard, set()).add(number)  # that are neither written nor left
        self._claimed: set[int] = set()
        self._pool = ThreadPoolExecutor(_WRITERS, "write")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._settle(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            for shard in sorted(self._claimed):
                self.claimer.drop(shard)

    def take(self, number: int, content: BatchContent) -> None:
        """A batch of a plan has come."""
        plan = self.plans[number]
        if number not in self._left and plan.shard not in self._claimed:
            self._claim(number)
        if number in self._left:
            return
        gathering = self._open.get(number)
        if gathering is None:
            gathering = self._open[number] = Gathering(self.setting.manifest, plan)
        gathering.put(content)
        self._there[number] = self._there.get(number, 0) + len(content)
        self.advance(len(content))
        if self._there[number] == len(plan.clips) * plan.views:
            self._settle(_WRITERS)
            self._pending[self._pool.submit(self._write, plan, self._open.pop(number))] = number

    def _claim(self, number: int) -> None:
        """Claim the shard of a plan, or leave the plan; leave what the shard does not lack any more, too."""
        shard = self.plans[number].shard
        if not self.claimer.take(shard):
            self._left.add(number)
            self._over(number)
            return
        self._claimed.add(shard)
        missing = missing_views(self.check(shard), self.views)
        for each in sorted(self._of_shard[shard]):
            if (self.plans[each].view_start, self.plans[each].view_stop) not in missing:
                self._left.add(each)
                self._over(each)

    def _over(self, number: int) -> None:
        """A plan is written or left; after the last one of its shard that goes by its claim is dropped."""
        shard = self.plans[number].shard
        self._of_shard[shard].discard(number)
        if not self._of_shard[shard] and shard in self._claimed:
            self._claimed.discard(shard)
            self.claimer.drop(shard)

    def _write(self, plan: BlockPlan, gathering: Gathering) -> Commit | None:
        name = commits.block_name(plan.shard, plan.view_start, plan.view_stop)
        return self.writer.write_block(
            plan.shard, plan.view_start, plan.view_stop, gathering.content(), f"blocks/{name}",
            keep=partial(self.claimer.keep, plan.shard),
        )  # fmt: skip

    def _settle(self, most: int) -> None:
        """Wait until at most so many blocks are being written, and count those that are."""
        while self._pending:
            done, _ = wait(self._pending, timeout=None if len(self._pending) > most else 0, return_when=FIRST_COMPLETED)
            if not done:
                return
            for future in done:
                number = self._pending.pop(future)
                written = future.result()
                if written is not None:  # else the claim was lost, and what is missing is made again
                    self.made += written.stored_views
                    self.failures(len(written.failed))
                self._over(number)


@contextmanager
def _cluster(setting: Setting, note: Callable[[str], None]) -> Iterator[Any]:
    """Ray, connected to the cluster that was asked for, or to one of this machine's own; left at the end.

    A program that is connected already stays so.
    """
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import ray
    from ray.exceptions import RayError

    options = setting.options
    address = _address(options)
    mine = not ray.is_initialized()
    if mine:
        own = {"num_cpus": max(_LEAST_CORES, own_cores()), "include_dashboard": False} if address == "local" else {}
        with _handlers_kept():
            try:
                ray.init(
                    address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own
                )
            except (ConnectionError, ValueError, RuntimeError, RayError, OSError) as error:
                raise StoreError(
                    f"Ray cannot be had at {address}: {_first(error)}; give --ray-address HOST:PORT of the head of a "
                    "cluster, or leave it out for one on this machine"
                ) from None
    try:
        there = ray.cluster_resources()
        cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        nodes = len([node for node in ray.nodes() if node["Alive"]])
        note(f"Ray {ray.__version__}, {address}: {nodes} node{'s' * (nodes != 1)}, {cores} CPUs, {gpus} GPUs")
        if setting.device == "cuda" and not gpus:
            note("the cluster has no GPU, and the teachers wait for a node that has one")
        elif setting.device == "cpu" and gpus:
            note("the teachers run on CPUs, and the cluster has GPUs; --device cuda runs them there")
        elif cores < _LEAST_CORES:
            note(f"the cluster has {cores} CPUs, and a build needs {_LEAST_CORES}; it waits for a node that has more")
        with redirect_stdout(cast(Any, _Listening(sys.stdout, note))):
            yield ray
    except RayError as error:
        raise StoreError(
            f"the Ray cluster failed ({_first(error)}); what was committed is whole, and the same command goes on "
            "from there"
        ) from error
    finally:
        if mine:
            with redirect_stdout(cast(Any, _Listening(sys.stdout, note))):
                ray.shutdown()


class _Listening:
    """Standard output, which Ray prints to when a node or a process is lost: that becomes a note, of one line."""

    def __init__(self, stream: TextIO, note: Callable[[str], None]) -> None:
        self._stream, self._note = stream, note

    def write(self, text: str) -> int:
        """Write text, whoever it is from."""
        if threading.current_thread().name != _RAYS_THREAD:
            return self._stream.write(text)
        lines = _COLOUR.sub("", text).replace("(raylet)", "").splitlines()
        if lines and lines[0].strip():
            self._note(one_line(f"Ray: {shorten(lines[0], _MOST_SHOWN, placeholder=' …')}"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _watching(note: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Says when nothing has come for long: Ray starts again what was lost, for as long as it takes."""
    over, last = threading.Event(), time.monotonic()

    def came() -> None:
        nonlocal last
        last = time.monotonic()

    def watch() -> None:
        said = 0.0
        while not over.wait(1.0):
            if last != said and time.monotonic() - last > _QUIET_SECONDS:
                said = last
                note(
                    f"nothing has come from the cluster for {_QUIET_SECONDS / 60:.0f} min; `ray status` shows what it "
                    "waits for, and the logs of its nodes what failed (/tmp/ray/session_latest/logs)"
                )

    watcher = threading.Thread(target=watch, name="watch", daemon=True)
    watcher.start()
    try:
        yield came
    finally:
        over.set()
        watcher.join()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray's own handler of SIGTERM would end this program at once, with claims held."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first(error: BaseException) -> str:
    """The line of an error that says most: the last of a traceback, the first of any other text."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return one_line(lines[-1 if lines[0].startswith("\x1b") or "Traceback" in str(error) else 0])[:300]


def _contents(
    ray: Any, setting: Setting, writer: StoreWriter, plans: Sequence[BlockPlan]
) -> Generator[tuple[tuple[int, int], Any], None, None]:
    """What the cluster makes of some plans: the number of a plan and the place of a batch in it, and what is kept of
    that batch, or the error that there was."""
    from ray.data import ActorPoolStrategy, from_items

    least, most = actors_of(setting.options)
    shared = ray.put(setting)
    items = [{"item": pickle.dumps((number, *_alone(writer, plan)))} for number, plan in enumerate(plans)]
    with _data_context():
        asked = (
            from_items(items, override_num_blocks=len(items))
            .map_batches(
                _rendered, batch_size=1, batch_format="numpy", fn_args=(shared,),
                num_cpus=setting.threads, memory=_rendering_bytes(setting),
            )
            .map_batches(
                _Teachers, batch_size=1, batch_format="numpy", fn_constructor_args=(shared,),
                compute=ActorPoolStrategy(min_size=least, max_size=most),
                num_gpus=1 if setting.device == "cuda" else None, num_cpus=None if setting.device == "cuda" else 1,
            )
        )  # fmt: skip
        for row in asked.iter_rows():
            yield pickle.loads(row["content"])


@contextmanager
def _data_context() -> Iterator[None]:
    """How data goes through the cluster: each batch goes on as soon as it is rendered, in any order, and Ray Data
    prints nothing itself."""
    from ray.data import DataContext

    context = DataContext.get_current()
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False, "target_max_block_size": 1}
    before = {name: getattr(context, name) for name in wanted}
    vars(context).update(wanted)
    try:
        yield
    finally:
        vars(context).update(before)


def _rendering_bytes(setting: Setting) -> int:
    """The memory of a task that renders, about; that it is stated keeps Ray Data from making one stage of two, too."""
    manifest = setting.manifest
    cache = PARTNER_CACHE_BYTES if manifest.recipe.has_mixup else 0
    return _PROCESS_BYTES + cache + _MOST_BATCHES * 4 * manifest.batch_size * manifest.clip_samples


def _alone(writer: StoreWriter, plan: BlockPlan) -> tuple[BlockPlan, pa.Table]:
    """A plan as of a store that holds its shard alone, and the shard's clips, copied: a slice is sent with all of its
    table."""
    part = writer.part_of(plan.shard)
    first = plan.clips.start - part.first_clip
    clips = part.table.select(["path", "start", "length", "rate"]).take(np.arange(first, first + len(plan.clips)))
    return replace(plan, clips=range(len(plan.clips))), clips.combine_chunks()


def _rendered(rows: dict[str, Any], shared: Any) -> Iterator[dict[str, Any]]:
    """A task: the views of one shard, a batch a row. An error is a row too."""
    import ray

    number, plan, table = pickle.loads(rows["item"][0])
    try:
        setting: Setting = ray.get(shared)
        setting.enter()
        manifest = setting.manifest
        memory = PARTNER_CACHE_BYTES if manifest.recipe.has_mixup else 0
        audio = ClipAudio(setting.source, table, manifest.sample_rate, memory, _disk(setting))
        _require_audio(audio, table)
        draws = flat_draws(manifest, Part("", "", table, 0, 0), plan)
        done = 0
        with ThreadPoolExecutor(setting.threads, "decode") as pool:
            made = view_batches(manifest, plan, audio, draws, pool, setting.options.strict)
            with closing(made) as batches:
                for batch, makers in batches:
                    fingerprints = [make() for make in makers]
                    rest = number, plan, done, replace(batch, waveforms=cast(Any, None)), fingerprints
                    yield {"waveforms": batch.waveforms.numpy()[None], "rest": _object(rest)}
                    done += len(batch.waveforms)
    except LogitstoreError as error:
        yield {"waveforms": np.zeros((1, 1, 1), np.float32), "rest": _object((number, _sent(error)))}


def _disk(setting: Setting) -> AudioCache | None:
    """The folder of decoded audio as this node has it: one for all tasks of a process.

    :raises UsageError: it cannot be used.
    """
    options = setting.options
    if options.audio_cache is None or setting.disk_bytes is None:
        return None
    return _opened(options.audio_cache, setting.disk_bytes, options.audio_cache_size is None)


@cache
def _opened(folder: str, most_bytes: int, leaves_room: bool) -> AudioCache:
    """A folder of decoded audio. :param leaves_room: to half of what this node's disk has left, where that is less."""
    disk = AudioCache(folder, None if leaves_room else most_bytes)
    disk.most_bytes = min(disk.most_bytes, most_bytes)
    return disk


class _Teachers:
    """An actor: the teachers, loaded once."""

    def __init__(self, shared: Any) -> None:
        import ray

        self.error: LogitstoreError | None = None
        try:
            self.setting: Setting = ray.get(shared)
            self.setting.enter()
            self.ensemble = self.setting.load()
            self.relations = self._relations()
        except LogitstoreError as error:
            self.error = _sent(error)

    def _relations(self) -> Callable[..., Any] | None:
        spec = self.setting.manifest.relations
        if spec is None:
            return None
        from logitstore.jobs.build.relate import Relator

        return Relator(spec, self.setting.basis, self.ensemble.device).codes

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """What is kept of what the teachers say of a batch."""
        import torch

        number, *rest = pickle.loads(rows["rest"][0])
        if self.error is not None or isinstance(rest[0], LogitstoreError):
            return {"content": _object(((number, 0), rest[0] if isinstance(rest[0], LogitstoreError) else self.error))}
        plan, done, batch, fingerprints = rest
        batch = replace(batch, waveforms=torch.from_numpy(rows["waveforms"][0].copy()))
        manifest = self.setting.manifest
        try:
            said = said_by(self.ensemble, manifest, self.relations, batch.waveforms, batch.masks, batch.readable)
            content: BatchContent | LogitstoreError = batch_content(manifest, plan, done, batch, fingerprints, said)
        except LogitstoreError as error:
            content = _sent(error)
        return {"content": _object(((number, done), content))}


def _sent(error: LogitstoreError) -> LogitstoreError:
    """An error that another process can be told of."""
    return UsageError(str(error)) if isinstance(error, MissingExtraError) else error


def _object(value: Any) -> Any:
    """A column of one value, for another process of the same cluster."""
    column = np.empty(1, dtype=object)
    column[0] = pickle.dumps(value)
    return column


def _require_audio(audio: ClipAudio, table: pa.Table) -> None:
    """Refuse to go on where this node has not the audio: files that could be opened when they were scanned. What opens
    and cannot be decoded is so on every node, and is recorded.

    :raises StoreError: none of a few of them can be opened.
    """
    known = np.flatnonzero(table["rate"].to_numpy() > 0)
    reasons = []
    for clip in known[np.unique(np.linspace(0, len(known) - 1, min(_PROBED, len(known))).astype(int))].tolist():
        try:
            audio.require(clip)
        except AudioError as error:
            reasons.append(f"{audio.place(clip)}: {error}")
            continue
        return
    if reasons:
        raise StoreError(
            f"node {socket.gethostname()} cannot read audio that was there when it was scanned ({reasons[0]}); see "
            "that all nodes have it at the same place"
        )
