"""What matters in distillation from a store: six experiments, each arm against another that differs in one thing.

    python -m benchmarks.ablation --esc10 DIR --out OUT              # everything; the tables at the end
    python -m benchmarks.ablation --esc10 DIR --out OUT --quick      # minutes: small pools, 52 steps, two seeds
    python -m benchmarks.ablation --data MANIFEST --audio-root DIR --label-column label --fold-column fold --out OUT
    python -m benchmarks.ablation --out OUT --report                 # the tables of the runs that are there
    python -m benchmarks.ablation --plan                             # how many runs, and about how long

ESC-10 (``--esc10``: a folder with labels.csv and audio/) becomes two data sets, *scenes* and *sequences*; see
``benchmarks/scenes.py``. Any labelled data goes by ``--data``: a manifest with a column of labels, and one of folds,
or folds by a hash of the path. A fold is held out whole; teachers, stores and students learn from the others
(``benchmarks/folds.py``), and everything is measured on the clips of the held-out fold as they are. Three folds are
held out, with five seeds each. Arms of one (fold, seed, student) share initialisation, order, dropout and steps
(``benchmarks/cached.py``); the arms and experiments stand in ``benchmarks/arms.py``. A difference is the mean over the
15 pairs (fold, seed) with Student's 95 % t-interval. The pairs of one fold share teachers and test clips, so the
intervals speak for other seeds more than for other data; the differences of each fold stand beside them.

Weights of the similarity losses are tuned first: students of width 4 learn from the pool without the last fold, which
is never held out, and are measured on that; the weight with the highest micro AUPRC, averaged over the held-out folds,
is used for all students of the data set.

Costs: 1,110 runs of 520 steps of 32 with one thread, 4.5 to 7 s each, 13 tuning runs a fold, two teachers and four
stores a fold: ``--plan`` adds them up, to about an hour and a quarter with ``--workers 2`` on two cores. Every finished
run is a line of ``OUT/runs.jsonl``: run the same command again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import logitstore
import students
import teachers
from benchmarks import scenes
from benchmarks.ablation_tables import report
from benchmarks.arms import ARMS, EXPERIMENTS, REFERENCE, TUNED_WIDTH, WEIGHTS, Experiment
from benchmarks.cached import score, train
from benchmarks.folds import Data, Fold, prepare
from benchmarks.own_data import own_data
from logitstore.errors import LogitstoreError, RunError
from logitstore.models.machine import keep_freed_memory, versions

RUNS, SETTINGS = "runs.jsonl", "settings.json"
MAIN_WIDTHS = {"scenes": 8, "sequences": 4}

#: Experiments that are run together, with one seed after another, so that an interruption leaves rows of nearly one
#: length; those of the second need the tuned weights.
PHASES = ((1, 2), (4,), (3, 5, 6))

#: For the plan: ms of a step by width, of a step of a teacher, and of a stored view, measured on two cores.
STEP_MS, TEACHER_MS, VIEW_MS = {2: 8.5, 4: 9.5, 8: 12.5}, 38, 3


@dataclass(frozen=True)
class Sizes:
    """How much of everything: scenes a fold in the pool and to test on, stored views, steps, seeds, held-out folds."""

    pool: int = 100
    test: int = 500
    views: int = 40
    steps: int = 520
    teacher_steps: int = 900
    seeds: int = 5
    folds: int = 3
    tuning_seeds: int = 1


QUICK = Sizes(pool=24, test=100, views=4, steps=52, teacher_steps=100, seeds=2, folds=1, tuning_seeds=1)


@dataclass(frozen=True)
class Job:
    """One student; ``stage`` is "run", or "tuning" for those that are measured on the validation split."""

    stage: str
    data: str
    fold: str
    arm: str
    width: int
    seed: int
    weight: float | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What a finished run is known by; the weight of a run is the tuned one, and no part of it."""
        return (self.stage, self.data, self.fold, self.arm, self.width, self.seed,
                self.weight if self.stage == "tuning" else None)  # fmt: skip


