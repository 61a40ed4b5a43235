"""``logitstore evaluate``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from logitstore.cli.command import again, answer, command, next_steps
from logitstore.errors import UsageError
from logitstore.jobs.options import EvaluateOptions
from logitstore.options import JsonOptions, Option, SpreadsheetOptions
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logitstore.evaluation.mapping import MapUse
    from logitstore.evaluation.metrics import Metrics
    from logitstore.evaluation.results import Evaluation
    from logitstore.evaluation.sonyc import SonycEvaluation
    from logitstore.jobs.events import EventEvaluation

_MOST_NAMED = 10
_CLIPS = "labelled clips"
_LEAST_NAME = 12  # columns of a name that are kept in however narrow a terminal


@dataclass(frozen=True, kw_only=True)
class _Evaluate(JsonOptions, SpreadsheetOptions, EvaluateOptions):
    per_class: Annotated[
        bool, Option("Show a table of classes too, of the average where there are several.", group="Output")
    ] = False
    csv: Annotated[
        str | None,
        Option("Write metrics.csv, classes.csv and calibration.csv into this folder.", group="Output", metavar="DIR"),
    ] = None
    png: Annotated[
        str | None,
        Option("Draw how well probabilities fit the labels; needs the extra `report`.", group="Output", metavar="FILE"),
    ] = None


@command("evaluate", _Evaluate)
def evaluate_command(options: _Evaluate) -> None:
    """Score teachers, students and their ensemble, or a store's targets, on the labels of MANIFEST.

    Labels are matched to classes by name, or by any of index, MID and display name where the classes are AudioSet's.
    What is scored is a row of MANIFEST, a segment of a file where it has `start` and `duration`; the scores of a row
    that is cut into several clips are averaged. --stored scores the mean over the stored views; without MANIFEST it
    scores each clip of the store, with the labels in the store's own clip table. Beside --teacher, both are scored on
    the rows that both have. --map scores labels that are no classes: by the maximum of the classes that they stand for,
    or by their sum.

    --measure sonyc gives the official measure of SONYC-UST, which is no average precision, beside the others: of
    teachers heard on its audio, or of a file of predictions alone.

    With --events MANIFEST has strong labels, and what is measured is how well teachers that say when find the events.

    \b
    Example:
      logitstore evaluate labels.csv --audio-root audio --label-column label --where "fold = 5" \\
          --teacher runs/t1 --teacher runs/t2 --per-class --png calibration.png
      logitstore evaluate --stored store --label-column label --csv scores
      logitstore evaluate --measure sonyc --annotations annotations.csv --predictions predictions.csv
      logitstore evaluate strong.tsv --events --audio-root audio --teacher runs/crnn
    """
    if options.events:
        _of_events(options)
        return
    if options.predictions is not None:
        _of_predictions(options)
        return
    from logitstore.cli.progress import of_total
    from logitstore.jobs.evaluate import evaluate

    if options.write_predictions is not None:
        from logitstore.files import check_out

        check_out(options.write_predictions, "--write-predictions")
    if options.png is not None:
        from logitstore.evaluation.calibration import check_png

        check_png(options.png)
    if options.csv is not None:
        from logitstore.evaluation.results import make_folder

        make_folder(options.csv)
    with of_total("scoring", "clips") as told:
        found = evaluate(options, told)
    if options.csv is not None:
        from logitstore.evaluation.results import write_csv

        write_csv(found, options.csv, spreadsheet=options.spreadsheet_safe)
    if options.png is not None:
        from logitstore.evaluation.calibration import draw

        calibrations = [(name, metrics.calibration) for name, metrics in found.named()]
        draw(calibrations, options.png, f"Calibration on {found.rows:,} {_unit(found)} x {len(found.classes)} classes")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    answer(options, found.to_dict(), render(found, per_class=options.per_class, width=width))
    if not options.per_class:
        next_steps(f"{again()} --per-class")


def _of_events(options: _Evaluate) -> None:
    """How well events are found."""
    from logitstore.cli.progress import of_total
    from logitstore.jobs.events import evaluate_events

    for name in ("csv", "png"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is of clips; --events has --json")
    with of_total("hearing", "windows") as told:
        found = evaluate_events(options, told)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    answer(options, found.to_dict(), render_events(found, per_class=options.per_class, width=width))
    if not options.per_class:
        next_steps(f"{again()} --per-class")


def render_events(found: EventEvaluation, *, per_class: bool = False, width: int | None = None) -> str:
    """A table of event F1 and PSDS, and what they were measured on; arguments as of :func:`render`."""
    from logitstore.evaluation.events import COLLAR, OFFSET_SHARE

    name = found.teachers[0] if len(found.teachers) == 1 else f"{len(found.teachers)} teachers together"
    numbers = (found.f1.macro, found.f1.micro, found.psds["psds1"], found.psds["psds2"])
    lines = [
        *_table(("teacher", "event F1", "micro", "PSDS 1", "PSDS 2"), [(name, *map(_number, numbers))], width),
        "",
        f"{_counted(found.events, 'event')} in {_counted(found.files, 'file')} of {found.seconds:,.1f} s; "
        f"{found.found:,} were found at a threshold of {found.threshold:g} and a median filter of "
        f"{found.median_filter:g} s",
        f"event F1 is the mean over classes, of onsets to {1000 * COLLAR:g} ms and offsets to that or "
        f"{OFFSET_SHARE:.0%} of an event; PSDS is of all thresholds",
    ]
    if found.failures:
        lines.append(f"left out: {len(found.failures)} file{'s' * (len(found.failures) > 1)} that could not be read:")
        lines += [f"  {path}: {reason}" for path, reason in found.failures[:_MOST_NAMED]]
        lines += ["  …"] if len(found.failures) > _MOST_NAMED else []
    if per_class:
        rows: list[tuple[str, ...]] = [
            (
                each.name,
                f"{each.events:,}",
                f"{each.hits:,}",
                f"{each.false:,}",
                _number(each.f1 if each.events else None),
            )
            for each in sorted(found.f1.by_class, key=lambda each: (-each.f1, each.name))
        ]
        lines += ["", *_table(("class", "events", "found", "false", "event F1"), rows, width)]
    return in_lines(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _of_predictions(options: _Evaluate) -> None:
    """The official measure of a file of predictions."""
    from logitstore.jobs.evaluate import evaluate_predictions

    for name in ("csv", "png"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is for teachers and stores; --predictions have --json")
    found = evaluate_predictions(options)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    answer(options, found.to_dict(), in_lines(_official((found,), width, per_class=options.per_class)))
    if not options.per_class:
        next_steps(f"{again()} --per-class")


def _official(found: Sequence[SonycEvaluation], width: int | None, *, per_class: bool) -> list[str]:
    """The official measure of SONYC-UST, and beside it what else its level is measured by."""
    measured = [(each.scored, of) for each in found for of in each.levels]
    header = ("SONYC-UST", "level", "micro AUPRC", "macro AUPRC", "micro F1", "micro AP", "macro AP", "LWLRAP")
    rows = [
        (
            name,
            of.level,
            *map(_number, (of.micro.auprc, of.macro.auprc, of.micro_f1)),
            *map(_number, (of.average_precision_micro, of.average_precision_macro, of.lwlrap)),
        )
        for name, of in measured
    ]
    first = measured[0][1]
    lines = [
        *_table(header, rows, width),
        "",
        f"{first.clips:,} verified clips of the split {first.split}; AUPRC and F1 (at 0.5) are the task's official "
        "measure, AP is average precision",
    ]
    for name, of in measured:
        bounds = (of.micro.least, of.micro.largest, of.macro.least, of.macro.largest)
        lines.append(
            "{}, {}: by the order of points of equal recall micro AUPRC may be {:.4f} to {:.4f}, macro {:.4f} to "
            "{:.4f}".format(name, of.level, *bounds)
        )
    if first.without_positives:
        lines.append(
            f"without positives, so with an AUPRC of 0 in the macro mean: {', '.join(first.without_positives)}"
        )
    if per_class:
        for name, of in measured:
            classes = [
                (each.name, f"{each.positives:,}", *map(_number, (each.area.auprc, each.area.least, each.area.largest)))
                for each in of.by_class
            ]
            lines += ["", f"classes, {name}, {of.level}:"]
            lines += _table(("class", "positives", "AUPRC", "least", "largest"), classes, width)
    return lines


def render(found: Evaluation, *, per_class: bool = False, width: int | None = None) -> str:
    """A table of the metrics and what they were measured on.

    :param per_class: whether tables of classes follow. :param width: columns to keep to; None for any.
    """
    named = found.named()
    rows = [(name, *_numbers(metrics)) for name, metrics in named]
    lines = _table(("teacher", "mAP", "micro AUPRC", "macro AUPRC", "AUC", "d-prime", "ECE"), rows, width)
    metrics = named[0][1]
    over = f"{found.clip_seconds:g} s at {found.sample_rate} Hz" if found.members else f"{found.clip_seconds:g} s"
    clips = "" if _unit(found) == _CLIPS else f" in {found.clips:,} clips"
    lines += [
        "",
        f"{found.rows:,} {_unit(found)}{clips} of {over}; "
        f"{metrics.classes} classes, {metrics.left_out} left out for having no positives",
        "AUPRC is average precision (no interpolation), so the macro AUPRC is the mAP",
    ]
    if found.map is not None:
        lines += _about_map(found.map)
    clipped = max(metrics.d_prime_clipped for _, metrics in named)
    if clipped:
        most = "1 class" if clipped == 1 else f"up to {clipped} classes"
        lines.append(f"d-prime: an AUC of 1 or 0 is taken half a count short of it, in {most}")
    if found.stored is not None:
        lines += _about_store(found)
    if found.failures:
        count = len(found.failures)
        lines.append(f"left out: {count} clip{'s' * (count > 1)} that could not be decoded:")
        lines += [f"  {path}: {reason}" for path, reason in found.failures[:_MOST_NAMED]]
        lines += ["  …"] if len(found.failures) > _MOST_NAMED else []
    if found.sonyc:
        lines += ["", *_official(found.sonyc, width, per_class=per_class)]
    if per_class:
        models = [each for each in named if each[0] not in dict(found.members)] if found.ensemble else named
        for name, metrics in models:
            lines += ["", f"classes, {name}:", *_class_table(found, metrics, width)]
    return in_lines(lines)


def _unit(found: Evaluation) -> str:
    """What was scored: rows of the manifest, or the clips of a store that has the labels itself."""
    return "labelled rows" if found.members or found.rows != found.clips else _CLIPS


def _about_store(found: Evaluation) -> list[str]:
    stored = found.stored
    assert stored is not None
    lines = []
    if stored.rows_of_several_clips:
        lines.append(
            f"targets: {stored.rows_of_several_clips:,} of {stored.rows:,} rows are longer than a clip of the store, "
            "and scored on the mean of their clips"
        )
    if stored.spread is not None:
        scores = [view.mAP for view in stored.views]
        lines.append(
            f"targets: the mean of {len(scores)} views; one view alone has a mAP of {sum(scores) / len(scores):.4f} "
            f"± {stored.spread:.4f} ({min(scores):.4f} to {max(scores):.4f})"
        )
    left_out = [
        (stored.clips_failed, "clip", " of the store that failed and so without targets"),
        (stored.clips_without_labels, "clip", " of the store without labels"),
        (stored.rows_without_clips, "labelled row", " without targets in the store"),
    ]
    lines += [f"left out: {count:,} {what}{'s' * (count > 1)}{why}" for count, what, why in left_out if count]
    return lines


def _about_map(used: MapUse) -> list[str]:
    lines = [f"labels by the map {used.file}: {len(used.labels)} are scored"]
    if used.unmapped:
        names = ", ".join(used.unmapped[:_MOST_NAMED]) + (", …" if len(used.unmapped) > _MOST_NAMED else "")
        lines.append(f"left out: {len(used.unmapped)} label{'s' * (len(used.unmapped) > 1)} without a class: {names}")
    if used.rows_left_out:
        lines.append(f"left out: {used.rows_left_out:,} row{'s' * (used.rows_left_out > 1)} with no other label")
    return lines


def _class_table(found: Evaluation, metrics: Metrics, width: int | None) -> list[str]:
    """One line a class, the best average precision first."""
    classes = sorted(found.by_class(metrics), key=lambda row: (-row["average_precision"], row["class"]))
    names = ("average_precision", "auc", "d_prime", "mean_score", "best_f1", "threshold")
    rows = [(row["class"], f"{row['positives']:,}", *(_number(row[name]) for name in names)) for row in classes]
    return _table(("class", "positives", "AP", "AUC", "d-prime", "mean score", "best F1", "threshold"), rows, width)


def _numbers(metrics: Metrics) -> tuple[str, ...]:
    values = (metrics.mAP, metrics.micro_auprc, metrics.macro_auprc, metrics.mean_auc, metrics.d_prime)
    return tuple(map(_number, (*values, metrics.calibration.ece)))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """Aligned columns, the first to the left, the others to the right.

    Where the terminal is too narrow the names are cut at their start, and then the last columns left out.
    """
    from rich.cells import cell_len, set_cell_size

    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    if width is not None:
        while len(widths) > 2 and _LEAST_NAME + sum(widths[1:]) + 2 * len(widths[1:]) > width:
            widths.pop()
        widths[0] = min(widths[0], max(_LEAST_NAME, width - sum(widths[1:]) - 2 * len(widths[1:])))
    lines = []
    for first, *cells in (header, *rows):
        name = first if cell_len(first) <= widths[0] else "…" + first[len(first) - widths[0] + 1 :]
        padded = [f"{cell:>{size}}" for cell, size in zip(cells, widths[1:], strict=False)]
        lines.append("  ".join([set_cell_size(name, widths[0]), *padded]))
    return lines
