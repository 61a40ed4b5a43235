"""The command ``logitstore``: a group whose subcommands are imported when they are called."""

from __future__ import annotations

import importlib
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from logitstore.cli.command import SETTINGS, run
from logitstore.options import nearest

_COMMANDS = {
    "doctor": ("logitstore.cli.doctor", "doctor_command", "Say whether everything that is needed works here."),
    "plan": ("logitstore.cli.plan", "plan_command", "Say what a build of many clips will take."),
    "build": (
        "logitstore.cli.build",
        "build_command",
        "Run teachers over audio and store what they say of every view.",
    ),
    "status": ("logitstore.cli.status", "status_command", "Show how far the build of a store is."),
    "extend": ("logitstore.cli.extend", "extend_command", "Add more clips to a store."),
    "merge": ("logitstore.cli.merge", "merge_command", "Write stores of the same views as one ensemble."),
    "verify": ("logitstore.cli.verify", "verify_command", "Check that a store is as it was written."),
    "repair": ("logitstore.cli.repair", "repair_command", "Make again what is damaged of a store."),
    "look": ("logitstore.cli.look", "look_command", "Show a store on one screen."),
    "show": ("logitstore.cli.show", "show_command", "Show a clip and its views, as pictures and sound too."),
    "inspect": ("logitstore.cli.inspect", "inspect_command", "Summarise a store, or ask it a question in SQL."),
    "report": ("logitstore.cli.report", "report_command", "Write a page that shows a store, and how students learnt."),
    "serve": ("logitstore.cli.serve", "serve_command", "Serve a page to search, hear and judge the clips of a store."),
    "import": ("logitstore.cli.import_", "import_group", "Make a store of published scores: CED's, or an array."),
    "export": ("logitstore.cli.export", "export_command", "Write a store as a flat Parquet table or CED's files."),
    "evaluate": (
        "logitstore.cli.evaluate",
        "evaluate_command",
        "Score teachers, students or a store on labelled audio.",
    ),
    "compare": (
        "logitstore.cli.compare",
        "compare_command",
        "Say how far one model agrees with another, without labels.",
    ),
    "tag": ("logitstore.cli.tag", "tag_command", "Say what is heard when in audio files."),
    "teachers": (
        "logitstore.cli.teachers",
        "teachers_group",
        "Show which teachers there are, and what one says of itself.",
    ),
    "train-student": ("logitstore.cli.train_student", "train_student_command", "Train a student from a store."),
    "train-teacher": ("logitstore.cli.train_teacher", "train_teacher_command", "Train a teacher on labelled audio."),
    "export-student": ("logitstore.cli.export_student", "export_student_command", "Write a student as an ONNX file."),
    "completion": (
        "logitstore.cli.completion",
        "completion_command",
        "Print the script that completes command lines in a shell.",
    ),
    "demo": ("logitstore.cli.demo", "demo_command", "Do the whole job on synthetic sounds, in a few minutes."),
}


def _load(command: str) -> click.Command:
    module, name, _ = _COMMANDS[command]
    found: click.Command = getattr(importlib.import_module(module), name)
    return found


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it is called, so that each starts as fast as its own imports allow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if ctx.resilient_parsing:  # a shell asks what can follow
                return None
            ctx.fail(f"there is no command {cmd_name!r}; {nearest(cmd_name, _COMMANDS)}")
        return _load(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options that begin so; no command is imported."""
        found = [
            CompletionItem(name, help=text) for name, (_, _, text) in _COMMANDS.items() if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command("logitstore", cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(package_name="logitstore", message="%(package)s %(version)s", help="Show the version.")
def cli() -> None:
    """Run audio taggers once, keep what they said and exactly what they heard, distil any number of students.

    `logitstore COMMAND -h` says what a command takes.

    \b
    Example:
      logitstore build audio/ --out store --teacher ced:ced_base.pt
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      logitstore train-student store --audio-root audio/ --student ced-tiny --out student
    """


def command_of(program: str) -> click.Command:
    """The command that one of the programs is: ``logitstore``, or a command of it that has its own name too."""
    return cli if program == cli.name else _load(program)


def main() -> NoReturn:
    """Console script."""
    run(cli)
