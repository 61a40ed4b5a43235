"""``logitstore tag``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logitstore.cli.command import answer, command, fault, stderr
from logitstore.jobs.options import TagOptions
from logitstore.options import JsonOptions
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from logitstore.jobs.tag import Tagged

_GAP = "   "


@dataclass(frozen=True, kw_only=True)
class _Tag(JsonOptions, TagOptions):
    pass


@command("tag", _Tag)
def tag_command(options: _Tag) -> None:
    """Say what is heard when in AUDIO: the most probable classes of every window of every file.

    The last window ends with its file. A file that cannot be read is
    named on stderr, the others are tagged all the same, and the exit code is 1.

    \b
    Example:
      logitstore tag --teacher ced:ced_tiny.pt street.wav
      logitstore tag --teacher runs/t1 --seconds 2 --hop 1 --threshold 0.2 *.flac
      logitstore tag --teacher runs/t1 --json street.wav | jq '.windows[].tags[0].class'
    """
    from rich.progress import Progress

    from logitstore.jobs.tag import tag

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    failed = False
    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task("windows", total=None)
        for found in tag(options, lambda done, total: bar.update(task, completed=done, total=total)):
            bar.stop()  # results and the bar may share a terminal
            failed |= found.error is not None
            if options.json or found.windows:
                answer(options, found.to_dict() | {"exit_code": int(found.error is not None)}, render(found, width))
            if found.error is not None:
                fault(f"{found.path}: {found.error}")
            bar.start()
    if failed:
        sys.exit(1)


def render(found: Tagged, width: int | None = None) -> str:
    """A file and its windows, one a line, in columns; where the terminal is too narrow for that, lines are broken.

    :param width: columns to keep to; None for any.
    """
    from rich.cells import cell_len, set_cell_size

    if not found.windows:
        return ""
    spans = [f"{clock(window.start)} - {clock(window.end)}" for window in found.windows]
    rows = [[f"{value:.2f} {name}" for name, value in window.tags] or ["-"] for window in found.windows]
    margin = max(map(len, spans)) + 2
    most = max(map(len, rows))
    sizes = [max(cell_len(row[rank]) for row in rows if rank < len(row)) for rank in range(most)]
    room = sum(sizes) + len(_GAP) * most if width is None else max(20, width - margin - len(_GAP))
    a_line = most
    if sum(sizes) + len(_GAP) * (most - 1) > room:
        widest = min(max(sizes), room)
        a_line, sizes = max(1, (room + len(_GAP)) // (widest + len(_GAP))), [widest] * most
    lines = [f"{found.path}  {clock(found.seconds)}, {found.sample_rate} Hz"]
    for span, row in zip(spans, rows, strict=True):
        cells = [set_cell_size(cell, size) for cell, size in zip(row, sizes, strict=False)]
        for first in range(0, len(cells), a_line):
            text = _GAP.join(cells[first : first + a_line]).rstrip()
            lines.append(f"{'' if first else span:>{margin}}{_GAP}{text}")
    return in_lines(lines)


def clock(seconds: float) -> str:
    """A time as m:ss or h:mm:ss, with hundredths where there are any: 62.5 is 1:02.5."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(hundredths, 100)
    fraction = f".{part:02}".rstrip("0").rstrip(".")
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{whole:02}{fraction}"
