"""What objects show in a notebook: facts, bars, curves, pictures and players as HTML that is whole in itself.

No scripts, no style sheet, nothing from elsewhere. Text has the colour that the notebook gives it, so that it can be
read in light and in dark ones. All text is escaped here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from logitstore.texts import one_line

#: Bytes of sound that a player may hold: a notebook is saved with all that it shows.
MOST_SOUND = 8 << 20
_BAR, _OTHER, _LINE = "#3f7fbf", "#8d98a7", "rgba(128,128,128,.35)"
_CELL = "text-align:left;vertical-align:middle;padding:.1em .9em .1em 0;border:0;background:none;white-space:normal"
_RIGHT = _CELL.replace("text-align:left", "text-align:right") + ";font-variant-numeric:tabular-nums"


def card(title: str, *parts: str) -> str:
    """A titled whole of several parts, which are HTML; empty ones are left out."""
    inner = "".join(f'<div style="margin-top:.5em">{part}</div>' for part in parts if part)
    return (
        f'<div style="font:13px/1.45 system-ui,sans-serif;max-width:56em;padding:.2em 0">'
        f'<div style="font-weight:600">{text(title)}</div>{inner}</div>'
    )


def text(content: object) -> str:
    """Text, escaped, as one line that prints."""
    return escape(one_line(str(content)))


def note(content: str) -> str:
    """What a reader may want to know beside the rest."""
    return f'<span style="opacity:.75">{text(content)}</span>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values under each other."""
    rows = "".join(
        f'<tr style="background:none"><th style="{_CELL};font-weight:400;opacity:.75">{text(name)}</th>'
        f'<td style="{_CELL}">{text(value)}</td></tr>'
        for name, value in pairs
    )
    return _table(rows)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """A table of texts and numbers.

    :param left: how many columns, the first ones, stand to the left.
    """

    def cells(row: Sequence[object], tag: str, more: str = "") -> str:
        return "".join(
            f'<{tag} style="{_CELL if at < left else _RIGHT}{more}">{text(each)}</{tag}>' for at, each in enumerate(row)
        )

    body = "".join(f'<tr style="background:none">{cells(row, "td")}</tr>' for row in rows)
    head = cells(header, "th", f";font-weight:600;border-bottom:1px solid {_LINE}")
    return _table(f'<tr style="background:none">{head}</tr>{body}')


def bars(
    rows: Iterable[tuple[str, float, Sequence[object]]], header: Sequence[str] = (), *, own: str | None = None
) -> str:
    """Shares in [0, 1] as bars: (name, share, what stands behind it).

    :param header: of the name, the bar and what stands behind. :param own: the name whose bar stands out; all by
        default.
    """
    made = []
    for name, share, more in rows:
        width = 100 * min(max(share, 0.0), 1.0)
        colour = _BAR if own is None or name == own else _OTHER
        bar = (
            f'<div style="width:14em;background:rgba(128,128,128,.18)">'
            f'<div style="background:{colour};height:.8em;width:{width:.1f}%"></div></div>'
        )
        rest = "".join(f'<td style="{_RIGHT if _is_number(each) else _CELL}">{text(each)}</td>' for each in more)
        cells = f'<td style="{_CELL}">{text(name)}</td><td style="{_CELL}">{bar}</td>{rest}'
        made.append(f'<tr style="background:none">{cells}</tr>')
    if header:
        heads = (f'<th style="{_CELL if at < 2 else _RIGHT};font-weight:400;opacity:.75">{text(each)}</th>'
                 for at, each in enumerate(header))  # fmt: skip
        made.insert(0, f'<tr style="background:none">{"".join(heads)}</tr>')
    return _table("".join(made))


def player(wav: bytes, label: str) -> str:
    """A player of a WAV file; of one that is too long for a notebook, a line that says so."""
    if len(wav) > MOST_SOUND:
        return note(f"{len(wav) / 2**20:.0f} MB of sound are too much for a notebook; its samples are in .waveform")
    data = base64.b64encode(wav).decode()
    return (
        f'<audio controls preload="metadata" aria-label="{text(label)}" style="width:100%;max-width:40em;height:2.2em" '
        f'src="data:audio/wav;base64,{data}"></audio>'
    )


