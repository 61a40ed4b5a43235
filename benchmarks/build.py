"""What a build costs beside its teachers, and whether that or its memory grows with the number of clips.

    python -m benchmarks.build                          # all of it, in some 30 minutes of two quiet cores
    python -m benchmarks.build --yamnet yamnet:FILE     # with YAMNet too, whose weights are not made here
    python -m benchmarks.build --quick                  # everything once, with next to no views
    python -m benchmarks.build --part whole --minutes 10 --only cnn4

``growth``: builds of more and more clips with a teacher that takes no time. Own cost is the time of a build, from the
scanned clips to the finished store, less the time inside the teachers; peak is the VmHWM of its process (Linux only).

``memory``: the bare forward of each net in a process that keeps the memory that a batch frees, as every process that
loads teachers for the CPU does, beside one that gives it back, as the system's allocator does unasked, in turns.

``whole``: the command ``logitstore build``, a process from its start to its end (interpreter, imports, scan, the first
batch, what survives the recipe, the last commit), beside the bare forward of the same ensemble on ready-made batches of
the same clips, in a process of its own. The two take turns, one stopped while the other runs, from before the build's
start to after its end, so that a machine that gets slower or faster does so for both; time is what each ran. ``share``
is the rate of the whole process over the bare rate; ``inside`` the same of what lies between the first file of the
store and the last; ``processor`` of the seconds that processors worked. What the time went into, as
``logitstore build --json`` says it, and how busy the cores were, is printed before the table.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.query import peak_megabytes
from benchmarks.tables import table
from logitstore.models.registry import build as build_model
from logitstore.training.runs import save_run

RATE, CLASSES, K = 16_000, 527, 20
DISTINCT = 64  # files
VIEWS, BATCH = 10, 32
READY = 8  # batches that the bare forward is asked about, in turn
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BUILD_TURN, BARE_TURN = 3.0, 2.0  # seconds that the build and the bare forward run
TURNS = 15  # of the bare forward with its memory kept, and without
_OTHER_SECONDS = 10.0  # of a case: a process begins, and audio is written


class Instant(torch.nn.Module):
    """A teacher that takes no time: a row of made-up probabilities for each view."""

    classes = tuple(f"class {number}" for number in range(CLASSES))
    sample_rate = RATE
    scores = "sigmoid"

    def __init__(self) -> None:
        super().__init__()
        self.said = torch.nn.Parameter(torch.rand(4096, CLASSES, generator=torch.Generator().manual_seed(0)) ** 8)

    def forward(self, waveforms: torch.Tensor, masks: Any = None) -> torch.Tensor:
        """Probabilities (B, C)."""
        return self.said[: len(waveforms)]


def instant() -> torch.nn.Module:
    """The factory of ``python:benchmarks.build:instant``."""
    return Instant()


def write_audio(folder: Path, clips: int, seconds: float, kind: str = "pcm") -> None:
    """Files of noise: 64 distinct ones, and hard links to them.

    :param kind: "pcm" for 16-bit WAV files of 16 kHz, "ogg" for Ogg Vorbis of 44.1 kHz.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    ending, rate = ("wav", RATE) if kind == "pcm" else ("ogg", 44_100)
    for number in range(clips):
        target = folder / f"{number:06d}.{ending}"
        if number < DISTINCT:
            wave = (0.1 * random.standard_normal(int(rate * seconds))).astype(np.float32)
            soundfile.write(target, wave, rate, subtype="PCM_16" if kind == "pcm" else "VORBIS")
        else:
            os.link(folder / f"{number % DISTINCT:06d}.{ending}", target)


