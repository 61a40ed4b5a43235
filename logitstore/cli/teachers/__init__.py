"""``logitstore teachers``: which there are, and what one is before it hears anything."""

from __future__ import annotations

import click

from logitstore.cli.command import SETTINGS
from logitstore.cli.teachers.check import check_command
from logitstore.cli.teachers.init import init_command
from logitstore.cli.teachers.kinds import list_command
from logitstore.cli.teachers.map import map_command
from logitstore.cli.teachers.show import show_command


@click.group(
    "teachers",
    context_settings=SETTINGS,
    commands=[list_command, show_command, check_command, init_command, map_command],
    invoke_without_command=True,
)
@click.pass_context
def teachers_group(context: click.Context) -> None:
    """Show which teachers there are, and what one says of itself; without a COMMAND, list them.

    \b
    Example:
      logitstore teachers list
      logitstore teachers show ced:ced_base.pt
      logitstore teachers check ced:ced_base.pt audio/
    """
    if context.invoked_subcommand is None:
        list_command.invoke(list_command.make_context("list", [], parent=context))
