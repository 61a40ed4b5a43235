"""``logitstore status``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Annotated

from logitstore.cli.command import answer, command, next_steps, stderr
from logitstore.errors import UsageError
from logitstore.options import JsonOptions, Option, Store

_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class _Status(JsonOptions):
    store: Store
    watch: Annotated[bool, Option("Go on looking, and say what is done, until the build is finished.")] = False
    every: Annotated[
        float | None, Option("Seconds between two looks with --watch.", default=f"{_SECONDS:g}", least=0.1)
    ] = None


@command("status", _Status)
def status_command(options: _Status) -> None:
    """Show how far the build of STORE is: what is done, what others are working on, what is missing, what failed.

    \b
    Example:
      logitstore status store
      logitstore status store --watch
    """
    from logitstore.cli.afterwards import AUDIO, after_build
    from logitstore.jobs.status import status

    if options.every is not None and not options.watch:
        raise UsageError("--every is for --watch; give both, or neither")
    if options.watch:
        _watch(options)
    found = status(options.store)
    answer(options, found.to_dict(), found.render())
    if found.missing:
        next_steps(f"logitstore verify {quote(options.store)} --partial")
    else:
        next_steps(*after_build(options.store, AUDIO, len(found.failures), 0, ""))


def _watch(options: _Status) -> None:
    """Show the build as it goes on, its rate and what is left since this began to look, until it is finished."""
    from logitstore.cli.progress import Meter
    from logitstore.jobs.status import watch

    with Meter("building", "views") as meter:
        for look in watch(options.store, options.every or _SECONDS):
            if stderr.is_terminal:
                meter.above = partial(list, [str(look)])
            else:
                meter.behind = look.__str__
            if meter.total is None:  # what is there already was not made while this looked
                meter.start(look.views, look.all_views)
            meter.update(look.views, look.all_views)