class Ablation:
    """Everything under one folder."""

    def __init__(self, out: Path, sizes: Sizes, data: list[Data], workers: int) -> None:
        self.out, self.sizes, self.data, self.workers = out, sizes, data, workers
        for each in data:
            if len(each.folds) <= sizes.folds:
                raise RunError(
                    f"{each.name} has {len(each.folds)} folds; {sizes.folds} are held out and one more is needed to "
                    f"tune on, so give --folds {len(each.folds) - 1} or fewer"
                )
        self._begin()

    def run(self) -> None:
        """Prepare, train and measure whatever is not there yet."""
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, context, initializer=_begin_worker)
        try:
            made = {(line["data"], line["fold"]) for line in read_lines(self.out) if line["stage"] == "prepare"}
            tasks = [
                (data, fold, self._folder(data.name, fold), self.sizes)
                for data in self.data
                for fold in self.held_out(data)
                if (data.name, fold) not in made
            ]
            self._each(pool, _prepare, tasks, "prepared")
            for seed in range(self.sizes.seeds):
                for numbers in PHASES:
                    experiments = [each for each in EXPERIMENTS if each.number in numbers]
                    if any(each.metric == "micro" for each in experiments):
                        self._train(pool, self._tuning_jobs())
                    self._train(pool, self.jobs(experiments, seed))
        finally:
            pool.shutdown(cancel_futures=True)

    def held_out(self, data: Data) -> tuple[str, ...]:
        """The folds of a data set that are tested on."""
        return data.folds[: self.sizes.folds]

    def jobs(self, experiments: Sequence[Experiment], seed: int) -> Iterator[Job]:
        """The runs of some experiments with a seed; one that belongs to several comes up several times."""
        for data in self.data:
            weights = self._tuned(data.name)
            for fold in self.held_out(data):
                for width, arm, _ in chain.from_iterable(each.cells(data.main_width) for each in experiments):
                    if (ARMS[arm].views or 0) < self.sizes.views:
                        similarity = ARMS[arm].similarity
                        weight = None if similarity is None else weights[similarity]
                        yield Job("run", data.name, fold, arm, width, seed, weight)

    def _tuning_jobs(self) -> Iterator[Job]:
        names = {arm.similarity: name for name, arm in ARMS.items() if arm.similarity is not None}
        for data in self.data:
            for seed in range(self.sizes.tuning_seeds):
                for fold in self.held_out(data):
                    yield Job("tuning", data.name, fold, REFERENCE, TUNED_WIDTH, seed)
                    for similarity, weights in WEIGHTS.items():
                        for weight in weights:
                            yield Job("tuning", data.name, fold, names[similarity], TUNED_WIDTH, seed, weight)

    def _tuned(self, data: str) -> dict[str, float]:
        found: dict[str, dict[float, list[float]]] = {}
        for line in read_lines(self.out):
            if line["stage"] == "tuning" and line["data"] == data and line["weight"] is not None:
                by_weight = found.setdefault(ARMS[line["arm"]].similarity or "", {})
                by_weight.setdefault(line["weight"], []).append(line["micro"])
        return {
            name: max(by_weight, key=lambda weight, of=by_weight: float(np.mean(of[weight])))  # type: ignore[misc]
            for name, by_weight in found.items()
        }

    def _train(self, pool: Executor, jobs: Iterable[Job]) -> None:
        done = {_key(line) for line in read_lines(self.out)}
        waiting = {job.key: job for job in jobs if job.key not in done}
        by_name = {data.name: data for data in self.data}
        tasks = [
            (job, self._folder(job.data, job.fold), by_name[job.data].folds[-1], self.sizes.steps)
            for job in waiting.values()
        ]
        self._each(pool, _run, tasks, "trained")

    def _each(self, pool: Executor, work: Callable[[Any], dict[str, Any]], tasks: Sequence[Any], what: str) -> None:
        """Do some tasks; what comes of each is a line, written when it is done."""
        began = time.monotonic()
        with (self.out / RUNS).open("a", encoding="utf-8") as lines:
            for count, future in enumerate(as_completed([pool.submit(work, task) for task in tasks]), start=1):
                lines.write(json.dumps(future.result()) + "\n")
                lines.flush()
                left = (time.monotonic() - began) / count * (len(tasks) - count)
                print(f"{what} {count} of {len(tasks)}, {left / 60:.0f} min left", file=sys.stderr, flush=True)

    def _folder(self, data: str, fold: str) -> Path:
        return self.out / data / f"fold-{fold}"

    def _begin(self) -> None:
        """Refuse a folder of other sizes, data or code: runs of the two could not be compared."""
        self.out.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps({
            "sizes": asdict(self.sizes), "data": [asdict(data) for data in self.data], "code": code_digest(),
            "versions": versions(),
        }))  # fmt: skip
        path = self.out / SETTINGS
        if path.is_file():
            there = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in settings if there.get(name) != settings[name]]
            if changed:
                raise RunError(f"{self.out} holds an ablation of other {' and '.join(changed)}; give another --out")
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        runs = self.out / RUNS
        if runs.is_file():  # what an interruption cut off
            content = runs.read_bytes()
            runs.write_bytes(content[: content.rfind(b"\n") + 1])


