"""The command ``logitstore``: a group whose subcommands are imported when they are called."""

from __future__ import annotations

import importlib
from typing import NoReturn

import click

from logitstore.cli.common import run

_COMMANDS = {
    "build": ("logitstore.cli.build", "build_command", "Run a teacher ensemble over audio and store what it says."),
    "status": ("logitstore.cli.build", "status_command", "What of a store is done, claimed and missing."),
    "extend": ("logitstore.cli.extend", "extend_command", "Add more clips to a store."),
    "verify": ("logitstore.cli.verify", "verify_command", "Check everything that a store holds."),
    "inspect": ("logitstore.cli.inspect", "inspect_command", "Summarise a store, or ask it a question in SQL."),
    "import": ("logitstore.cli.transfer", "import_group", "Make a store of published scores: CED's, or a dense array."),
    "export": ("logitstore.cli.transfer", "export_command", "Write a store as a flat Parquet table or CED's files."),
    "evaluate": ("logitstore.cli.evaluate", "evaluate_command", "Score teachers, students and ensembles on labels."),
    "tag": ("logitstore.cli.tag", "tag_command", "What is heard when in audio files."),
    "train-student": ("logitstore.cli.train_student", "train_student_command", "Train a student from a store."),
    "train-teacher": ("logitstore.cli.train_teacher", "train_teacher_command", "Train a teacher on labelled audio."),
    "export-student": ("logitstore.cli.export_student", "export_student_command", "Write a student as an ONNX file."),
    "demo": ("logitstore.cli.demo", "demo_command", "The main job on synthetic sounds, in a few minutes."),
}


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it is called, so that each starts as fast as its own imports allow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command("logitstore", cls=LazyGroup)
@click.version_option(package_name="logitstore")
def cli() -> None:
    """Run audio taggers once, keep what they said and exactly what they heard, distil any number of students.

    \b
    Example:
      logitstore build audio/ --out store --teacher ced:ced_base.pt
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      train-student store --audio-root audio/ --student ced-tiny --out student
    """


def main() -> NoReturn:
    """Console script."""
    run(cli)
