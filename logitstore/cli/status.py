"""``logitstore status``."""

from __future__ import annotations

from dataclasses import dataclass

from logitstore.cli.command import answer, command
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
    from logitstore.jobs.status import status

    found = status(options.store)
    answer(options, found.to_dict(), found.render())