def picture(
    png: bytes,
    label: str,
    boxes: Iterable[tuple[float, float, float, float]] = (),
    across: Sequence[tuple[float, str]] = (),
    up: Sequence[tuple[float, str]] = (),
) -> str:
    """A picture with boxes drawn over it, hatched, and its axes.

    :param boxes: (left, top, width, height) as shares of the picture. :param across: (share from the left, text) at the
        axis below it. :param up: (share from the bottom, text) at the axis on its left.
    """
    left, top, width, height = 54.0, 8.0, 600.0, 150.0
    data = base64.b64encode(png).decode()
    drawn = [
        f'<image x="{left}" y="{top}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    ]
    for box in boxes:
        x, y, w, h = left + box[0] * width, top + box[1] * height, box[2] * width, box[3] * height
        drawn.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="#fff" fill-opacity=".3" '
            f'stroke="#fff" stroke-width="1.2"/><path d="{_hatching(x, y, w, h)}" stroke="#fff" stroke-width=".9" '
            f'stroke-opacity=".8"/>'
        )
    for share, said in across:
        anchor = "start" if share < 0.02 else "end" if share > 0.98 else "middle"
        drawn.append(_label(left + share * width, top + height + 14, said, anchor))
    drawn += [_label(left - 5, top + (1 - share) * height + 4, said, "end") for share, said in up]
    return _drawing(left + width + 2, top + height + 20, label, "".join(drawn))


def curve(points: Sequence[tuple[float, float]], label: str, *, unit: str) -> str:
    """A line through points, falling or rising, with its first and last value.

    :param points: at least two, by rising first coordinate. :param unit: of the first coordinate.
    """
    left, width, height = 60.0, 560.0, 110.0
    (first, last), values = (points[0][0], points[-1][0]), [value for _, value in points]
    low, high = min(*values, 0.0), max(values)
    across, up = (last - first) or 1.0, (high - low) or 1.0
    path = " ".join(
        f"{left + (x - first) / across * width:.1f},{6 + (high - value) / up * height:.1f}" for x, value in points
    )
    drawn = [
        f'<line x1="{left}" y1="{height + 6}" x2="{left + width}" y2="{height + 6}" stroke="{_LINE}"/>',
        f'<polyline points="{path}" fill="none" stroke="{_BAR}" stroke-width="1.8"/>',
        _label(left - 6, 12, f"{high:.3g}", "end"),
        _label(left - 6, height + 8, f"{low:.3g}", "end"),
        _label(left, height + 21, f"{unit} {first:,.0f}", "start"),
        _label(left + width, height + 21, f"{last:,.0f}", "end"),
    ]
    return _drawing(left + width + 4, height + 26, label, "".join(drawn))


def histogram(counts: Sequence[int], low: str, high: str, label: str) -> str:
    """Counts as columns, one a bin, with what stands at both ends."""
    each, height, most = 13.0, 56.0, max([*counts, 1])
    drawn = [
        f'<rect x="{at * each:.1f}" y="{height - tall:.1f}" width="{each - 2:.1f}" height="{tall:.1f}" fill="{_BAR}"/>'
        for at, count in enumerate(counts)
        if (tall := max(1.0, height * count / most) if count else 0.0)
    ]
    width = each * len(counts)
    drawn += [_label(0, height + 14, low, "start"), _label(width - 2, height + 14, high, "end")]
    return _drawing(width, height + 19, label, "".join(drawn))


def beside(*parts: tuple[str, str]) -> str:
    """Parts, HTML, next to each other, each under its title; below each other where there is no room."""
    made = (
        f'<div style="margin-right:2.5em"><div style="opacity:.75">{text(title)}</div>{part}</div>'
        for title, part in parts
    )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(made)}</div>'


def _is_number(content: object) -> bool:
    return str(content).replace(",", "").replace(".", "").replace("-", "").isdecimal() or content == "-"


def _table(rows: str) -> str:
    style = "border-collapse:collapse;border:0;margin:0;font-size:inherit;color:inherit;table-layout:auto"
    return f'<table style="{style}">{rows}</table>'


def _drawing(width: float, height: float, label: str, content: str) -> str:
    size = f'width="{width:g}" viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg"'
    style = "max-width:100%;height:auto;display:block;color:inherit"
    return f'<svg role="img" aria-label="{text(label)}" {size} style="{style}">{content}</svg>'


def _label(x: float, y: float, said: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="currentColor" fill-opacity=".8" text-anchor="{anchor}">'
        f"{text(said)}</text>"
    )


def _hatching(x: float, y: float, width: float, height: float, step: float = 7.0) -> str:
    """Diagonal lines, from bottom left to top right, within a rectangle."""
    lines, at = [], step
    while at < width + height:
        x1, y1 = (x, y + at) if at <= height else (x + at - height, y + height)
        x2, y2 = (x + at, y) if at <= width else (x + width, y + at - width)
        lines.append(f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}")
        at += step
    return "".join(lines)
