"""Charts as SVG that is written by hand: bars, histograms, lines, a matrix. Colours are the page's, for light and dark.

Every chart is 360 units wide, as a phone is, and has its values as a table beside it for whoever cannot see it. Texts
are escaped here: nothing that a store says can be anything but text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.jobs.report.page import Chart, Table
from logitstore.texts import one_line

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 38  # around what is plotted, for ticks and their names
_HEIGHT = 200
_LABEL = 128  # for the names of bars
_LINES = 6  # kinds of line that page.css has
_MOST_POINTS = 240

Written = Callable[[float], str]


def bars(
    title: str, says: str, rows: Sequence[tuple[str, float]], what: str, form: str = ",.0f", name: str = "class"
) -> Chart:
    """Horizontal bars, one a row: (name, value of at least 0).

    :param what: what the values are. :param form: how they are written. :param name: what the names are of.
    """
    step, top = 22, 4
    most = max([value for _, value in rows] or [0]) or 1
    room = WIDTH - _LABEL - 62
    parts = []
    for number, (label, value) in enumerate(rows):
        y = top + number * step
        long = max(1.0, room * value / most) if value else 0
        parts += [
            f"<g>{_tip(f'{label}: {value:{form}}')}"
            + _text(_short(label, 20), _LABEL - 8, y + 14, "end", "name")
            + f'<rect class="fill s1" x="{_LABEL}" y="{y + 3}" width="{long:.1f}" height="{step - 7}" rx="2"/>'
            + _text(f"{value:{form}}", _LABEL + long + 6, y + 14, "start", "value")
            + "</g>"
        ]
    svg = _svg(title, says, top * 2 + max(1, len(rows)) * step, parts)
    return Chart(title, says, svg, Table(title, (name, what), ("", form), rows))


def histogram(
    title: str,
    says: str,
    edges: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    axis: str,
    *,
    what: str = "views",
    form: str = ",.3g",
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Counts between edges that rise, ``len(edges) == len(counts) + 1``.

    :param axis: what the edges are, with the unit. :param marks: values to point at, and what they are.
    """
    low, high = float(edges[0]), float(edges[-1])
    x, y = (
        _scale(low, high, _LEFT, WIDTH - _RIGHT),
        _scale(0, _over(float(counts.max(initial=1))), _HEIGHT - _BOTTOM, _TOP),
    )
    parts = _axes(x, y, (low, high), (0, _over(float(counts.max(initial=1)))), axis, what)
    floor = _HEIGHT - _BOTTOM
    for left, right, value in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
        if value:
            at, to, top = x(left), x(right), min(y(value), floor - 1)
            parts.append(
                f'<rect class="fill s1" x="{at:.1f}" y="{top:.1f}" width="{max(0.8, to - at - 0.6):.1f}" '
                f'height="{floor - top:.1f}">{_tip(f"{left:{form}} to {right:{form}}: {value:,} {what}")}</rect>'
            )
    for value, name in marks:
        at = x(min(max(value, low), high))
        anchor = "start" if at < WIDTH * 0.6 else "end"
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{floor}"/>')
        parts.append(_text(name, at + (5 if anchor == "start" else -5), _TOP + 8, anchor, "marked"))
    shares = counts / max(1, counts.sum())
    rows = [
        (f"{left:{form}} to {right:{form}}", value, share)
        for left, right, value, share in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), shares.tolist(), strict=True
        )
        if value
    ]
    return Chart(
        title, says, _svg(title, says, _HEIGHT, parts), Table(title, (axis, what, "share"), ("", ",", ".1%"), rows)
    )


def lines(
    title: str,
    says: str,
    series: Sequence[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]],
    axis: str,
    what: str,
    *,
    log: bool = False,
    form: str = ".4g",
    least: float | None = None,
    most: float | None = None,
    points: bool = False,
) -> Chart:
    """Lines over a common axis: (name, x, y) each; values that are not finite are left out.

    :param log: whether y is logarithmic; values must then be above 0. :param least, most: what y holds at least.
    """
    kept = [(name, *_finite(xs, ys, log)) for name, xs, ys in series]
    every_x = np.concatenate([xs for _, xs, _ in kept] or [np.zeros(0)])
    every_y = np.concatenate([ys for _, _, ys in kept] or [np.zeros(0)])
    if not len(every_x):
        every_x, every_y = np.array([0.0, 1.0]), np.array([0.1, 1.0])
    x_ends = _apart(float(every_x.min()), float(every_x.max()))
    low = float(every_y.min()) if least is None else min(least, float(every_y.min()))
    high = float(every_y.max()) if most is None else max(most, float(every_y.max()))
    y_ends = (10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))) if log else (low, _over(high, low))
    y_ends = _apart(*y_ends)
    x = _scale(*x_ends, _LEFT, WIDTH - _RIGHT)
    y = _scale(*y_ends, _HEIGHT - _BOTTOM, _TOP, log)
    parts = _axes(x, y, x_ends, y_ends, axis, what, log)
    for number, (name, xs, ys) in enumerate(kept):
        spread = np.linspace(0, max(0, len(xs) - 1), min(len(xs), _MOST_POINTS))
        some = np.unique(spread.round().astype(int)).tolist()
        at = " ".join(f"{x(float(xs[i])):.1f},{y(float(ys[i])):.1f}" for i in some)
        style = f"s{number % _LINES + 1}"
        parts.append(f'<polyline class="line {style}" points="{at}">{_tip(name)}</polyline>')
        if points or len(xs) == 1:
            parts += [
                f'<circle class="fill {style}" cx="{x(float(xs[i])):.1f}" cy="{y(float(ys[i])):.1f}" r="2.6">'
                f"{_tip(f'{name}: {xs[i]:.6g}, {ys[i]:{form}}')}</circle>"
                for i in some
            ]
    rows = _values(kept)
    table = Table(title, (axis, *(name for name, _, _ in kept)), (",.6g", *(form for _ in kept)), rows)
    legend = [(f"s{number % _LINES + 1}", name) for number, (name, xs, _) in enumerate(kept) if len(xs)]
    legend = legend if len(kept) > 1 else []
    return Chart(title, says, _svg(title, says, _HEIGHT, parts), table, legend)


