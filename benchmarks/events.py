"""Frame targets against clip targets: what a student that is told when gains in finding events.

Data are *sequences*, on which the weight of the frame targets is chosen, and *varied*, on which nothing is
(:mod:`benchmarks.scenes`). For each held-out fold of ESC-10 a teacher that says when (cnn4 with little pooling in time
and the head of attention) learns from weak labels alone: which classes a clip has, never when. A store keeps its clip
and frame targets of rolled and masked views; students of the same kind, a quarter as wide, learn from it with clip
targets alone and with frame targets besides, of the weight chosen and of the default one, at the same seeds, steps and
views. Both say when by themselves, since
their head averages frames; what is measured, on clips of the fold that no model has heard, is event F1 and PSDS.

``python -m benchmarks.events --esc10 FOLDER --out FOLDER`` goes on where it was interrupted; ``--report`` prints the
tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import scenes
from benchmarks.intervals import paired, t_interval
from benchmarks.tables import table
from logitstore.errors import LogitstoreError
from logitstore.jobs.build.job import build
from logitstore.jobs.events import evaluate_events
from logitstore.jobs.options import BuildOptions, EvaluateOptions
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe
from students.options import StudentOptions
from students.terms.frames import Frames
from students.train import train_student
from teachers.options import TeacherOptions
from teachers.train import train_teacher

RUNS = "runs.jsonl"
NET: dict[str, Any] = {"mels": 32, "hop_ms": 40.0, "time_halvings": 1, "pool": "attention"}
TEACHER_WIDTH = 16
FRAME_MS = 40
#: Weights of the frame targets that are tried, in the first held-out fold, and measured on another, the last, which the
#: students that are tried do not learn from (their teacher does).
WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0)
KINDS = ("sequences", "varied")
METRICS = ("event_f1", "psds1", "psds2")


@dataclass(frozen=True)
class Sizes:
    """Scenes a fold to learn from and to test on, views, steps, held-out folds, seeds, and seeds of the tuning."""

    pool: int = 100
    test: int = 250
    views: int = 4
    width: int = 4
    steps: int = 300
    teacher_steps: int = 500
    folds: int = 2
    seeds: int = 3
    tuning_seeds: int = 1


QUICK = Sizes(pool=8, test=8, views=2, width=2, steps=6, teacher_steps=6, folds=1, seeds=2)


@dataclass(frozen=True)
class Job:
    """A student; ``stage`` "tuning" is measured on the validation fold, which it does not learn from; "teacher" is none
    of them, but the teacher itself."""

    stage: str
    kind: str
    fold: str
    weight: float
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.stage}-{self.weight:g}-{self.seed}"


class Events:
    """The experiment in a folder."""

    def __init__(self, esc10: Path, out: Path, sizes: Sizes, kinds: Sequence[str] = KINDS) -> None:
        self.esc10, self.out, self.sizes, self.kinds = esc10, out, sizes, kinds
        self.folds = tuple(sorted(scenes.Clips(esc10).by_fold))
        self.held_out, self.validation = self.folds[: sizes.folds], self.folds[-1]

    def run(self) -> None:
        """Do what is not done yet: first what chooses the weight, then the pairs of one data set after the other."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._do(
            Job("tuning", KINDS[0], fold, weight, seed)
            for seed in range(self.sizes.tuning_seeds)
            for weight in (0.0, *WEIGHTS)
            for fold in self.held_out[:1]
        )
        weight = best_weight(read_lines(self.out))
        for kind in self.kinds:
            self._do(Job("teacher", kind, fold, 0.0, 0) for fold in self.held_out)
            self._do(
                Job("run", kind, fold, each, seed)
                for seed in range(self.sizes.seeds)
                for fold in self.held_out
                for each in dict.fromkeys((0.0, Frames.weight, weight))
            )

    def _do(self, jobs: Iterator[Job]) -> None:
        done = {job_of(line) for line in read_lines(self.out)}
        for job in jobs:
            if job in done:
                continue
            began = time.process_time()
            self._data(job.kind)
            self._teacher(job.kind, job.fold)
            self._store(job.kind, job.fold)
            measured = self._student(job)
            line = {**vars(job), **measured, "seconds": round(time.process_time() - began, 1)}
            with (self.out / RUNS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)

    def _data(self, kind: str) -> None:
        """Audio and weak labels, and the strong labels of every fold in a table of its own."""
        folder = self.out / kind
        counts = {
            fold: max(self.sizes.pool, self.sizes.test) if fold in self.held_out else self.sizes.pool
            for fold in self.folds
        }
        scenes.write(kind, self.esc10, folder, counts)
        header, *rows = (folder / scenes.STRONG).read_text(encoding="utf-8").splitlines()
        for fold in self.folds:
            most = self.sizes.test if fold in self.held_out else self.sizes.pool
            own = [row for row in rows if row.startswith(f"{fold}/") and int(row[len(fold) + 1 :][:4]) < most]
            (folder / f"fold-{fold}.tsv").write_text("\n".join([header, *own]) + "\n", encoding="utf-8")

    def _teacher(self, kind: str, fold: str) -> None:
        folder = self.out / kind
        train_teacher(
            TeacherOptions(
                manifest=str(folder / scenes.MANIFEST), audio_root=str(folder / "audio"), label_column="label",
                model="cnn4", model_args={"width": TEACHER_WIDTH, **NET}, where=self._pool(fold),
                clip_seconds=scenes.SECONDS, steps=self.sizes.teacher_steps, seed=0, device="cpu", workers=1,
                out=str(folder / f"fold-{fold}" / "teacher-0"),
            )
        )  # fmt: skip

    def _store(self, kind: str, fold: str) -> None:
        folder = self.out / kind
        recipe = Recipe(
            "masks",
            (
                Roll(probability=0.5, max_fraction=0.5),
                TimeMask(max_seconds=round(0.192 * scenes.SECONDS, 2)),
                FrequencyMask(max_steps=24),
            ),
        )
        build(
            BuildOptions(
                source=str(folder / scenes.MANIFEST), audio_root=str(folder / "audio"), where=self._pool(fold),
                out=str(folder / f"fold-{fold}" / "store"), teachers=[str(folder / f"fold-{fold}" / "teacher-0")],
                views=self.sizes.views, recipe=recipe, clip_seconds=scenes.SECONDS, frames=FRAME_MS, workers=1,
                device="cpu",
            )
        )  # fmt: skip

    def _student(self, job: Job) -> dict[str, float]:
        folder = self.out / job.kind
        if job.stage == "teacher":
            return self.measured(job.kind, job.fold, folder / f"fold-{job.fold}" / "teacher-0")
        run = folder / f"fold-{job.fold}" / job.name
        where, heard = (f"fold <> '{self.validation}'", self.validation) if job.stage == "tuning" else (None, job.fold)
        train_student(
            StudentOptions(
                store=str(folder / f"fold-{job.fold}" / "store"), audio_root=str(folder / "audio"), student="cnn4",
                model_args={"width": self.sizes.width, **NET}, where=where, steps=self.sizes.steps, seed=job.seed,
                terms=[f"frames={job.weight:g}"] if job.weight else [], hold_out=0.0, device="cpu", workers=1,
                out=str(run),
            )
        )  # fmt: skip
        return self.measured(job.kind, heard, run)

    def measured(self, kind: str, fold: str, run: Path) -> dict[str, float]:
        """Event F1 and PSDS of a run on a fold, in points (0 to 100)."""
        folder = self.out / kind
        found = evaluate_events(
            EvaluateOptions(
                manifest=str(folder / f"fold-{fold}.tsv"), audio_root=str(folder / "audio"), teachers=[str(run)],
                events=True, clip_seconds=scenes.SECONDS, device="cpu", workers=1,
            )
        )  # fmt: skip
        return {"event_f1": 100 * found.f1.macro} | {name: 100 * value for name, value in found.psds.items()}

    def _pool(self, fold: str) -> str:
        return f"fold <> '{fold}' and number < {self.sizes.pool}"


