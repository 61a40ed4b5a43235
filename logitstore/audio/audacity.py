"""Label tracks as Audacity exports them: start, end and text of a label a line, separated by tabs, without a header.

A line that begins with a backslash gives the frequencies of the label before it. A label without a length marks a
point, and names no piece of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from logitstore.errors import SourceError


def is_track(text: str) -> bool:
    """Whether a text is a label track: its first line has two numbers before its label."""
    first = next((line for line in text.splitlines() if line.strip()), "").split("\t")
    return len(first) >= 2 and all(_number(cell) is not None for cell in first[:2])


def read_track(path: Path, text: str, notes: list[str]) -> list[tuple[float, float, str]]:
    """The labels of a track as (start, end, text), in seconds.

    :raises SourceError: a line that is no label.
    """
    labels: list[tuple[float, float, str]] = []
    points = bands = 0
    for line, each in enumerate(text.split("\n"), start=1):
        each = each.rstrip("\r")
        if not each.strip():
            continue
        if each.startswith("\\"):
            bands += 1
            continue
        cells = each.split("\t", 2)
        start, end = (_number(cell) for cell in [*cells, "", ""][:2])
        if start is None or end is None or start < 0 or end < start:
            raise SourceError(
                f"{path}, line {line}: {each!r} is no label of Audacity's; a line is START<tab>END<tab>TEXT in "
                "seconds, and the end is not before the start"
            )
        if end == start:
            points += 1
            continue
        labels.append((start, end, cells[2].strip() if len(cells) > 2 else ""))
    if points:
        notes.append(f"{points} labels without a length are left out")
    if bands:
        notes.append(f"the frequencies of {bands} labels are not used")
    return labels


def write_track(labels: Iterable[tuple[float, float, str]]) -> str:
    """A label track of labels (start, end, text), in seconds, as :func:`read_track` reads it.

    Blanks stand for tabs and ends of lines in a text, which a track cannot hold.
    """
    return "".join(f"{start:.6f}\t{end:.6f}\t{' '.join(text.split())}\n" for start, end, text in labels)


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().replace(",", "."))  # some systems write a decimal comma
    except ValueError:
        return None
    return number if abs(number) < float("inf") and "_" not in text else None
