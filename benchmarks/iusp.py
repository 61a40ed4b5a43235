"""Do SP and IUSP help students of a store, and does IUSP lead, as its paper says? Five arms at three sizes of student.

    python -m benchmarks.iusp --esc10 DIR --out OUT                  # scenes and sequences of ESC-10; tables at the end
    python -m benchmarks.iusp --sonyc DIR --out OUT                  # SONYC-UST as downloaded, coarse classes
    python -m benchmarks.iusp --data MANIFEST --audio-root DIR --label-column label --fold-column fold --out OUT
    python -m benchmarks.iusp --esc10 DIR --out OUT --quick          # minutes: small pools, 52 steps, two seeds
    python -m benchmarks.iusp --out OUT --report                     # the tables of the runs that are there
    python -m benchmarks.iusp --plan                                 # how many runs, and about how long

Arms: labels alone; the store's targets (KD); KD with SP; with IUSP; with both. Students are ``cnn4`` of widths 8, 4 and
2, once with few frames (3 in 5 s) and once with many (31), and their teachers have as many (``--frames``). Data, folds
and pairing are the ablation's (``benchmarks/ablation.py``, ``folds.py``, ``cached.py``).

SP and IUSP have weights of their own, tuned at width 4 beside the first held-out fold, on the last one, which is never
held out: the one with the best official micro AUPRC of two seeds. Steps of about 3 are tried, and further ones until
the best has a worse one on either side. Other definitions of the two losses (``benchmarks/exact_relations.py``) are
compared on scenes and sequences, at width 4 with many frames.

The measure is micro AUPRC as DCASE 2019 task 5 has it (``logitstore/evaluation/sonyc.py``), every class of other data
taken for a coarse one; beside it stand micro AUPRC as average precision, and mAP. The ratio is the seed paper's:
(IUSP - base) / (SP - base) - 1 with the baseline of labels as base, and with KD.

``--sonyc DIR`` is a folder with ``annotations.csv`` (or ``annotations-dev.csv``) and the audio under ``audio/`` or
SPLIT/. Learnt is from the split train, measured on the agreed rows of ``--split``; weights are tuned on a fifth of the
training sensors.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks import ablation, scenes
from benchmarks.ablation_tables import Line, Values, compared, mean, prepared
from benchmarks.arms import Arm
from benchmarks.cached import score, train
from benchmarks.exact_relations import Compared, ExactFold, Unpooled, Variant, keep_relations
from benchmarks.folds import FRONT_END, MANY_FRAMES, Data, Fold, prepare
from benchmarks.intervals import CONFIDENCE, paired
from benchmarks.own_data import own_data
from benchmarks.runs import begin, each, processes, read_lines, settings_of
from benchmarks.tables import table
from logitstore.audio.sonyc import COARSE, FILE, coarse_of, read_annotations, read_table, targets
from logitstore.errors import LogitstoreError, RunError, SourceError

CODE = ("ablation", "arms", "cached", "exact_relations", "folds", "iusp", "own_data", "runs", "scenes")
NETS = {"few": FRONT_END, "many": MANY_FRAMES}
WIDTHS = (8, 4, 2)
MIDDLE = 4

KD = "KD"
#: The arms, and the terms that each has beside the target or the labels.
ARMS: dict[str, tuple[str, ...]] = {
    "labels": (), KD: (), "KD + SP": ("sp",), "KD + IUSP": ("iusp",), "KD + both": ("sp", "iusp"),
}  # fmt: skip
VARIANTS = {
    "SP of maps": Variant("sp", maps=True),
    "SP as published: maps, not divided by their norm": Variant("sp", maps=True, unit=False, by_row=True),
    "SP, rows normalised before the mean over members": Variant("sp", by_row=True),
    "IUSP of maps": Variant("iusp", maps=True),
    "IUSP, rows normalised before the mean over members": Variant("iusp", by_row=True),
}
PUBLISHED = "SP as published: maps, not divided by their norm"

#: What is tuned: the arm, and the first weights to try, as numbers of :func:`weight`.
TUNED = {"sp": ("KD + SP", (3, 4, 5)), "iusp": ("KD + IUSP", (0, 1, 2)), "published": (PUBLISHED, (1, 2, 3))}
_FURTHEST = 10  # numbers of weights that are tried at most on either side

#: For the plan: ms of a step of a student by net and width, of a step of a teacher, and of a stored view.
STEP_MS: dict[str, dict[int, float]] = {"few": {2: 8.5, 4: 9.5, 8: 12.5}, "many": {2: 10, 4: 14, 8: 20}}
TEACHER_MS: dict[str, int] = {"few": 38, "many": 60}
VIEW_MS = 4


@dataclass(frozen=True)
class Sizes(ablation.Sizes):
    """How much of everything: as the ablation's, and how many seeds the tuning and the other definitions get."""

    views: int = 20
    tuning_seeds: int = 2
    variant_seeds: int = 3


