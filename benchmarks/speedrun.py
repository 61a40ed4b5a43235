"""The speed run: from Ogg files to an exported student, every second counted.

    python -m benchmarks.speedrun esc10 --out runs/speed [--seeds 5] [--held-out 5] [--cores 2]

``esc10`` holds ``audio/`` and a ``labels.csv`` with path, label and fold. For every seed the commands that a user would
type (``commands.txt``) train teachers on the labels of four folds, one process a core, build a store, train a student
from it without a label and export it. Counted is each process from its start to its end: wall time, and processor time
of its whole tree, which says what the wall time would be where other work shares the cores. Measuring comes afterwards
and is not counted: the mAP on the held-out fold, of the exported file and of the ensemble that taught it.

The settings were chosen on folds 1 to 4, with ``--held-out 1`` to ``4``, where the other three of them are learnt from.
Fold 5 is never learnt from. A seed that is finished is not run again; one that was interrupted starts over.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.intervals import Interval, t_interval
from logitstore.errors import RunError
from logitstore.files import write_whole

LEARNT = (1, 2, 3, 4)
FOLDS = (*LEARNT, 5)
SECONDS = 5
STAGES = ("teachers", "store", "student", "export")
#: What is to be reached: seconds on two cores, and mAP.
MOST_SECONDS, LEAST_MAP = 180, 0.90


_HEARS = ("--model-arg", "mels=32", "--model-arg", "hop_ms=40")


@dataclass(frozen=True)
class Plan:
    """What is run: how many teachers, and the options of each command that are not its defaults."""

    teachers: int = 2
    teacher: tuple[str, ...] = ("--model", "cnn4", *_HEARS, "--batch-size", "16", "--steps", "1200")
    build: tuple[str, ...] = ("--views", "10")
    student: tuple[str, ...] = (
        "--student", "cnn4", "--model-arg", "width=8", *_HEARS, "--steps", "1300", "--hold-out", "0",
    )  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """What a stage took, in seconds: ``wall``, and ``processor`` of all its processes together."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Finished:
    """A run from Ogg files to an exported student: its stages, and mAP in [0, 1] on the held-out fold."""

    seed: int
    stages: dict[str, Spent]
    student: float
    ensemble: float
    teachers: tuple[float, ...]
    bytes: int

    @property
    def total(self) -> Spent:
        """All stages together."""
        return Spent(
            sum(each.wall for each in self.stages.values()), sum(each.processor for each in self.stages.values())
        )


def stages(data: str, folder: str, held_out: int, seed: int, plan: Plan) -> dict[str, list[list[str]]]:
    """The commands of each stage, which run side by side; as they are typed, their program first."""
    audio = ["--audio-root", f"{data}/audio", "--audio-cache", f"{folder}/decoded"]
    learnt = f"fold IN ({', '.join(str(fold) for fold in LEARNT if fold != held_out)})"
    clips = [f"{data}/labels.csv", *audio, "--where", learnt, "--clip-seconds", str(SECONDS)]
    teachers = [f"{folder}/teacher-{number}" for number in range(plan.teachers)]
    seeds = (str(plan.teachers * seed + number) for number in range(plan.teachers))
    trained = [
        ["train-teacher", *clips, "--label-column", "label", *plan.teacher, "--seed", own, "--out", teacher]
        for own, teacher in zip(seeds, teachers, strict=True)
    ]
    asked = [each for teacher in teachers for each in ("--teacher", teacher)]
    store, student = f"{folder}/store", f"{folder}/student"
    return {
        "teachers": trained,
        "store": [["logitstore", "build", *clips, *asked, *plan.build, "--seed", str(seed), "--out", store]],
        "student": [["train-student", store, *audio, *plan.student, "--seed", str(seed), "--out", student]],
        "export": [["export-student", student, "--out", f"{student}.onnx"]],
    }


def run(data: str, out: Path, held_out: int, seed: int, plan: Plan, cores: int) -> Finished:
    """A whole run, unless it is there already.

    :raises RunError: a command that fails, with the end of what it said.
    """
    folder = out / f"held-out-{held_out}-seed-{seed}"
    record = folder / "finished.json"
    if record.is_file():
        return _read(record, plan)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    commands = stages(data, str(folder), held_out, seed, plan)
    spent = {name: _spend(commands[name], folder / f"{name}.log", cores) for name in STAGES}
    exported = folder / "student.onnx"
    taught = [f"{folder}/teacher-{number}" for number in range(plan.teachers)]
    teachers = _measured(data, held_out, taught, folder, cores)
    student = _measured(data, held_out, [f"onnx:{exported}"], folder, cores)
    members = tuple(member["mAP"] for member in teachers["members"])
    ensemble = teachers["ensemble"]["mAP"] if teachers["ensemble"] else members[0]
    finished = Finished(seed, spent, student["members"][0]["mAP"], ensemble, members, exported.stat().st_size)
    lines = [shlex.join(command) for name in STAGES for command in commands[name]]
    write_whole(folder / "commands.txt", ("\n".join(lines) + "\n").encode())
    document = {"plan": _plain(plan), "cores": cores, **_plain(finished)}
    write_whole(record, (json.dumps(document, indent=1) + "\n").encode())
    return finished


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _read(record: Path, plan: Plan) -> Finished:
    import msgspec

    document = json.loads(record.read_text())
    if document["plan"] != json.loads(json.dumps(_plain(plan))):
        raise RunError(f"{record} is of other settings; give another --out, or remove {record.parent}")
    return msgspec.convert({key: document[key] for key in Finished.__dataclass_fields__}, Finished)


