"""The tables of the ablation, from its finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.arms import ARMS, EXPERIMENTS, REFERENCE, WEIGHTS, Experiment
from benchmarks.intervals import CONFIDENCE, Interval, paired, t_interval
from benchmarks.read import table
from logitstore.evaluation.metrics import ESTIMATOR

MARGIN = 0.5  # mAP points within which two arms count as equivalent

Line = Mapping[str, Any]
Values = dict[tuple[str, int], float]  # (fold, seed) -> points


def report(lines: Sequence[Line], settings: Mapping[str, Any]) -> str:
    """Every table, Markdown."""
    sizes = settings["sizes"]
    parts = [
        f"{sizes['folds']} held-out folds, up to {sizes['seeds']} seeds, students of {sizes['steps']} steps of 32, "
        f"{sizes['views']} stored views; code {settings['code']}. Values are means in points (0 to 100), differences "
        f"means over pairs (fold, seed) ± half of the {100 * CONFIDENCE:.0f} % t-interval, beside them those of each "
        f"held-out fold. mAP and micro AUPRC are {ESTIMATOR.split(' (')[0]}.\n"
    ]
    for data in settings["data"]:
        name = data["name"]
        of_data = [line for line in lines if line["data"] == name]
        parts.append(f"## {name}\n\n{_prepared(of_data)}")
        for experiment in sorted(EXPERIMENTS, key=lambda each: each.number):
            tuning = _tuning(of_data) if experiment.metric == "micro" else ""
            parts.append(
                f"### {experiment.number}. {experiment.title[0].upper()}{experiment.title[1:]} ({name})\n\n"
                + tuning + _rows(experiment, of_data, data["main_width"])
            )  # fmt: skip
            if experiment.number == 2:
                parts.append(_equivalence(of_data, data["main_width"]))
    runs = [line for line in lines if line["stage"] != "prepare"]
    seconds = sum(line["seconds"] for line in lines)
    parts.append(f"{len(runs)} runs; {seconds:,.0f} s of processes of one thread, the preparation included.\n")
    return "\n".join(parts)


def values(lines: Sequence[Line], arm: str, width: int, metric: str) -> Values:
    """A metric of every finished run of an arm, by (fold, seed)."""
    return {
        (line["fold"], line["seed"]): line[metric]
        for line in lines
        if line["stage"] == "run" and line["arm"] == arm and line["width"] == width
    }


def _rows(experiment: Experiment, lines: Sequence[Line], main: int) -> str:
    metrics = ("micro", "micro_trapezoid", "mAP") if experiment.metric == "micro" else ("mAP",)
    header = ["student: arm", "runs"]
    for metric in metrics:
        header += [_NAMES[metric], "difference"]
        header += ["by fold"] if metric == metrics[0] else []
    rows = []
    for width, arm, against in experiment.cells(main):
        first = values(lines, arm, width, metrics[0])
        if not first:
            continue
        called = experiment.called if arm == REFERENCE else arm
        beside = f", against {against}" if against not in (None, experiment.rows[0][0]) else ""
        cells = [f"width {width}: {called}{beside}"]
        cells.append(str(len(first)))
        for metric in metrics:
            found = values(lines, arm, width, metric)
            cells.append(f"{sum(found.values()) / len(found):.1f}")
            difference = {} if against is None else values(lines, against, width, metric)
            cells.append(_shown(paired(found, difference)) if difference else "")
            if metric == metrics[0]:
                cells.append(_by_fold(found, difference) if difference else "")
        rows.append(cells)
    return table(header, rows) if rows else "No runs yet.\n"


_NAMES = {"mAP": "mAP", "micro": "micro AUPRC", "micro_trapezoid": "trapezoidal"}


def _shown(differences: Sequence[float]) -> str:
    interval = t_interval(differences)
    return f"{interval.mean:+.2f}" + (f" ± {interval.half:.2f}" if interval.count > 1 else "")


def _by_fold(found: Values, against: Values) -> str:
    folds = sorted({fold for fold, _ in found.keys() & against.keys()})
    means = []
    for fold in folds:
        of_fold = [found[key] - against[key] for key in found.keys() & against.keys() if key[0] == fold]
        means.append(f"{sum(of_fold) / len(of_fold):+.1f}")
    return ", ".join(means)


def equivalence(lines: Sequence[Line], width: int) -> Interval | None:
    """mAP of students of the store (8 bits, default K) less those of exact float32 targets; None before two pairs."""
    differences = paired(values(lines, REFERENCE, width, "mAP"), values(lines, "exact targets", width, "mAP"))
    return t_interval(differences) if len(differences) > 1 else None


def _equivalence(lines: Sequence[Line], width: int) -> str:
    interval = equivalence(lines, width)
    if interval is None:
        return "Equivalence: too few runs.\n"
    inside = "lies inside" if interval.inside(MARGIN) else "does not lie inside"
    return (
        f"Students of the store (8 bits, default K) less students of exact float32 targets: {interval.mean:+.2f} mAP, "
        f"95 % interval [{interval.low:+.2f}, {interval.high:+.2f}] of {interval.count} pairs: it {inside} ±{MARGIN}.\n"
    )


def _prepared(lines: Sequence[Line]) -> str:
    rows = [
        [line["fold"], str(line["pool"]), str(line["test"]), *(f"{value:.1f}" for value in line["teachers"]),
         f"{line['store']['masks']:.0f}", f"{line['seconds']:.0f}"]
        for line in sorted(lines, key=lambda line: str(line["fold"])) if line["stage"] == "prepare"
    ]  # fmt: skip
    if not rows:
        return "Nothing prepared yet.\n"
    members = [f"member {number}" for number in range(1, len(rows[0]) - 5)]
    header = ["held-out fold", "pool clips", "test clips", "ensemble mAP", *members, "bytes a view", "s to prepare"]
    return table(header, rows)


def _tuning(lines: Sequence[Line]) -> str:
    names = {arm.similarity: name for name, arm in ARMS.items() if arm.similarity is not None}
    rows = []
    for similarity, weights in WEIGHTS.items():
        for weight in weights:
            found = _tuning_values(lines, names[similarity], weight)
            if found:
                plain = _tuning_values(lines, REFERENCE, None)
                mean = sum(found.values()) / len(found)
                rows.append([f"{names[similarity]}, weight {weight:g}", str(len(found)), f"{mean:.1f}",
                             _shown(paired(found, plain))])  # fmt: skip
    return f"On the validation split:\n\n{table(['arm', 'runs', 'micro AUPRC', 'difference'], rows)}\n" if rows else ""


def _tuning_values(lines: Sequence[Line], arm: str, weight: float | None) -> Values:
    return {
        (line["fold"], line["seed"]): line["micro"]
        for line in lines
        if line["stage"] == "tuning" and line["arm"] == arm and line["weight"] == weight
    }
