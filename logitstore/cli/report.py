"""``logitstore report``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from logitstore.cli.afterwards import after_report
from logitstore.cli.command import answer, command, next_steps, note
from logitstore.errors import UsageError
from logitstore.jobs.options import ListenOptions, ReportOptions
from logitstore.options import JsonOptions, only
from logitstore.texts import in_lines


@dataclass(frozen=True, kw_only=True)
class _Report(JsonOptions, ReportOptions, ListenOptions):
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
      logitstore report store --audio-root audio --listen listen.html --clips @label_errors
    """
    if options.listen is not None:
        _listen(options)
        return
    for name in ("clips", "listen_views", "label_column"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of the listening page, which --listen FILE.html writes")
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
    next_steps(*after_report(found.path, options.store, options.audio_root))


def _listen(options: _Report) -> None:
    """Write the listening page as one file."""
    from logitstore.cli.progress import of_total
    from logitstore.jobs.serve.offline import write_listening_page
    from logitstore.store.reader import open_store

    if options.audio_root is None:
        raise UsageError("--listen puts the clips' sounds into a page; say where they lie: --audio-root DIR")
    if options.runs or options.teachers:
        raise UsageError("--listen shows clips of a store alone; leave runs and --teacher out")
    paths = [options.store, *options.also]
    store = open_store(paths if len(paths) > 1 else options.store, audio_root=options.audio_root)
    with of_total("preparing", "clips") as told:
        found = write_listening_page(
            store,
            str(options.listen),
            clips=options.clips or "100",
            views=options.listen_views or 0,
            label_column=options.label_column,
            advance=told,
        )
    for clip, reason in list(found.unheard.items())[:3]:
        note(f"clip {clip} ({store[clip].path}) cannot be heard: {reason}")
    if len(found.unheard) > 3:
        note(f"and {len(found.unheard) - 3:,} more cannot")
    text = in_lines(
        (
            f"listen     {found.path}",
            f"clips      {found.clips:,}, {len(found.unheard):,} of them without sound",
            f"size       {found.bytes:,} bytes, {found.sounds:,} of them sounds (Opus), in {found.seconds:.1f} s",
        )
    )
    answer(options, found.to_dict(), text)
    next_steps(f"open {shlex.quote(found.path)} in a browser")
