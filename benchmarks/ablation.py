"""What matters in distillation from a store: five experiments, each arm against another that differs in one thing.

    python -m benchmarks.ablation --esc10 DIR --out OUT              # everything; the tables at the end
    python -m benchmarks.ablation --esc10 DIR --out OUT --quick      # minutes: small pools, 52 steps, two seeds
    python -m benchmarks.ablation --data MANIFEST --audio-root DIR --label-column label --fold-column fold --out OUT
    python -m benchmarks.ablation --out OUT --report                 # the tables of the runs that are there
    python -m benchmarks.ablation --esc10 DIR --out OUT --prepare    # only what other benchmarks take by --prepared OUT
    python -m benchmarks.ablation --plan                             # how many runs, and about how long

ESC-10 (``--esc10``: a folder with labels.csv and audio/) becomes two data sets, *scenes* and *sequences*; see
``benchmarks/scenes.py``. Any labelled data goes by ``--data``: a manifest with a column of labels, and one of folds,
or folds by a hash of the path. A fold is held out whole; teachers, stores and students learn from the others
(``benchmarks/folds.py``), and everything is measured on the clips of the held-out fold as they are. Three folds are
held out, with five seeds each. Arms of one (fold, seed, student) share initialisation, order, dropout and steps
(``benchmarks/cached.py``); the arms and experiments stand in ``benchmarks/arms.py``. A difference is the mean over the
15 pairs (fold, seed) with Student's 95 % t-interval. The pairs of one fold share teachers and test clips, so the
intervals speak for other seeds more than for other data; the differences of each fold stand beside them.

Costs: 750 runs of 520 steps of 32 with one thread, 4.5 to 7 s each, two teachers and four stores a fold: ``--plan``
adds them up. Every finished run is a line of ``OUT/runs.jsonl``: run the same command again after an interruption and
it goes on.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import scenes
from benchmarks.ablation_tables import report
from benchmarks.arms import ARMS, EXPERIMENTS, Experiment
from benchmarks.cached import score, train
from benchmarks.folds import Data, Fold, prepare
from benchmarks.own_data import own_data
from benchmarks.runs import begin, each, processes, read_lines, settings_of
from logitstore.errors import LogitstoreError, RunError

CODE = ("ablation", "arms", "cached", "folds", "own_data", "runs", "scenes")
MAIN_WIDTHS = {"scenes": 8, "sequences": 4}

#: Experiments that are run together, with one seed after another, so that an interruption leaves rows of nearly one
#: length.
PHASES = ((1, 2), (3, 4, 5))

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


QUICK = Sizes(pool=24, test=100, views=4, steps=52, teacher_steps=100, seeds=2, folds=1)


@dataclass(frozen=True)
class Job:
    """One student."""

    data: str
    fold: str
    arm: str
    width: int
    seed: int


class Ablation:
    """Everything under one folder."""

    def __init__(self, out: Path, sizes: Sizes, data: list[Data], workers: int) -> None:
        self.out, self.sizes, self.data, self.workers = out, sizes, data, workers
        for one in data:
            if len(one.folds) <= sizes.folds:
                raise RunError(
                    f"{one.name} has {len(one.folds)} folds and {sizes.folds} are held out; give --folds "
                    f"{len(one.folds) - 1} or fewer"
                )
        begin(out, {"sizes": asdict(sizes), "data": [asdict(one) for one in data]}, CODE)

    def run(self, prepare_alone: bool = False) -> None:
        """Prepare, train and measure whatever is not there yet; or only prepare it."""
        with processes(self.workers) as pool:
            made = {(line["data"], line["fold"]) for line in read_lines(self.out) if line["stage"] == "prepare"}
            tasks = [
                (data, fold, self._folder(data.name, fold), self.sizes)
                for data in self.data
                for fold in self.held_out(data)
                if (data.name, fold) not in made
            ]
            each(self.out, pool, _prepare, tasks, "prepared")
            for seed in range(0 if prepare_alone else self.sizes.seeds):
                for numbers in PHASES:
                    self._train(pool, self.jobs([one for one in EXPERIMENTS if one.number in numbers], seed))

    def held_out(self, data: Data) -> tuple[str, ...]:
        """The folds of a data set that are tested on."""
        return data.folds[: self.sizes.folds]

    def jobs(self, experiments: Sequence[Experiment], seed: int) -> Iterator[Job]:
        """The runs of some experiments with a seed; one that belongs to several comes up several times."""
        for data in self.data:
            for fold in self.held_out(data):
                for width, arm, _ in chain.from_iterable(one.cells(data.main_width) for one in experiments):
                    if (ARMS[arm].views or 0) < self.sizes.views:
                        yield Job(data.name, fold, arm, width, seed)

    def _train(self, pool: Executor, jobs: Iterable[Job]) -> None:
        done = {_key(line) for line in read_lines(self.out) if line["stage"] == "run"}
        waiting = dict.fromkeys(job for job in jobs if job not in done)
        tasks = [(job, self._folder(job.data, job.fold), self.sizes.steps) for job in waiting]
        each(self.out, pool, _run, tasks, "trained")

    def _folder(self, data: str, fold: str) -> Path:
        return self.out / data / f"fold-{fold}"


def _key(line: dict[str, Any]) -> Job:
    return Job(*(line[name] for name in ("data", "fold", "arm", "width", "seed")))


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


def _run(task: tuple[Job, Path, int]) -> dict[str, Any]:
    job, folder, steps = task
    began = time.monotonic()
    fold = _fold(folder)
    model = train(fold, ARMS[job.arm], job.width, job.seed, steps)
    measured = score(model, fold.array("test"), fold.test_labels, fold.test_row_of)
    return {"stage": "run"} | asdict(job) | measured | {"seconds": round(time.monotonic() - began, 2)}


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
            seen |= {(name, *cell) for cell in cells}
            lines.append(f"{name}: experiment {experiment.number}, {runs} runs more, {seconds:,.0f} s")
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
    parser.add_argument(
        "--prepare", action="store_true", help="only teachers, stores and sounds, which other benchmarks take too"
    )
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
            Ablation(given.out, sizes, data, given.workers).run(given.prepare)
        if given.prepare:
            return
        print(report(read_lines(given.out), settings_of(given.out)))
    except LogitstoreError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