def matrix(title: str, says: str, names: Sequence[str], values: npt.NDArray[Any], form: str = ".3f") -> Chart:
    """A square of values of at least 0, darker for higher; what is not finite stays empty."""
    count = len(names)
    left, top = 92, 64
    side = min(56.0, (WIDTH - left - 4) / max(1, count))
    most = float(np.nanmax(values, initial=0)) if np.isfinite(values).any() else 0.0
    parts = []
    for row in range(count):
        parts.append(_text(_short(names[row], 14), left - 8, top + (row + 0.5) * side + 4, "end", "name"))
        at, under = left + (row + 0.5) * side, top - 8
        name = _text(_short(names[row], 12), at, under, "start", "name")
        parts.append(f'<g transform="rotate(-35 {at:.1f} {under})">{name}</g>')
        for column in range(count):
            value = float(values[row, column])
            if not math.isfinite(value):
                continue
            tip = _tip(f"{names[row]}, {names[column]}: {value:{form}}")
            place = f'x="{left + column * side + 1:.1f}" y="{top + row * side + 1:.1f}" width="{side - 2:.1f}"'
            strong = value / most if most else 0.0
            shade = f'fill-opacity="{0.08 + 0.5 * strong:.2f}"'
            parts.append(f'<g>{tip}<rect class="cell" {place} height="{side - 2:.1f}" rx="3" {shade}/>')
            if side >= 34:
                parts.append(
                    _text(
                        f"{value:{form}}", left + (column + 0.5) * side, top + (row + 0.5) * side + 4, "middle", "name"
                    )
                )
            parts.append("</g>")
    rows = [(name, *(_or_none(value) for value in values[at].tolist())) for at, name in enumerate(names)]
    table = Table(title, ("", *names), ("", *(form for _ in names)), rows)
    return Chart(title, says, _svg(title, says, int(top + count * side + 6), parts), table)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many."""
    raw = (high - low) / max(1, about)
    size: float = 10.0 ** math.floor(math.log10(raw))
    step = next((size * each for each in (1, 2, 2.5, 5, 10) if size * each >= raw * 0.999), size * 10)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


# what they share


def _svg(title: str, says: str, height: int, parts: Sequence[str]) -> str:
    label = escape(one_line(f"{title}: {says}", 300), quote=True)
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_ends: tuple[float, float],
    y_ends: tuple[float, float],
    across: str,
    up: str,
    log: bool = False,
) -> list[str]:
    floor = _HEIGHT - _BOTTOM
    parts = []
    marks = _decades(*y_ends) if log else ticks(*y_ends, 4)
    for value in marks:
        at = y(value)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(_number(value), _LEFT - 6, at + 4, "end", "tick"))
    for value in ticks(*x_ends, 5):
        parts.append(_text(_number(value), x(value), floor + 15, "middle", "tick"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    parts.append(_text(across, (_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle", "axis-name"))
    return parts


def _decades(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    every = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + 1, every)]


def _scale(low: float, high: float, start: float, stop: float, log: bool = False) -> Callable[[float], float]:
    low, high = _apart(low, high)
    if log:
        low, high = math.log10(low), math.log10(high)
    return lambda value: start + (stop - start) * ((math.log10(value) if log else value) - low) / (high - low)


def _apart(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5) if low <= 0 else (low * 0.5, low * 1.5)


def _over(high: float, low: float = 0.0) -> float:
    """A round number at or above a value, so that the highest tick is not far below it."""
    if not high > low:
        return low + 1.0
    step = ticks(low, high, 4)
    gap = step[1] - step[0] if len(step) > 1 else high - low
    last = step[-1] if step else high
    return high if last >= high - 1e-12 else min(last + gap, high + 0.06 * (high - low))


def _finite(xs: npt.NDArray[Any], ys: npt.NDArray[Any], log: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    fine = np.isfinite(xs) & np.isfinite(ys)
    if log:
        fine &= np.where(np.isfinite(ys), ys, 0) > 0
    return xs[fine], ys[fine]


def _values(series: Sequence[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]], most: int = 40) -> list[list[Any]]:
    """Rows of (x, y of each series), at most so many, spread over all."""
    every = np.unique(np.concatenate([xs for _, xs, _ in series] or [np.zeros(0)]))
    if len(every) > most:
        every = every[np.linspace(0, len(every) - 1, most).round().astype(int)]
    known = [dict(zip(xs.tolist(), ys.tolist(), strict=True)) for _, xs, ys in series]
    return [[at, *(each.get(at) for each in known)] for at in every.tolist()]


def _text(text: str, x: float, y: float, anchor: str, kind: str) -> str:
    shown = escape(one_line(text, 80))
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def _tip(text: str) -> str:
    return f"<title>{escape(one_line(text, 160))}</title>"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g} M"
    if size >= 1e4:
        return f"{value / 1e3:g} k"
    if 0 < size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:g}"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
