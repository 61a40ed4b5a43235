"""``logitstore report``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from logitstore.cli.command import answer, command, next_steps
from logitstore.jobs.options import ReportOptions
from logitstore.options import JsonOptions, only
from logitstore.texts import in_lines


@dataclass(frozen=True, kw_only=True)
class _Report(JsonOptions, ReportOptions):
    pass


@command("report", _Report)
def report_command(options: _Report) -> None:
    """Write one page that shows what STORE holds and how each RUN learnt: open it in a browser, print it, pass it on.

    What the store is, sizes by part, classes, certainty, the cut at k, agreement of the members, what each op destroys,
    draws, the oddest clips, failures; of runs size, speed, learning curves and agreement. The page is one file, and
    needs no network. With --audio-root it shows spectrograms; with --teacher too, ops are measured one by one.

    \b
    Example:
      logitstore report store -o report.html
      logitstore report store runs/small runs/large --audio-root audio -o report.html
    """
    from logitstore.cli.progress import of_total
    from logitstore.jobs.report.job import report

    with of_total("counting", "views") as told:
        found = report(only(options, ReportOptions), told)
    text = in_lines(
        (
            f"report     {found.path}",
            f"shows      {found.views:,} views" + (f", {found.runs} run{'s' * (found.runs > 1)}" if found.runs else ""),
            f"size       {found.bytes:,} bytes, in {found.seconds:.1f} s",
        )
    )
    answer(options, found.to_dict(), text)
    store = shlex.quote(options.store)
    next_steps(f"open {shlex.quote(found.path)} in a browser", f"logitstore inspect {store} @")