def job_of(line: dict[str, Any]) -> Job:
    """The job that a line is of."""
    return Job(line["stage"], line["kind"], line["fold"], line["weight"], line["seed"])


def read_lines(out: Path) -> list[dict[str, Any]]:
    """The finished runs under a folder; a line that an interruption cut off is none."""
    path = out / RUNS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def best_weight(lines: Sequence[dict[str, Any]]) -> float:
    """The weight whose mean event F1 on the validation fold is the highest."""
    tried: dict[float, list[float]] = {}
    for line in lines:
        if line["stage"] == "tuning" and line["weight"]:
            tried.setdefault(line["weight"], []).append(line["event_f1"])
    return max(tried, key=lambda weight: sum(tried[weight]) / len(tried[weight]))


def report(lines: Sequence[dict[str, Any]]) -> str:
    """What was found, as Markdown."""
    parts = []
    tuning = [line for line in lines if line["stage"] == "tuning"]
    if tuning:
        rows = []
        for weight in sorted({line["weight"] for line in tuning}):
            of = [line for line in tuning if line["weight"] == weight]
            means = [f"{sum(line[name] for line in of) / len(of):.1f}" for name in METRICS]
            rows.append([f"{weight:g}" if weight else "no frame targets", *means, str(len(of))])
        parts.append("On the validation fold of *sequences*:\n\n" + table(["weight", *METRICS, "runs"], rows))
    for kind in dict.fromkeys(line["kind"] for line in lines if line["stage"] == "run"):
        arms: dict[float, dict[Any, dict[str, Any]]] = {}
        for line in lines:
            if line["stage"] == "run" and line["kind"] == kind:
                arms.setdefault(line["weight"], {})[line["fold"], line["seed"]] = line
        of_teachers = [line for line in lines if line["stage"] == "teacher" and line["kind"] == kind]
        rows = []
        if of_teachers:
            means = [sum(line[name] for line in of_teachers) / len(of_teachers) for name in METRICS]
            rows.append(["the teacher itself", *(f"{mean:.1f}" for mean in means), str(len(of_teachers))])
        for weight, own in sorted(arms.items()):
            alone = {key: arms[0.0][key] for key in own if key in arms.get(0.0, {})}
            cells = []
            for name in METRICS:
                found = {key: line[name] for key, line in own.items()}
                cells.append(f"{sum(found.values()) / len(found):.1f}")
                if weight and alone:
                    gain = t_interval(paired(found, {key: line[name] for key, line in alone.items()}))
                    cells[-1] += f" ({gain.mean:+.1f} ± {gain.half:.1f})"
            rows.append([f"and frames, {weight:g}" if weight else "clips alone", *cells, str(len(alone))])
        parts.append(f"On held-out folds of *{kind}*:\n\n" + table(["targets, weight", *METRICS, "runs"], rows))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10: labels.csv (path, label, fold) and audio/")
    parser.add_argument("--out", type=Path, required=True, help="folder for data, teachers, stores and runs")
    parser.add_argument("--quick", action="store_true", help="small and senseless, to see that it runs")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this data set, once the weight is chosen")
    parser.add_argument("--seeds", type=int, help=f"instead of {Sizes().seeds}")
    parser.add_argument("--report", action="store_true", help="only the tables, of the runs that are there")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else Sizes()
    sizes = sizes if given.seeds is None else replace(sizes, seeds=given.seeds)
    torch.set_num_threads(1)
    try:
        if not given.report:
            if given.esc10 is None:
                parser.error("give --esc10")
            Events(given.esc10, given.out, sizes, given.kind or KINDS).run()
        print(report(read_lines(given.out)))
    except LogitstoreError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
