"""``logitstore tag``."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from logitstore.cli.common import stderr

if TYPE_CHECKING:
    from logitstore.jobs.tag import Tagged

_GAP = "   "


@click.command("tag")
@click.argument("files", nargs=-1, required=True, metavar="AUDIO...")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="A teacher or student: a run folder, ced:FILE, hf:ID_OR_PATH, onnx:FILE or python:MODULE:FACTORY. Repeatable.",
)
@click.option("--teacher-weight", "weights", multiple=True, type=float, help="Weight of a teacher in the ensemble.")
@click.option(
    "--average",
    type=click.Choice(["probability", "logit"]),
    default="probability",
    show_default=True,
    help="What of the members is averaged.",
)
@click.option("--classes", metavar="FILE", help="Only the classes named in this file, one a line.")
@click.option(
    "--seconds", type=float, help="Length of a window.  [default: of the clips that the teacher learnt from, or 10]"
)
@click.option("--hop", type=float, help="Seconds from one window's start to the next.  [default: --seconds]")
@click.option("--top", default=5, show_default=True, help="Classes a window.")
@click.option("--threshold", default=0.0, metavar="P", help="Leave out classes of a lower probability.")
@click.option("--batch-size", default=8, show_default=True, help="Windows a batch.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--amp", is_flag=True, help="Run the models in mixed precision.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, each on a line.")
def tag_command(as_json: bool, **options: Any) -> None:
    """What is heard when in AUDIO: the most probable classes of every window of every file.

    Files of any length, rate and number of channels. The last window ends with its file. A file that cannot be read is
    named on stderr, the others are tagged all the same, and the exit code is 1.

    \b
    Example:
      logitstore tag --teacher ced:ced_tiny.pt street.wav
      logitstore tag --teacher runs/t1 --seconds 2 --hop 1 --threshold 0.2 *.flac
      logitstore tag --teacher runs/t1 --json street.wav | jq '.windows[].tags[0].class'
    """
    import json

    from rich.progress import Progress

    from logitstore.jobs.tag import TagOptions, tag

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    failed = False
    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task("windows", total=None)
        for found in tag(TagOptions(**options), lambda done, total: bar.update(task, completed=done, total=total)):
            bar.stop()  # results and the bar may share a terminal
            name = click.format_filename(found.path)
            if as_json:
                click.echo(json.dumps(found.to_dict() | {"path": name}, ensure_ascii=False))
            elif found.windows:
                click.echo(render(found, width))
            if found.error is not None:
                failed = True
                click.echo(f"Error: {name}: {found.error}", err=True)
            bar.start()
    if failed:
        sys.exit(1)


def render(found: Tagged, width: int | None = None) -> str:
    """A file and its windows, one a line, in columns; where the terminal is too narrow for that, lines are broken.

    :param width: columns to keep to; None for any.
    """
    from rich.cells import cell_len, set_cell_size

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
    lines = [f"{click.format_filename(found.path)}  {clock(found.seconds)}, {found.sample_rate} Hz"]
    for span, row in zip(spans, rows, strict=True):
        cells = [set_cell_size(cell, size) for cell, size in zip(row, sizes, strict=False)]
        for first in range(0, len(cells), a_line):
            text = _GAP.join(cells[first : first + a_line]).rstrip()
            lines.append(f"{'' if first else span:>{margin}}{_GAP}{text}")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """A time as m:ss or h:mm:ss, with hundredths where there are any: 62.5 is 1:02.5."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(hundredths, 100)
    fraction = f".{part:02}".rstrip("0").rstrip(".")
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{whole:02}{fraction}"