def _spend(commands: Sequence[Sequence[str]], log: Path, cores: int) -> Spent:
    """Run commands side by side, no more at once than there are cores, which they share, and wait for all."""
    began, processor = time.monotonic(), 0.0
    with log.open("wb") as said:
        for first in range(0, len(commands), cores):
            together = commands[first : first + cores]
            started = [_start(command, max(1, cores // len(together)), said) for command in together]
            ended = [_ended(process) for process in started]
            processor += sum(seconds for _, seconds in ended)
            for command, (status, _) in zip(together, ended, strict=True):
                if status:
                    end = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                    raise RunError(f"{shlex.join(command)} failed: {end}; all that it said is in {log}")
    return Spent(time.monotonic() - began, processor)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for a process: its exit code, and the processor time of it and all that it waited for, in seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def _start(command: Sequence[str], threads: int, said: Any) -> subprocess.Popen[bytes]:
    surroundings = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen([program(command[0]), *command[1:]], stdout=said, stderr=said, env=surroundings)


def program(name: str) -> str:
    """Where one of the programs lies: the first on PATH, or beside this Python.

    :raises RunError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise RunError(f"no program {name}; install the project, as with pip install --editable '.[onnx]'")
    return found


def _measured(data: str, held_out: int, specs: Sequence[str], folder: Path, cores: int) -> dict[str, Any]:
    """What ``logitstore evaluate`` says of teachers on the held-out fold."""
    command = ["logitstore", "evaluate", f"{data}/labels.csv", "--audio-root", f"{data}/audio"]
    command += ["--label-column", "label", "--where", f"fold = {held_out}", "--clip-seconds", str(SECONDS), "--json"]
    command += [each for spec in specs for each in ("--teacher", spec)]
    with (folder / "evaluate.log").open("ab") as said:
        answer = subprocess.run(
            [program(command[0]), *command[1:]], stdout=subprocess.PIPE, stderr=said, check=False,
            env=os.environ | {"OMP_NUM_THREADS": str(cores)},
        )  # fmt: skip
    if answer.returncode:
        raise RunError(f"{shlex.join(command)} failed; what it said is in {folder / 'evaluate.log'}")
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def table(runs: Sequence[Finished], held_out: int, cores: int) -> str:
    """Seconds by stage and mAP, of every seed and their mean with its 95 % interval, as Markdown."""
    return "\n".join([*_seconds(runs, cores), "", *_maps(runs, held_out)])


def _seconds(runs: Sequence[Finished], cores: int) -> Iterator[str]:
    yield f"| seconds, mean of {len(runs)} seeds | wall | processor | share of {cores} cores |"
    yield "| --- | ---: | ---: | ---: |"
    for name in (*STAGES, "all"):
        spent = [each.total if name == "all" else each.stages[name] for each in runs]
        wall = sum(each.wall for each in spent) / len(runs)
        processor = sum(each.processor for each in spent) / len(runs)
        yield f"| {name} | {wall:.1f} | {processor:.1f} | {processor / (cores * wall):.0%} |"


def _maps(runs: Sequence[Finished], held_out: int) -> Iterator[str]:
    yield f"| mAP on fold {held_out} | " + " | ".join(f"seed {each.seed}" for each in runs) + " | mean, 95 % |"
    yield "| --- |" + " ---: |" * (len(runs) + 1)
    rows = {
        "exported student": [each.student for each in runs],
        "ensemble": [each.ensemble for each in runs],
        "its teachers, mean": [sum(each.teachers) / len(each.teachers) for each in runs],
    }
    for name, values in rows.items():
        yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + f" | {_shown(t_interval(values))} |"
    wall = [f"{each.total.wall:.0f}" for each in runs]
    yield "| seconds, wall | " + " | ".join(wall) + f" | {_shown(t_interval([r.total.wall for r in runs]), 0)} |"


def _shown(interval: Interval, digits: int = 3) -> str:
    return f"{interval.mean:.{digits}f}" + (f" ± {interval.half:.{digits}f}" if interval.count > 1 else "")


def verdict(runs: Sequence[Finished]) -> str:
    """Whether both bars are reached, in words."""
    seconds, found = (sum(each) / len(runs) for each in zip(*((r.total.wall, r.student) for r in runs), strict=True))
    return (
        f"{seconds:.0f} s of at most {MOST_SECONDS} {'reached' if seconds <= MOST_SECONDS else 'missed'}; mAP "
        f"{found:.3f} of at least {LEAST_MAP:.2f} {'reached' if found >= LEAST_MAP else 'missed'}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the seeds that are not there yet and print the table; 1 where a command failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedrun", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", help="a folder with audio/ and labels.csv (path, label, fold)")
    parser.add_argument("--out", default="runs/speed", help="where everything goes")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs")
    parser.add_argument("--held-out", type=int, default=FOLDS[-1], choices=FOLDS, help="the fold to measure on")
    parser.add_argument("--cores", type=int, default=2, help="the cores to use")
    asked = parser.parse_args(argv)
    runs: list[Finished] = []
    try:
        for seed in range(asked.seeds):
            runs.append(run(asked.data, Path(asked.out), asked.held_out, seed, Plan(), asked.cores))
            now = runs[-1]
            print(
                f"seed {seed}  {now.total.wall:.0f} s, {now.total.processor:.0f} s of processor time; student "
                f"{now.student:.3f}, ensemble {now.ensemble:.3f}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    except (RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = table(runs, asked.held_out, asked.cores)
    (Path(asked.out) / f"held-out-{asked.held_out}.md").write_text(found + "\n")
    print(f"{found}\n\n{verdict(runs)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