def read_lines(out: Path) -> list[dict[str, Any]]:
    """The finished runs under a folder; a line that an interruption cut off is none."""
    path = out / RUNS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def code_digest() -> str:
    """BLAKE2b-64 of everything that a run's result depends on: this benchmark, students, teachers and the store."""
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("ablation", "arms", "cached", "folds", "own_data", "scenes")]
    for package in (logitstore, students, teachers):
        files += sorted(Path(package.__path__[0]).rglob("*.py"))
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    if line["stage"] == "prepare":
        return ("prepare", line["data"], line["fold"])
    return Job(*(line[name] for name in ("stage", "data", "fold", "arm", "width", "seed", "weight"))).key


def _begin_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _prepare(task: tuple[Data, str, Path, Sizes]) -> dict[str, Any]:
    data, held_out, folder, sizes = task
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(data, held_out, folder, views=sizes.views, steps=sizes.steps, teacher_steps=sizes.teacher_steps)
    fold = Fold(folder)
    return {
        "stage": "prepare", "data": data.name, "fold": held_out, "seconds": round(time.monotonic() - began, 1),
        "pool": len(fold.labels), "test": len(fold.test_labels), "classes": len(fold.classes),
        "teachers": fold.teachers_map(), "store": {name: fold.bytes_a_view(name) for name in ("masks", "strong")},
    }  # fmt: skip


@functools.lru_cache(maxsize=8)
def _fold(folder: Path) -> Fold:
    return Fold(folder)


def _run(task: tuple[Job, Path, str, int]) -> dict[str, Any]:
    job, folder, validation, steps = task
    began = time.monotonic()
    fold = _fold(folder)
    arm = replace(ARMS[job.arm], weight=job.weight)
    if job.stage == "tuning":
        inside = fold.of_fold(validation)
        model = train(fold, arm, job.width, job.seed, steps, rows=fold.clips[~inside])
        measured = score(
            model, fold.array("still")[inside], fold.labels[inside] > 0, np.arange(np.count_nonzero(inside))
        )
    else:
        model = train(fold, arm, job.width, job.seed, steps)
        measured = score(model, fold.array("test"), fold.test_labels, fold.test_row_of)
    return asdict(job) | measured | {"seconds": round(time.monotonic() - began, 2)}


