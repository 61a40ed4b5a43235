"""The table of an agreement, for the commands that end with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitstore.evaluation.agreement import Agreement

_SHOWN = 5
_WIDEST = 34  # columns of a name


def agreement_lines(found: Agreement, a: str = "A", b: str = "B") -> list[str]:
    """What it says, the worst classes, the worst views.

    :param a: what was measured against, in a word or two. :param b: what was measured.
    """
    lines = [
        f"same first class     {found.top1:.1%} of {found.views:,} views of {found.clips:,} clips",
        f"first five in common {found.top5:.1%}",
        f"divergence           {found.kl:.4f} nats a view, of {b} from {a}",
        f"mAP                  {found.mAP:.4f} against the decisions of {a} (classes at .5 or more, else the first), "
        f"over {found.decided} of {found.classes:,} classes",
        f"calibration          ECE {found.ece:.4f} against them",
    ]
    rows = [
        (each.name, f"{each.average_precision:.3f}", f"{each.views:,}", f"{each.mean_a:.2f}", f"{each.mean_b:.2f}")
        for each in found.by_class[:_SHOWN]
        if each.average_precision < 1
    ]
    if rows:
        lines += ["", *_table(("worst classes", "AP", "views", f"p of {a}", f"p of {b}"), rows, 1)]
    several = any(each.view is not None for each in found.worst)
    views = [
        (
            f"{each.path} {each.second:g} s" + (f", view {each.view}" if several else ""),
            f"{each.kl:.2f}",
            f"{each.a[1]:.2f} {each.a[0]}",
            f"{each.b[1]:.2f} {each.b[0]}",
        )
        for each in found.worst[:_SHOWN]
    ]
    return [*lines, "", *_table(("worst views", "nats", f"{a} said", f"{b} said"), views, 2)]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Aligned columns: the first to the left, and from ``left`` on to the right, or with 2 only the second."""
    from rich.cells import cell_len, set_cell_size

    cut = [tuple(_cut(cell) for cell in row) for row in (header, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cut, strict=True)]
    lines = []
    for row in cut:
        cells = [
            set_cell_size(cell, size) if at == 0 or (left == 2 and at > 1) else " " * (size - cell_len(cell)) + cell
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cut(text: str) -> str:
    """A text of no more columns than a table has room for, cut at its start, as paths differ at their end."""
    from rich.cells import cell_len

    return text if cell_len(text) <= _WIDEST else "…" + text[1 - _WIDEST :]
