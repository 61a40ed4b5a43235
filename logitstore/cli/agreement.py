"""The table of an agreement, for the commands that end with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitstore.evaluation.agreement import Agreement

_SHOWN = 5
_LEAST_KL = 0.005  # nats, from which on a view is worth a line
_WIDEST = 34  # columns of a name


def agreement_lines(found: Agreement, a: str = "A", b: str = "B") -> list[str]:
    """What it says, the worst classes, the worst views.

    :param a: what was measured against, in a word or two. :param b: what was measured.
    """
    from logitstore.evaluation.agreement import FIRST

    mean_ap = "-     " if found.mAP is None else f"{found.mAP:.4f}"
    lines = [
        f"same first class     {found.top1:.1%} of {found.views:,} views of {found.clips:,} clips",
        *([f"first five in common {found.top5:.1%}"] if found.classes > FIRST else []),
        f"divergence           {found.kl:.4f} nats a view, of {b} from {a}",
        f"mAP                  {mean_ap} against the decisions of {a} (classes at .5 or more, else the first), "
        f"over {found.decided} of {found.classes:,} classes",
        f"calibration          ECE {found.ece:.4f} against them",
    ]
    rows = [
        (each.name, f"{each.average_precision:.3f}", f"{each.views:,}", f"{each.mean_a:.2f}", f"{each.mean_b:.2f}")
        for each in found.by_class[:_SHOWN]
        if each.average_precision < 1
    ]
    if rows:
        lines += ["", *table(("worst classes", "AP", "views", f"p of {a}", f"p of {b}"), rows)]
    several = any(each.view is not None for each in found.worst)
    views = [
        (
            f"{each.path} {each.second:g} s" + (f", view {each.view}" if several else ""),
            f"{each.kl:.2f}",
            f"{each.a[1]:.2f} {each.a[0]}",
            f"{each.b[1]:.2f} {each.b[0]}",
        )
        for each in found.worst[:_SHOWN]
        if each.kl >= _LEAST_KL
    ]
    if views:
        lines += ["", *table(("worst views", "nats", f"{a} said", f"{b} said"), views, right=(1,))]
    return lines


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], right: Sequence[int] | None = None) -> list[str]:
    """Aligned columns.

    :param right: the columns that stand to the right; all but the first by default.
    """
    from rich.cells import cell_len, set_cell_size

    right = range(1, len(header)) if right is None else right
    cut = [tuple(_cut(cell) for cell in row) for row in (header, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cut, strict=True)]
    lines = []
    for row in cut:
        cells = [
            " " * (size - cell_len(cell)) + cell if at in right else set_cell_size(cell, size)
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cut(text: str) -> str:
    """A text of no more columns than a table has room for, cut at its start, as paths differ at their end."""
    from rich.cells import cell_len

    return text if cell_len(text) <= _WIDEST else "…" + text[1 - _WIDEST :]
