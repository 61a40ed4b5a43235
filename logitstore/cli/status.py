"""``logitstore status``."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from logitstore.cli.command import answer, command, next_steps
from logitstore.options import JsonOptions, Store


@dataclass(frozen=True, kw_only=True)
class _Status(JsonOptions):
    store: Store


@command("status", _Status)
def status_command(options: _Status) -> None:
    """Show how far the build of STORE is: what is done, what others are working on, what is missing, what failed.

    \b
    Example:
      logitstore status store
    """
    from logitstore.cli.afterwards import AUDIO, after_build
    from logitstore.jobs.status import status

    found = status(options.store)
    answer(options, found.to_dict(), found.render())
    if found.missing:
        next_steps(f"logitstore verify {quote(options.store)} --partial")
    else:
        next_steps(*after_build(options.store, AUDIO, len(found.failures), 0, ""))
