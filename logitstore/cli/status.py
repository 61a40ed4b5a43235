"""``logitstore status``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import click

from logitstore.cli.command import command
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
    click.echo(json.dumps(found.to_dict()) if options.json else found.render())