def own_cost(root: Path, seconds: float, views: int, batch_size: int) -> dict[str, float]:
    """One build of ``root/audio`` in this process by a teacher that takes no time: seconds of its start, in which the
    files' headers are read, and then views, seconds, seconds inside the ensemble, peak MB."""
    from logitstore.jobs.build import job

    options = _options(root / "audio", root / f"store-{os.getpid()}", ["python:benchmarks.build:instant"], views,
                       seconds, batch_size)  # fmt: skip
    started = time.perf_counter()
    prepared = job.prepare(options)
    start = time.perf_counter() - started
    inside, answer = 0.0, prepared.ask

    def ask(*given: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        said = answer(*given)
        inside += time.perf_counter() - started
        return said

    prepared.ask = ask  # type: ignore[method-assign, assignment]
    started = time.perf_counter()
    summary = job.run(prepared, job.Progress())
    took = time.perf_counter() - started
    return {"start": start, "views": summary.made_views, "seconds": took, "inside": inside, "peak": peak_megabytes()}


def _options(source: Path, out: Path, teachers: list[str], views: int, seconds: float, batch_size: int) -> Any:
    from logitstore.jobs.options import BuildOptions

    return BuildOptions(
        source=str(source), out=str(out), teachers=teachers, views=views, topk=K, clip_seconds=max(2.0, seconds),
        batch_size=batch_size, device="cpu",
    )  # fmt: skip


def bare(source: Path, specs: list[str], seconds: float, batch_size: int, keeps: bool) -> None:
    """The forward of an ensemble on ready-made batches, in this process: for each line of the standard input, as many
    seconds of it as the line says, and a line of JSON with views, seconds, seconds of a processor, those of them that
    it spent in the system, and the process's peak in MB.

    :param keeps: whether the process keeps the memory that a batch frees.
    """
    from concurrent.futures import ThreadPoolExecutor
    from unittest.mock import patch

    from logitstore.audio.clips import ClipAudio
    from logitstore.jobs.build import block, job
    from logitstore.store.format.parts import Part

    with nullcontext() if keeps else patch("teachers.ensemble.keep_freed_memory"):
        prepared = job.prepare(_options(source, source.parent / "none", specs, VIEWS, seconds, batch_size))
    manifest, table = prepared.manifest, prepared.clip_table
    plan = block.BlockPlan(0, range(min(table.num_rows, manifest.shard_clips)), 0, VIEWS)
    audio = ClipAudio(prepared.source, table, manifest.sample_rate)
    ready: list[tuple[Any, ...]] = []
    with ThreadPoolExecutor(1) as pool:
        draws = block.flat_draws(manifest, Part("", "", table, 0, 0), plan)
        for batch, _ in block.view_batches(manifest, plan, audio, draws, pool, True):
            ready.append((batch.waveforms, batch.masks, prepared.ensemble.at_rates(batch.waveforms)))
            if len(ready) == READY:
                break

    number = 0

    def ask() -> int:
        nonlocal number
        waveforms, masks, by_rate = ready[number % len(ready)]
        prepared.ensemble.outputs(waveforms, masks, features=False, by_rate=by_rate)
        number += 1
        return len(waveforms)

    ask()
    print("{}", flush=True)
    for line in sys.stdin:
        views, began, before = 0, time.perf_counter(), os.times()
        while not views or time.perf_counter() - began < float(line):
            views += ask()
        took, after = time.perf_counter() - began, os.times()
        system = after.system - before.system
        busy = after.user - before.user + system
        turn = {"views": views, "seconds": took, "busy": busy, "system": system, "peak": peak_megabytes()}
        print(json.dumps(turn), flush=True)


class Bare:
    """The bare forward in a process of its own, which runs when it is asked to: ``turns``, what each turn came to.

    A context manager, which ends the process.

    :param keeps: whether the process keeps the memory that a batch frees.
    """

    def __init__(
        self, source: Path, seconds: float, teachers: list[str], keeps: bool = True, batch_size: int = BATCH
    ) -> None:
        command = [sys.executable, "-m", "benchmarks.build", "--bare", str(source), str(seconds), *teachers]
        command += ["--batch-size", str(batch_size)]
        command += [] if keeps else ["--gives-back"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._said()
        self.turns: list[dict[str, float]] = []

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _said(self) -> dict[str, float]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        raise SystemExit("the bare forward failed")

    def run(self, seconds: float) -> None:
        """A turn of so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self.turns.append(self._said())

    def total(self, what: str) -> float:
        """Of all turns, views, seconds, busy seconds, or those in the system."""
        return sum(turn[what] for turn in self.turns)

    @property
    def rates(self) -> list[float]:
        """Views a second of each turn."""
        return [turn["views"] / turn["seconds"] for turn in self.turns]


def _run(*given: str) -> dict[str, Any]:
    """What a process of this benchmark prints last."""
    command = [sys.executable, "-m", "benchmarks.build", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(scratch: Path, quick: bool) -> None:
    """Print what builds of more clips cost."""
    rows = []
    for clips, seconds, views in ((60, 0.5, 2),) if quick else ((1000, 0.5, 4), (10_000, 0.5, 4), (960, 10.0, 10)):
        folder = scratch / f"{clips}-{seconds:g}"
        folder.mkdir()
        write_audio(folder / "audio", clips, seconds)
        found = [_run("--own", str(folder), str(seconds), str(views)) for _ in range(1 if quick else 2)]
        run = min(found, key=lambda each: each["seconds"])
        own, rate = 1e6 * (run["seconds"] - run["inside"]) / run["views"], run["views"] / run["seconds"]
        name = f"{clips:,} clips x {views} views of {max(2.0, seconds):g} s"
        rows.append([name, f"{run['start']:.1f}", f"{rate:,.0f}", f"{own:,.0f}", f"{run['peak']:,.0f}"])
    print("A teacher that takes no time\n")
    print(table(["build", "scan, s", "views/s", "own cost, us a view", "peak MB"], rows), flush=True)


def make_teachers(folder: Path, yamnet: str | None) -> dict[str, list[str]]:
    """Specs of ensembles by their names: nets with random weights, and YAMNet where it is given."""
    specs: dict[str, list[str]] = {}
    for name in ("cnn4", "ced-tiny"):
        for seed in range(2):
            torch.manual_seed(seed)
            place = folder / f"{name}-{seed}"
            save_run(place, name, {}, Instant.classes, "sigmoid", RATE, build_model(name, CLASSES))
            specs.setdefault(name, []).append(str(place))
    ensembles = {"cnn4": specs["cnn4"][:1], "2 cnn4": specs["cnn4"]}
    ensembles |= {"ced-tiny": specs["ced-tiny"][:1], "2 ced-tiny": specs["ced-tiny"]}
    return ensembles | ({} if yamnet is None else {"YAMNet": [yamnet]})


def memory(scratch: Path, given: argparse.Namespace) -> None:
    """Print what it brings each net that freed memory is kept."""
    seconds, turn = (1.0, 0.2) if given.quick else (10.0, BARE_TURN)
    source = scratch / "memory"
    write_audio(source, DISTINCT, seconds)
    rows = []
    for name, specs in make_teachers(scratch, given.yamnet).items():
        if len(specs) > 1 or (given.only is not None and name not in given.only):
            continue
        batch = given.batch_size
        with Bare(source, seconds, specs, True, batch) as kept, Bare(source, seconds, specs, False, batch) as back:
            for _ in range(1 if given.quick else TURNS):
                kept.run(turn)
                back.run(turn)
        rates = [each.total("views") / each.total("seconds") for each in (back, kept)]
        system = [f"{100 * each.total('system') / each.total('busy'):.0f} %" for each in (back, kept)]
        peaks = [f"{each.turns[-1]['peak']:,.0f}" for each in (back, kept)]
        row = [value for both in zip((f"{rate:,.1f}" for rate in rates), system, peaks, strict=True) for value in both]
        rows.append([name, *row, f"{rates[1] / rates[0]:.2f}"])
        if given.quick:
            break
    print(f"The bare forward, clips of {seconds:g} s, batches of {given.batch_size}, {CORES} cores\n")
    header = ["given back: views/s", "in the system", "peak MB", "kept: views/s", "in the system", "peak MB", "times"]
    print(table(["teacher", *header], rows), flush=True)


def whole(scratch: Path, given: argparse.Namespace) -> None:
    """Print where the time went for each ensemble and kind of audio, and a table of all."""
    ensembles = make_teachers(scratch, given.yamnet)
    if given.yamnet is None:
        print("YAMNet is left out: give --yamnet yamnet:FILE\n")
    cases = [(name, kind) for name in ensembles for kind in ("pcm", "ogg") if kind == "pcm" or name[0] != "2"]
    cases = [each for each in cases if given.only is None or each[0] in given.only]
    cases = [each for each in cases if given.audio in (None, each[1])]
    cases = cases[:1] if given.quick else cases
    seconds = 1.0 if given.quick else 10.0
    a_case = 60.0 * given.minutes / len(cases) - _OTHER_SECONDS
    build_seconds = max(5.0, a_case * BUILD_TURN / (BUILD_TURN + BARE_TURN))
    turn = 0.2 if given.quick else BARE_TURN
    rows: list[list[str]] = []
    for name, kind in cases:
        few = scratch / f"{kind}-few"
        if not few.exists():
            write_audio(few, DISTINCT, seconds, kind)
        with Bare(few, seconds, ensembles[name]) as forward:
            forward.run(turn)
            clips = 4 if given.quick else max(DISTINCT, math.ceil(forward.rates[0] * build_seconds / VIEWS))
            folder = scratch / f"{kind}-{clips}"
            if not folder.exists():
                write_audio(folder, clips, seconds, kind)
            store = scratch / f"store-{len(rows)}"
            run = timed_build(folder, store, ensembles[name], seconds, forward, (BUILD_TURN, turn))
            forward.run(turn)
        shutil.rmtree(store)
        views, limit, rate = run["views_made"], run["limit"], forward.total("views") / forward.total("seconds")
        busy = forward.total("busy") / forward.total("views")
        rows.append([
            name, {"pcm": "16-bit PCM", "ogg": "Ogg, 44.1 kHz"}[kind], f"{views:,}", f"{run['wall']:.1f}",
            f"{views / run['wall']:,.1f}", f"{rate:,.1f}", f"{views / run['wall'] / rate:.3f}",
            f"{views / run['inside'] / rate:.3f}", f"{busy * views / run['busy']:.3f}",
        ])  # fmt: skip
        shares = {part: share * run["inside"] / run["wall"] for part, share in limit["shares"].items()}
        shares["start and end"] = 1 - run["inside"] / run["wall"]
        beside = {part: 1e3 * spent * run["ran"] / views for part, spent in limit["stages"].items()}
        print(
            f"{name}, {kind}: {', '.join(f'{part} {100 * share:.1f} %' for part, share in shares.items())}; beside it, "
            f"ms a view, {', '.join(f'{part} {spent:.2f}' for part, spent in beside.items())}; "
            f"cores busy {100 * run['busy'] / run['wall'] / CORES:.0f} %; "
            f"{len(forward.rates)} turns of the bare forward, {min(forward.rates):,.1f} to {max(forward.rates):,.1f}",
            flush=True,
        )
    print(f"\nWhole processes, clips of {seconds:g} s x {VIEWS} views, recipe ced, {CORES} cores\n")
    header = ["audio", "views", "s", "views/s", "bare forward, views/s", "share", "inside", "processor"]
    print(table(["teachers", *header], rows))


def timed_build(
    source: Path, store: Path, teachers: list[str], seconds: float, forward: Bare, turns: tuple[float, float]
) -> dict[str, Any]:
    """What ``logitstore build`` says with ``--json`` when it takes turns with the bare forward, with the seconds that
    it ran: ``wall``, all; ``inside``, from the store's first file to its last; ``busy``, its processors'; and the share
    of the time between these files that it ran, ``ran``.

    :param turns: seconds of the build and of the bare forward.
    """
    command = [sys.executable, "-m", "logitstore", "build", str(source), "--out", str(store), "--json"]
    command += [word for teacher in teachers for word in ("--teacher", teacher)]
    command += ["--views", str(VIEWS), "--topk", str(K), "--clip-seconds", f"{max(2.0, seconds):g}"]
    command += ["--batch-size", str(BATCH), "--device", "cpu", "--recipe", "ced"]
    before, began, stops = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), []
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=said, stderr=told, start_new_session=True)
        try:
            while True:
                try:
                    process.wait(turns[0])
                    break
                except subprocess.TimeoutExpired:
                    since = time.time()
                    os.killpg(process.pid, signal.SIGSTOP)
                    forward.run(turns[1])
                    os.killpg(process.pid, signal.SIGCONT)
                    stops.append((since, time.time()))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        ended, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        said.seek(0), told.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{told.read()}")
        found: dict[str, Any] = json.loads(said.read())
    written = [path.stat().st_mtime for path in store.rglob("*") if path.is_file()]
    first, last = min(written), max(written)
    inside = last - first - _within(stops, first, last)
    return found | {
        "wall": ended - began - _within(stops, began, ended), "inside": inside, "ran": inside / (last - first),
        "busy": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }  # fmt: skip


def _within(stops: list[tuple[float, float]], first: float, last: float) -> float:
    """Seconds of stops that lie between two times."""
    return sum(max(0.0, min(until, last) - max(since, first)) for since, until in stops)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("growth", "memory", "whole"), help="do one part alone")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long the whole processes take, about")
    parser.add_argument("--only", nargs="*", help="these ensembles alone, as cnn4 '2 cnn4'")
    parser.add_argument("--audio", choices=("pcm", "ogg"), help="of this kind alone")
    parser.add_argument("--yamnet", help="the spec of YAMNet")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="views of a batch of the part memory")
    parser.add_argument("--quick", action="store_true", help="one case of each, next to no views")
    parser.add_argument("--own", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--gives-back", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.own:
        root, seconds, views = given.own
        print(json.dumps(own_cost(Path(root), float(seconds), int(views), BATCH)))
        return
    if given.bare:
        source, seconds, *teachers = given.bare
        bare(Path(source), teachers, float(seconds), given.batch_size, keeps=not given.gives_back)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.part in (None, "growth"):
            growth(Path(folder), given.quick)
        if given.part in (None, "memory"):
            memory(Path(folder), given)
        if given.part in (None, "whole"):
            whole(Path(folder), given)


if __name__ == "__main__":
    main()
