"""A learning curve in the terminal: the loss in training and that of held-out clips, against steps."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from logitstore.training.runlog import LOG_NAME

#: Rows and, at most, columns of the drawing, without its axes.
ROWS, COLUMNS = 10, 64
_LOGARITHMIC = 8.0  # times the least value: above that, the axis is logarithmic
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of braille, by row and column of a cell
_LEAST = 2  # steps that make a curve


@dataclass
class Curve:
    """The losses of a training: (step, loss) of every step, and of every evaluation on held-out clips."""

    training: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take what a record of the log says; a loss that is no number is left out."""
        step = record.get("step")
        if not isinstance(step, int):
            return
        if record.get("event") == "step" and _is_number(record.get("loss")):
            self.training.append((step + 1, float(record["loss"])))
        if record.get("event") == "epoch" and _is_number(record.get("held_out_loss")):
            self.held_out.append((step, float(record["held_out_loss"])))


def of_run(run: str | Path) -> Curve:
    """The curve that the log of a run holds; an empty one where there is no log."""
    curve = Curve()
    try:
        with (Path(run) / LOG_NAME).open(encoding="utf-8", errors="replace") as lines:
            for record in _records(lines):
                curve.add(record)
    except OSError:
        pass
    return curve


def _records(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def drawn(curve: Curve, width: int, *, ascii_only: bool = False, rows: int = ROWS) -> list[str]:
    """The lines of the drawing; none of fewer than two steps, or where there is no room.

    :param width: columns of the terminal. :param ascii_only: without braille, where the terminal's encoding has none.
    """
    if len(curve.training) < _LEAST:
        return []
    first, last = curve.training[0][0], curve.training[-1][0]
    values = [value for _, value in curve.held_out]
    labels = 8
    columns = min(COLUMNS, width - labels - 3)
    if columns < 16 or last <= first:
        return []
    across = columns if ascii_only else 2 * columns
    binned = _means(curve.training, first, last, across)
    values += [value for _, value in binned]
    low, high = min(values), max(values)
    bend = math.log if low > 0 and high / low > _LOGARITHMIC else float
    bottom, top = bend(low), bend(high)
    top = top if top > bottom else bottom + 1
    down = rows if ascii_only else 4 * rows

    def row(value: float) -> int:
        return min(down - 1, int((top - bend(value)) / (top - bottom) * down))

    cells = _line(binned, row, columns, rows, ascii_only)
    for step, value in curve.held_out:
        at = min(columns - 1, max(0, int((step - first) / (last - first) * columns)))
        cells[row(value) * rows // down][at] = "o"
    unbend = math.exp if bend is math.log else float
    corner, wall, tick, floor = ("+", "|", "+", "-") if ascii_only else ("└", "│", "┤", "─")
    lines = []
    for number, cell in enumerate(cells):
        marked = number in (0, rows // 2, rows - 1)
        value = unbend(top - (top - bottom) * number / (rows - 1))
        lines.append(f"{_short(value) if marked else '':>{labels}} {tick if marked else wall}{''.join(cell).rstrip()}")
    lines.append(f"{'':>{labels}} {corner}{floor * columns}")
    ends = f"{first:,}", f"{(first + last) // 2:,}", f"{last:,} steps"
    room = columns - sum(map(len, ends))
    lines.append(f"{'':>{labels + 2}}{ends[0]}{' ' * (room // 2)}{ends[1]}{' ' * (room - room // 2)}{ends[2]}")
    loss = "loss" + (", logarithmic" if bend is math.log else "")
    held = "; o held-out clips" if curve.held_out else ""
    return [f"{loss}: {'*' if ascii_only else '⣀⠤⠒'} training{held}", *lines]


def _means(points: list[tuple[int, float]], first: int, last: int, columns: int) -> list[tuple[int, float]]:
    """(column, mean of the values in it), for the columns that have any."""
    steps = [step for step, _ in points]
    edges = [first + (last - first) * column / columns for column in range(columns)] + [last + 1]
    places = [bisect_left(steps, edge) for edge in edges]
    found = []
    for column, (start, stop) in enumerate(pairwise(places)):
        if stop > start:
            found.append((column, sum(value for _, value in points[start:stop]) / (stop - start)))
    return found


def _everywhere(binned: list[tuple[int, float]]) -> Iterable[tuple[int, float]]:
    """A value of every column, on straight lines between those that there are."""
    yield binned[0]
    for (left, value), (right, following) in pairwise(binned):
        for column in range(left + 1, right + 1):
            yield column, value + (following - value) * (column - left) / (right - left)


def _line(binned: list[tuple[int, float]], row: Any, columns: int, rows: int, ascii_only: bool) -> list[list[str]]:
    """The cells of a line through values, each joined to the one before it."""
    cells = [[" "] * columns for _ in range(rows)]
    dots = [[0] * columns for _ in range(rows)]
    before = row(binned[0][1])
    for column, value in _everywhere(binned):
        y = row(value)
        start = before + (1 if y > before else -1 if y < before else 0)
        for each in range(min(start, y), max(start, y) + 1):
            if ascii_only:
                cells[each][column] = "*"
            else:
                dots[each // 4][column // 2] |= _DOTS[each % 4][column % 2]
        before = y
    if not ascii_only:
        cells = [[chr(0x2800 + dot) if dot else " " for dot in line] for line in dots]
    return cells


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.3g}"
