"""Global-local attention beside the net that it is made of: mAP on held-out clips, paired over teachers.

    python -m benchmarks.global_local --prepared ABLATION --out OUT [--data sequences] [--fold 1 --fold 2] [--steps 300]
    python -m benchmarks.global_local --out OUT --report

The teachers are those of ``benchmarks/ablation.py``. Of each, ``train-teacher --model global-local`` makes one that
hears five pieces of 3 s (*pieces*), and one that hears, in their place, the clip as a whole once (*whole clip*), which
differs in the pieces alone and has as many weights and steps. Two teachers of other seeds, averaged, stand beside both.
Each is measured on the clips of the held-out fold as they are; *second net* is its answer without the first one's.
Every line of ``OUT/global_local.jsonl`` is one teacher, so that the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.folds import TEACHERS, Fold, by_row
from benchmarks.intervals import paired, t_interval
from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.evaluation.labelled import read_labelled
from logitstore.evaluation.metrics import measure
from logitstore.models.tagger import probabilities
from logitstore.training.runs import load_run
from logitstore.views.render import pad
from teachers.options import TeacherOptions
from teachers.train import train_teacher

RUNS = "global_local.jsonl"
ARMS: dict[str, dict[str, Any]] = {"pieces": {}, "whole clip": {"pieces": 1, "seconds": 5.0}}
_SECONDS, _BATCH = 5.0, 25


def run(prepared: Path, out: Path, data: str, folds: list[str], steps: int, lr: float | None) -> None:
    """Train and measure whatever is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for fold in folds:
        folder = prepared / data / f"fold-{fold}"
        opened = Fold(folder)
        pool = 1 + max(opened.store("masks").clips["number"].to_pylist())
        for number in range(TEACHERS):
            for arm, args in ARMS.items():
                key = {"data": data, "fold": fold, "teacher": number, "arm": arm, "steps": steps, "lr": lr}
                if any(key.items() <= line.items() for line in read(out)):
                    continue
                began = time.process_time()
                place = out / "-".join([data, fold, str(number), arm.replace(" ", "-"), str(steps), f"{lr}"])
                train_teacher(
                    TeacherOptions(
                        manifest=str(prepared / data / "labels.csv"), audio_root=str(prepared / data / "audio"),
                        label_column="label", model="global-local",
                        model_args={"of": str(folder / f"teacher-{number}"), **args}, lr=lr,
                        where=f"fold <> '{fold}' AND number < {pool}", clip_seconds=_SECONDS, steps=steps, seed=number,
                        device="cpu", workers=1, out=str(place),
                    )
                )  # fmt: skip
                learnt = round(time.process_time() - began, 1)
                found = measured(prepared / data, fold, place, opened)
                line = key | found | {"seconds": learnt}
                with (out / RUNS).open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(line) + "\n")
                print(line, file=sys.stderr, flush=True)


@torch.inference_mode()
def measured(data: Path, fold: str, run: Path, opened: Fold) -> dict[str, float]:
    """mAP in points of the model, of its first net, of the second alone, and of two teachers of other seeds."""
    test = read_labelled(
        str(data / "labels.csv"), str(data / "audio"), "label", where=f"fold = '{fold}'", clip_seconds=_SECONDS,
        workers=1,
    )  # fmt: skip
    model: Any = load_run(run).model
    audio = ClipAudio(test.source, test.table, model.front_end.sample_rate)
    said: dict[str, list[F32]] = {"both": [], "first net": [], "second net": []}
    for at in np.array_split(np.arange(len(audio)), -(-len(audio) // _BATCH)):
        waves = pad([audio[int(clip)] for clip in at], round(_SECONDS * model.front_end.sample_rate))[0]
        said["both"].append(probabilities(model(waves), "sigmoid").numpy())
        said["first net"].append(probabilities(model.whole(waves), "sigmoid").numpy())
        model.training = True  # of this module alone: its answer is the pieces'
        said["second net"].append(probabilities(model(waves), "sigmoid").numpy())
        model.training = False
    found = {
        name: 100 * measure(opened.test_labels, by_row(np.concatenate(parts), opened.test_row_of)).mAP
        for name, parts in said.items()
    }
    return found | {"two teachers": opened.teachers_map()[0]}


def read(out: Path) -> list[dict[str, Any]]:
    """The runs that are there."""
    path = out / RUNS
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def report(lines: list[dict[str, Any]]) -> str:
    """A table in Markdown: mAP, and how far each is from the first net alone, paired over folds and teachers."""
    rows = [
        "| data | steps, rate | what is heard | mAP | minus the first net's, 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for data, steps, lr in dict.fromkeys((each["data"], each["steps"], each["lr"]) for each in lines):
        of = {
            arm: {(each["fold"], each["teacher"]): each for each in lines
                  if (each["data"], each["steps"], each["lr"], each["arm"]) == (data, steps, lr, arm)}
            for arm in ARMS
        }  # fmt: skip
        shown = {
            "the first net alone": ("pieces", "first net"),
            "pieces": ("pieces", "both"),
            "pieces, second net": ("pieces", "second net"),
            "whole clip": ("whole clip", "both"),
            "whole clip, second net": ("whole clip", "second net"),
            "two teachers of other seeds": ("pieces", "two teachers"),
        }
        first = {key: each["first net"] for key, each in of["pieces"].items()}
        for name, (arm, what) in shown.items():
            values = {key: each[what] for key, each in of[arm].items()}
            apart = t_interval(paired(values, first)) if values.keys() & first.keys() else None
            there = "" if what == "first net" or apart is None else f"{apart.mean:+.2f} ± {apart.half:.2f}"
            mean = sum(values.values()) / max(1, len(values))
            rows.append(f"| {data} | {steps}, {lr or 'its own'} | {name} | {mean:.2f} | {there} |")
        both = paired(*({key: each["both"] for key, each in of[arm].items()} for arm in ARMS))
        if both:
            apart = t_interval(both)
            what = f"{data} | {steps}, {lr or 'its own'} | pieces minus whole clip"
            rows.append(f"| {what} | | {apart.mean:+.2f} ± {apart.half:.2f} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, help="the --out of benchmarks.ablation --prepare, with its folds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", default="sequences", choices=("scenes", "sequences"))
    parser.add_argument("--fold", action="append", help="a held-out fold, repeatable; 1 and 2 by default")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, help="the net's own by default")
    parser.add_argument("--report", action="store_true", help="only the table of the runs that are there")
    given = parser.parse_args(arguments)
    if not given.report:
        if given.prepared is None:
            parser.error("give --prepared, or --report")
        run(given.prepared, given.out, given.data, given.fold or ["1", "2"], given.steps, given.lr)
    print(report(read(given.out)))


if __name__ == "__main__":
    main()
