"""The tables of the ablation, from its finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.arms import EXPERIMENTS, REFERENCE, Experiment
from benchmarks.intervals import CONFIDENCE, Interval, paired, t_interval
from benchmarks.tables import table
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
        parts.append(f"## {name}\n\n{prepared(of_data)}")
        for experiment in sorted(EXPERIMENTS, key=lambda each: each.number):
            parts.append(
                f"### {experiment.number}. {experiment.title[0].upper()}{experiment.title[1:]} ({name})\n\n"
                + _rows(experiment, of_data, data["main_width"])
            )
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
    rows = []
    for width, arm, against in experiment.cells(main):
        found = values(lines, arm, width, "mAP")
        if not found:
            continue
        called = experiment.called if arm == REFERENCE else arm
        beside = f", against {against}" if against not in (None, experiment.rows[0][0]) else ""
        difference = {} if against is None else values(lines, against, width, "mAP")
        rows.append([f"width {width}: {called}{beside}", str(len(found)), mean(found), *compared(found, difference)])
    return table(["student: arm", "runs", "mAP", "difference", "by fold"], rows) if rows else "No runs yet.\n"


def mean(found: Values) -> str:
    """The mean of some runs."""
    return f"{sum(found.values()) / len(found):.1f}"


def compared(found: Values, against: Values) -> list[str]:
    """The paired difference with its interval, and its mean in each held-out fold; empty cells without any pair."""
    pairs = found.keys() & against.keys()
    if not pairs:
        return ["", ""]
    interval = t_interval(paired(found, against))
    shown = f"{interval.mean:+.2f}" + (f" ± {interval.half:.2f}" if interval.count > 1 else "")
    means = []
    for fold in sorted({fold for fold, _ in pairs}):
        of_fold = [found[key] - against[key] for key in pairs if key[0] == fold]
        means.append(f"{sum(of_fold) / len(of_fold):+.1f}")
    return [shown, ", ".join(means)]


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


def prepared(lines: Sequence[Line]) -> str:
    """Teachers, clips and bytes of every held-out fold that is ready."""
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