QUICK = Sizes(
    pool=24, test=100, views=4, steps=52, teacher_steps=100, seeds=2, folds=1, tuning_seeds=1, variant_seeds=1
)


@dataclass(frozen=True)
class Job:
    """One student; ``stage`` is "run", "variant", or "tuning" for those that are measured on the validation split.

    ``weights`` of its terms are part of what it is only while they are tuned.
    """

    stage: str
    net: str
    data: str
    fold: str
    arm: str
    width: int
    seed: int
    weights: tuple[tuple[str, float], ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What a finished run is known by."""
        weights = self.weights if self.stage == "tuning" else ()
        return (self.stage, self.net, self.data, self.fold, self.arm, self.width, self.seed, weights)


def weight(number: int) -> float:
    """1, 3, 10, 30, … for 0, 1, 2, 3, …, and .3, .1, … before."""
    return float(f"{3 if number % 2 else 1}e{number // 2}")


_NUMBERS = {weight(number): number for number in range(-20, 21)}


def to_try(found: Mapping[int, float], first: Sequence[int]) -> list[int]:
    """The numbers of weights to try next, by what those before gave; none where the best has worse ones beside it."""
    missing = [number for number in first if number not in found]
    if missing:
        return missing
    best = max(found, key=lambda number: found[number])
    beside = [number for number in (best - 1, best + 1) if number not in found]
    return [number for number in beside if first[0] - _FURTHEST <= number <= first[-1] + _FURTHEST]


def kinds(net: str, data: str) -> list[str]:
    """What is tuned of a data set: "published" only where the other definitions are compared."""
    compared_here = net == "many" and data in scenes.KINDS
    return [kind for kind in TUNED if kind != "published" or compared_here]


class Iusp:
    """Everything under one folder."""

    def __init__(self, out: Path, sizes: Sizes, data: list[Data], nets: Sequence[str], workers: int) -> None:
        self.out, self.sizes, self.nets, self.workers = out, sizes, nets, workers
        self.data = {one.name: one for one in data}
        for one in data:
            if len(one.folds) <= len(self.held_out(one)):
                raise RunError(
                    f"{one.name} has {len(one.folds)} folds; {sizes.folds} are held out and one more is needed to "
                    f"tune on, so give --folds {len(one.folds) - 1} or fewer"
                )
        settings = {"sizes": asdict(sizes), "data": [asdict(one) for one in data], "nets": list(nets)}
        begin(out, settings, CODE)

    def held_out(self, data: Data) -> tuple[str, ...]:
        """The folds of a data set that are tested on."""
        return data.folds[:1] if data.name == "sonyc" else data.folds[: self.sizes.folds]

    def run(self) -> None:
        """Prepare, tune, train and measure whatever is not there yet."""
        with processes(self.workers) as pool:
            made = {(line["net"], line["data"], line["fold"]) for line in self._lines() if line["stage"] == "prepare"}
            tasks = [
                (net, data, fold, self._folder(net, data.name, fold), self.sizes)
                for net, data, fold in self._places() if (net, data.name, fold) not in made
            ]  # fmt: skip
            each(self.out, pool, _prepare, tasks, "prepared")
            while jobs := self.tuning():
                self._train(pool, jobs)
            for seed in range(self.sizes.seeds):
                self._train(pool, self.jobs(seed))

    def tuning(self) -> list[Job]:
        """Students that are still needed to know the weights."""
        found, lines = [], self._lines()
        for net, data, seed in product(self.nets, self.data.values(), range(self.sizes.tuning_seeds)):
            make = partial(Job, "tuning", net, data.name, self.held_out(data)[0])
            found.append(make(KD, MIDDLE, seed))
            for kind in kinds(net, data.name):
                arm, first = TUNED[kind]
                term = VARIANTS[arm].term if arm in VARIANTS else kind
                for number in to_try(tuned_values(lines, net, data.name, kind), first):
                    found.append(make(arm, MIDDLE, seed, ((term, weight(number)),)))
        done = {_key(line) for line in lines}
        return [job for job in found if job.key not in done]

    def jobs(self, seed: int) -> Iterator[Job]:
        """The runs with a seed."""
        lines = self._lines()
        for net, data, fold in self._places():
            best = {kind: best_weight(lines, net, data.name, kind) for kind in TUNED}
            for width in WIDTHS:
                for arm, terms in ARMS.items():
                    weights = tuple((term, best[term]) for term in terms)
                    yield Job("run", net, data.name, fold, arm, width, seed, weights)
            if "published" in kinds(net, data.name) and seed < self.sizes.variant_seeds:
                for name, variant in VARIANTS.items():
                    own = best["published" if name == PUBLISHED else variant.term]
                    yield Job("variant", net, data.name, fold, name, MIDDLE, seed, ((variant.term, own),))

    def _places(self) -> list[tuple[str, Data, str]]:
        return [(net, data, fold) for net in self.nets for data in self.data.values() for fold in self.held_out(data)]

    def _train(self, pool: Executor, jobs: Iterable[Job]) -> None:
        done = {_key(line) for line in self._lines()}
        tasks = [
            (job, self._folder(job.net, job.data, job.fold), self.data[job.data].folds[-1], self.sizes.steps)
            for job in jobs if job.key not in done
        ]  # fmt: skip
        each(self.out, pool, _run, tasks, "trained")

    def _folder(self, net: str, data: str, fold: str) -> Path:
        return self.out / net / data / f"fold-{fold}"

    def _lines(self) -> list[dict[str, Any]]:
        return read_lines(self.out)


def tuned_values(lines: Sequence[Line], net: str, data: str, kind: str) -> dict[int, float]:
    """What each weight gave on the validation split, by its number: points, the mean over the seeds."""
    values: dict[float, list[float]] = {}
    for line in lines:
        if (line["stage"], line.get("net"), line["data"], line.get("arm")) == ("tuning", net, data, TUNED[kind][0]):
            values.setdefault(line["weights"][0][1], []).append(line["official"])
    return {_NUMBERS[each]: float(np.mean(points)) for each, points in values.items()}


def best_weight(lines: Sequence[Line], net: str, data: str, kind: str) -> float:
    """The weight that was best on the validation split; 0 where none was tried."""
    values = tuned_values(lines, net, data, kind)
    return weight(max(values, key=lambda number: values[number])) if values else 0.0


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    if line["stage"] == "prepare":
        return ("prepare",)
    names = ("stage", "net", "data", "fold", "arm", "width", "seed")
    return Job(**{name: line[name] for name in names}, weights=tuple(map(tuple, line["weights"]))).key


def _prepare(task: tuple[str, Data, str, Path, Sizes]) -> dict[str, Any]:
    net, data, held_out, folder, sizes = task
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(
        data, held_out, folder, views=sizes.views, steps=sizes.steps, teacher_steps=sizes.teacher_steps,
        model_args=NETS[net], stores=("masks",),
    )  # fmt: skip
    if "published" in kinds(net, data.name):
        keep_relations(folder)
    fold = Fold(folder, NETS[net])
    relations = fold.store("masks").require_relations(frames=True, clips=True)
    return {
        "stage": "prepare", "net": net, "data": data.name, "fold": held_out,
        "seconds": round(time.monotonic() - began, 1), "pool": len(fold.labels), "test": len(fold.test_labels),
        "classes": len(fold.classes), "teachers": fold.teachers_map(), "store": {"masks": fold.bytes_a_view("masks")},
        "frames": relations.pooled,
    }  # fmt: skip


@functools.lru_cache(maxsize=8)
def _fold(folder: Path, net: str, exact: bool) -> Fold:
    return (ExactFold if exact else Fold)(folder, NETS[net])


def _run(task: tuple[Job, Path, str, int]) -> dict[str, Any]:
    job, folder, validation, steps = task
    began = time.monotonic()
    variant = VARIANTS.get(job.arm)
    fold = _fold(folder, job.net, variant is not None)
    arm = Arm(target="labels" if job.arm == "labels" else "stored", terms=() if variant else job.weights)
    made: dict[str, Any] = {}
    if variant is not None:
        made["make"] = partial(Unpooled, len(fold.classes), width=job.width, **fold.model_args)
        made["also"] = (job.weights[0][1], Compared(variant, features=8 * job.width))
    inside = fold.of_fold(validation) if job.stage == "tuning" else np.zeros(len(fold.clips), np.bool_)
    model = train(fold, arm, job.width, job.seed, steps, rows=fold.clips[~inside], **made)
    if job.stage == "tuning":
        rows = np.arange(np.count_nonzero(inside))
        measured = score(model, fold.array("still")[inside], fold.labels[inside] > 0, rows)
    else:
        measured = score(model, fold.array("test"), fold.test_labels, fold.test_row_of)
    return asdict(job) | measured | {"seconds": round(time.monotonic() - began, 2)}


# tables


def report(lines: Sequence[Line], settings: Mapping[str, Any]) -> str:
    """Every table, Markdown."""
    sizes = settings["sizes"]
    parts = [
        f"Up to {sizes['folds']} held-out folds and {sizes['seeds']} seeds, students of {sizes['steps']} steps of 32; "
        f"code {settings['code']}. Micro AUPRC is the official one of DCASE 2019 task 5, every class of other data "
        "taken for a coarse one; AP is micro average precision. Points (0 to 100), means of paired differences ± half "
        f"of the {100 * CONFIDENCE:.0f} % t-interval.\n"
    ]
    for data in settings["data"]:
        for net in settings["nets"]:
            here = [line for line in lines if line["data"] == data["name"] and line.get("net") == net]
            if not here:
                continue
            frames = {line["frames"] for line in here if line["stage"] == "prepare"}
            title = f"## {data['name']}, {', '.join(map(str, sorted(frames)))} frames\n"
            parts += [
                title,
                prepared(here),
                _tuning(here, net, data["name"]),
                _arms(here),
                _lead(here),
                _variants(here),
            ]
    seconds = sum(line["seconds"] for line in lines)
    parts.append(f"{len(lines)} tasks; {seconds:,.0f} s of processes of one thread.\n")
    return "\n".join(part for part in parts if part)


def values(lines: Sequence[Line], arm: str, width: int, metric: str = "official", stage: str = "run") -> Values:
    """A metric of every finished run of an arm, by (fold, seed)."""
    return {
        (line["fold"], line["seed"]): line[metric]
        for line in lines
        if (line["stage"], line.get("arm"), line.get("width")) == (stage, arm, width)
    }


def _tuning(lines: Sequence[Line], net: str, data: str) -> str:
    rows = []
    for kind, (arm, _) in TUNED.items():
        found = tuned_values(lines, net, data, kind)
        if found:
            best = max(found, key=lambda number: found[number])
            cells = [f"{weight(n):g}: {found[n]:.1f}" for n in sorted(found)]
            inside = "inside" if not to_try(found, TUNED[kind][1]) else "at an end"
            rows.append([arm, ", ".join(cells), f"{weight(best):g}, {inside}"])
    if not rows:
        return ""
    plain = values(lines, KD, MIDDLE, stage="tuning")
    beside = f" (KD alone: {mean(plain)})" if plain else ""
    return (
        f"Weights on the validation split, width {MIDDLE}, micro AUPRC{beside}:\n\n"
        + table(["arm", "weight: micro AUPRC", "best"], rows)
    )  # fmt: skip


def _arms(lines: Sequence[Line]) -> str:
    rows = []
    for width in WIDTHS:
        for arm in ARMS:
            found = values(lines, arm, width)
            if not found:
                continue
            against = "labels" if arm == KD else KD
            cells = [f"width {width}: {arm}", str(len(found)), mean(found)]
            cells += compared(found, values(lines, against, width)) if arm != "labels" else ["", ""]
            for metric in ("micro", "mAP"):
                of_metric = values(lines, arm, width, metric)
                cells.append(mean(of_metric))
                cells += compared(of_metric, values(lines, against, width, metric))[:1] if arm != "labels" else [""]
            rows.append(cells)
    header = ["student: arm", "runs", "micro AUPRC", "difference", "by fold", "AP", "difference", "mAP", "difference"]
    return "KD against labels, the others against KD:\n\n" + table(header, rows) if rows else ""


def _lead(lines: Sequence[Line]) -> str:
    rows = []
    for called, widths in (*((f"width {width}", (width,)) for width in WIDTHS), ("all", WIDTHS)):
        by_arm = {
            arm: {(f"{fold}, {width}", seed): value for width in widths
                  for (fold, seed), value in values(lines, arm, width).items()}
            for arm in ARMS
        }  # fmt: skip
        sp, iusp = by_arm["KD + SP"], by_arm["KD + IUSP"]
        difference = compared(iusp, sp)[0]
        if difference:
            pairs = str(len(paired(iusp, sp)))
            rows.append([called, pairs, difference, *(_ratio(iusp, sp, by_arm[base]) for base in ("labels", KD))])
    header = ["student", "pairs", "IUSP - SP, micro AUPRC", "ratio, base labels", "ratio, base KD"]
    return "The seed paper's ratio is .271 to 1.224:\n\n" + table(header, rows) if rows else ""


def _ratio(iusp: Values, sp: Values, base: Values) -> str:
    """(IUSP - base) / (SP - base) - 1 of means over the same pairs; said to be none where SP gains nothing."""
    known = iusp.keys() & sp.keys() & base.keys()
    gains = [sum(arm[key] - base[key] for key in known) for arm in (iusp, sp)]
    if not known:
        return ""
    return f"{gains[0] / gains[1] - 1:+.3f}" if gains[1] > 0 else "none: SP gains nothing"


def _variants(lines: Sequence[Line]) -> str:
    rows = []
    for name, variant in VARIANTS.items():
        found = values(lines, name, MIDDLE, stage="variant")
        if found:
            ours = values(lines, "KD + SP" if variant.term == "sp" else "KD + IUSP", MIDDLE)
            plain = values(lines, KD, MIDDLE)
            rows.append([name, str(len(found)), mean(found), *compared(found, ours), compared(found, plain)[0]])
    header = ["other definition", "runs", "micro AUPRC", "less ours", "by fold", "less KD"]
    return f"Other definitions, from exact features, width {MIDDLE}:\n\n" + table(header, rows) if rows else ""


def plan(sizes: Sizes, names: Sequence[str], nets: Sequence[str]) -> str:
    """How many runs there are, and seconds of one core that they take."""
    lines: list[str] = []
    total = 0.0
    for name in names:
        for net in nets:
            folds = 1 if name == "sonyc" else sizes.folds
            made = folds * (2 * sizes.teacher_steps * TEACHER_MS[net] + sizes.views * 4 * sizes.pool * VIEW_MS) / 1000
            here = kinds(net, name)
            tuned = sizes.tuning_seeds * (1 + 5 * len(here))
            runs = dict.fromkeys(WIDTHS, len(ARMS) * folds * sizes.seeds)
            runs[MIDDLE] += len(VARIANTS) * folds * min(sizes.seeds, sizes.variant_seeds) if "published" in here else 0
            trained = sum(count * STEP_MS[net][width] for width, count in runs.items()) * sizes.steps / 1000
            seconds = made + tuned * STEP_MS[net][MIDDLE] * sizes.steps / 1000 + trained
            lines.append(f"{name}, {net} frames: {folds} folds to prepare, about {tuned} runs to tune, "
                         f"{sum(runs.values())} runs, {seconds:,.0f} s")  # fmt: skip
            total += seconds
    return "\n".join([*lines, f"in all {total:,.0f} s of one core"])


# SONYC-UST


def sonyc_data(folder: Path, split: str, out: Path) -> Data:
    """SONYC-UST's coarse classes: the clips of train, and those of a split that the team agreed on.

    :raises SourceError: no annotations, no audio of a clip, no agreed clip of the split, too few training sensors.
    """
    tables = [folder / name for name in ("annotations.csv", "annotations-dev.csv")]
    found = next((path for path in tables if path.is_file()), None)
    if found is None:
        raise SourceError(f"{folder}: no annotations.csv and no annotations-dev.csv; give the folder of the download")
    said = targets(read_annotations(str(found)))
    rows = read_table(str(found), "annotations").table
    sensors = rows.column("sensor_id" if "sensor_id" in rows.column_names else FILE).to_pylist()
    tuning = _tuned_on([sensors[row] for row, own in zip(said.rows, said.splits, strict=True) if own == "train"])
    if not tuning or (split, True) not in zip(said.splits, said.agreed.tolist(), strict=True):
        what = f"agreed clip of the split {split}" if tuning else "two sensors in the split train, one to tune on"
        raise SourceError(f"{found}: no {what}; the splits in it are {', '.join(sorted(set(said.splits)))}")
    lines: list[list[Any]] = []
    for file, own, agreed, row, there in zip(
        said.files, said.splits, said.agreed.tolist(), said.rows.tolist(), coarse_of(said.tags), strict=True
    ):
        if own != "train" and not (own == split and agreed):
            continue
        path = next((each for each in (f"audio/{file}", f"{own}/{file}", file) if (folder / each).is_file()), None)
        if path is None:
            raise SourceError(f"{folder}: no {file} under audio/ or {own}/; unpack the audio there")
        fold = own if own == split else ("tuning" if sensors[row] in tuning else "train")
        lines.append([path, ";".join(np.array(COARSE)[there].tolist()), fold, len(lines)])
    manifest = out / "sonyc" / scenes.MANIFEST
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with manifest.open("w", newline="", encoding="utf-8") as written:
        csv.writer(written).writerows([["path", "label", "fold", "number"], *lines])
    return Data("sonyc", str(manifest), str(folder), (split, "train", "tuning"), 10.0, MIDDLE)


def _tuned_on(sensors: Sequence[Any]) -> set[Any]:
    """The sensors that weights are tuned on, of those of all training clips: for a fifth of these, never all."""
    counts = Counter(sensors)
    by_hash = sorted(counts, key=lambda sensor: hashlib.blake2b(str(sensor).encode(), digest_size=8).digest())
    chosen: set[Any] = set()
    for sensor in by_hash[:-1]:
        if sum(counts[each] for each in chosen) < len(sensors) / 5:
            chosen.add(sensor)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10: labels.csv (path, label, fold) and audio/")
    parser.add_argument("--sonyc", type=Path, help="folder of SONYC-UST: annotations.csv and audio/ or SPLIT/")
    parser.add_argument("--split", choices=("validate", "test"), default="validate", help="SONYC-UST's, to measure on")
    parser.add_argument("--data", help="another labelled data set: a manifest")
    parser.add_argument("--audio-root", help="folder that its paths are relative to")
    parser.add_argument("--label-column", default="label", help="its column of labels, several separated by ;")
    parser.add_argument("--fold-column", help="its column of folds; without it folds are made by a hash of the path")
    parser.add_argument("--clip-seconds", type=float, default=5.0, help="length of its clips")
    parser.add_argument("--frames", choices=(*NETS, "both"), default="both", help="frames of the models")
    parser.add_argument("--out", type=Path, help="folder for teachers, stores and runs")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="small pools, few steps, one fold, two seeds")
    for name in ("steps", "seeds", "folds", "views", "teacher-steps"):
        parser.add_argument(f"--{name}", type=int, help=f"instead of {getattr(Sizes(), name.replace('-', '_'))}")
    parser.add_argument("--report", action="store_true", help="only the tables, of the runs that are there")
    parser.add_argument(
        "--plan", action="store_true", help="only how many runs there are, and about how long they take"
    )
    given = parser.parse_args(arguments)
    names = ("steps", "seeds", "folds", "views", "teacher_steps")
    own = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    sizes = replace(QUICK if given.quick else Sizes(), **own)
    nets = list(NETS) if given.frames == "both" else [given.frames]
    if given.plan:
        asked = [name for name in ("sonyc", "data") if getattr(given, name)]
        print(plan(sizes, asked + (list(scenes.KINDS) if given.esc10 or not asked else []), nets))
        return
    if given.out is None or not (given.report or given.esc10 or given.data or given.sonyc):
        parser.error("give --out, and --esc10, --sonyc or --data")
    try:
        if not given.report:
            data = ablation.esc10_data(given.esc10, given.out, sizes) if given.esc10 else []
            if given.sonyc:
                data.append(sonyc_data(given.sonyc, given.split, given.out))
            if given.data:
                columns = given.label_column, given.fold_column
                data.append(own_data(given.data, given.audio_root, *columns, given.clip_seconds, given.out))
            Iusp(given.out, sizes, data, nets, given.workers).run()
        print(report(read_lines(given.out), settings_of(given.out)))
    except LogitstoreError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