def plan(sizes: Sizes, names: Iterable[str]) -> str:
    """How many runs there are, and seconds of one core that they take."""
    lines: list[str] = []
    seen: set[tuple[str, int, str]] = set()
    total = 0.0
    for name in names:
        stores = 3 * sizes.views * 4 * sizes.pool * VIEW_MS / 1000
        seconds = sizes.folds * (2 * sizes.teacher_steps * TEACHER_MS / 1000 + stores)
        lines.append(f"{name}: {sizes.folds} folds to prepare, {seconds:,.0f} s")
        total += seconds
        for experiment in EXPERIMENTS:
            cells = {
                (width, arm) for width, arm, _ in experiment.cells(MAIN_WIDTHS.get(name, 8))
                if (ARMS[arm].views or 0) < sizes.views
            } - {cell[1:] for cell in seen if cell[0] == name}  # fmt: skip
            runs = len(cells) * sizes.folds * sizes.seeds
            seconds = sum(STEP_MS[width] for width, _ in cells) * sizes.folds * sizes.seeds * sizes.steps / 1000
            tuning = 0
            if experiment.metric == "micro":
                tuning = (1 + sum(map(len, WEIGHTS.values()))) * sizes.folds * sizes.tuning_seeds
                seconds += tuning * STEP_MS[TUNED_WIDTH] * sizes.steps / 1000
            seen |= {(name, *cell) for cell in cells}
            also = f", {tuning} to tune" if tuning else ""
            lines.append(f"{name}: experiment {experiment.number}, {runs} runs more{also}, {seconds:,.0f} s")
            total += seconds
    return "\n".join([*lines, f"in all {total:,.0f} s of one core"])


def esc10_data(folder: Path, out: Path, sizes: Sizes) -> list[Data]:
    """Scenes and sequences, written where they are not there."""
    folds = tuple(sorted(scenes.Clips(folder).by_fold))
    found = []
    for kind in scenes.KINDS:
        counts = {
            fold: max(sizes.test, sizes.pool) if at < sizes.folds else sizes.pool for at, fold in enumerate(folds)
        }
        manifest = scenes.write(kind, folder, out / kind, counts)
        audio = str(out / kind / "audio")
        found.append(Data(kind, str(manifest), audio, folds, scenes.SECONDS, MAIN_WIDTHS[kind], sizes.pool))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10: labels.csv (path, label, fold) and audio/")
    parser.add_argument("--data", help="another labelled data set: a manifest")
    parser.add_argument("--audio-root", help="folder that its paths are relative to")
    parser.add_argument("--label-column", default="label", help="its column of labels, several separated by ;")
    parser.add_argument("--fold-column", help="its column of folds; without it folds are made by a hash of the path")
    parser.add_argument("--clip-seconds", type=float, default=5.0, help="length of its clips")
    parser.add_argument("--out", type=Path, help="folder for teachers, stores and runs")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="small pools, few steps, one fold, two seeds")
    for name in ("steps", "seeds", "folds"):
        parser.add_argument(f"--{name}", type=int, help=f"instead of {getattr(Sizes(), name)}")
    parser.add_argument("--report", action="store_true", help="only the tables, of the runs that are there")
    parser.add_argument(
        "--plan", action="store_true", help="only how many runs there are, and about how long they take"
    )
    given = parser.parse_args(arguments)
    own = {name: getattr(given, name) for name in ("steps", "seeds", "folds") if getattr(given, name) is not None}
    sizes = replace(QUICK if given.quick else Sizes(), **own)
    if given.plan:
        print(plan(sizes, ["data"] if given.data else list(scenes.KINDS)))
        return
    if given.out is None or not (given.report or given.esc10 or given.data):
        parser.error("give --out, and --esc10 or --data")
    try:
        if not given.report:
            data = esc10_data(given.esc10, given.out, sizes) if given.esc10 else []
            if given.data:
                columns = given.label_column, given.fold_column
                data.append(own_data(given.data, given.audio_root, *columns, given.clip_seconds, given.out))
            Ablation(given.out, sizes, data, given.workers).run()
        print(report(read_lines(given.out), json.loads((given.out / SETTINGS).read_text(encoding="utf-8"))))
    except LogitstoreError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
