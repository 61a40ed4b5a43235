"""What every command shares: made from its options, one line an error, the right exit code, results to stdout."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from logitstore.errors import LogitstoreError, UsageError
from logitstore.notes import LOGGER
from logitstore.options import Field, Options, dump, fields_of, read_config

#: Progress and notes; results are printed with ``click.echo``.
stderr = Console(stderr=True, highlight=False)

INTERRUPTED = 130
_KEPT = "interrupted; what was finished is kept, and the same command goes on from there"
GOES_ON = "interrupted; the same command goes on from the training's last checkpoint"

#: The headings of a help text in their order.
GROUPS = (
    "Audio", "Teachers", "Classes", "Model", "Views", "Windows", "Question", "Checks", "Training", "Loss", "Evaluation",
    "What is stored", "8-bit weights", "Running", "Output", "Options",
)  # fmt: skip
_GENERAL = "Every command"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Asked = TypeVar("Asked", bound=Options)


@dataclass
class _Talk:
    """How much the program says."""

    verbose: bool = False


_talk = _Talk()


class _Notes(logging.Handler):
    """Prints the notes of one command, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            stderr.print(f"{getattr(record, 'kind', 'note'):<10} {message}", markup=False, soft_wrap=True)


def command(name: str, options: type[Asked]) -> Callable[[Callable[[Asked], None]], OptionsCommand]:
    """Makes a click command of a function that takes an object of options; its docstring is the help text."""

    def decorate(body: Callable[[Asked], None]) -> OptionsCommand:
        return OptionsCommand(name, options, body)

    return decorate


class OptionsCommand(click.Command):
    """A command whose flags and arguments are the fields of a dataclass of options.

    :param options: the dataclass. :param body: what is done with an object of it.
    """

    def __init__(self, name: str, options: type[Options], body: Callable[[Any], None]) -> None:
        self.options, self.body = options, body
        self.fields = sorted(fields_of(options), key=_place)
        made = [_parameter(each) for each in self.fields]
        former = [_former(each, old) for each in self.fields for old in each.option.old]
        super().__init__(name, context_settings=SETTINGS, params=[*made, *former, *_general()], help=body.__doc__)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            near = difflib.get_close_matches(error.option_name, [f"--{each.key}" for each in self.fields], n=1)
            raise click.NoSuchOption(error.option_name, possibilities=near, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> None:
        stderr.quiet, _talk.verbose = ctx.params["quiet"], ctx.params["verbose"]
        LOGGER.handlers = [_Notes()]
        LOGGER.setLevel(logging.INFO)
        asked = self.asked(ctx)
        if _talk.verbose:
            stderr.print(dump(asked), end="", markup=False, soft_wrap=True)
        from logitstore.cli.glance import glance

        glance(asked)
        self.body(asked)

    def asked(self, ctx: click.Context) -> Options:
        """The options: given on the command line, or in the file that ``--config`` names, or by default.

        :raises UsageError: the file cannot be used, an option is missing or out of its range.
        """
        config = ctx.params["config"]
        said = {each.name: value for each in self.fields if (value := _said(ctx, each)) is not None}
        written = {} if config is None else read_config(config, self.options)
        values = said | {
            each.name: written[each.name]
            for each in self.fields
            if each.name in written and each.name not in said and each.option.instead not in said
        }
        missing = [each.shown for each in self.fields if each.required and each.name not in values]
        if missing:
            names = " and ".join([", ".join(missing[:-1]), missing[-1]] if len(missing) > 1 else missing)
            verb = "is" if len(missing) == 1 else "are"
            raise self.options.error(f"{names} {verb} given neither on the command line nor in a --config FILE")
        return self.options(**values)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [each for each in self.fields if each.option.argument]
        words = ["[OPTIONS]", *(each.shown if each.required else f"[{each.shown}]" for each in arguments)]
        formatter.write_usage(ctx.command_path, " ".join(words))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [each for each in self.fields if each.option.argument]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(each.shown, described(each)) for each in arguments])
        for group in GROUPS:
            flags = [each for each in self.fields if each.option.group == group and not each.option.argument]
            if flags:
                with formatter.section(group):
                    formatter.write_dl([(spelled(each), described(each)) for each in flags])
        with formatter.section(_GENERAL):
            formatter.write_dl(general_help())


def _place(each: Field) -> tuple[bool, int, bool]:
    """Where an option stands: arguments first, then by group, in each the required ones first."""
    flag = not each.option.argument
    return flag, GROUPS.index(each.option.group) if flag else 0, flag and not each.required


def spelled(each: Field) -> str:
    """A flag as a help text shows it: its short form first, what stands for its value last."""
    short = f"-{each.option.short}, " if each.option.short else ""
    return f"{short}{each.shown} {each.placeholder}".rstrip()


def described(each: Field) -> str:
    """The help text of an option with its default, or that it is required."""
    default = each.default_text()
    if each.required:
        return f"{each.option.help}  [required]"
    return each.option.help if default is None else f"{each.option.help}  [default: {default}]"


def _parameter(each: Field) -> click.Parameter:
    kind: Any = click.Choice([str(choice) for choice in each.choices]) if each.choices else each.kind
    if each.kind is dict:
        kind = str
    if each.option.argument:
        return click.Argument([each.name], type=kind, nargs=-1 if each.many else 1, required=False)
    names = [f"--{each.key}", *([f"-{each.option.short}"] if each.option.short else []), each.name]
    if each.kind is bool:
        return click.Option(names, is_flag=True, help=each.option.help)
    many = each.many or each.kind is dict
    return click.Option(names, type=kind, multiple=many, nargs=each.option.words, help=each.option.help)


def _former(each: Field, spelling: str) -> click.Option:
    """A former spelling of an option, which the help does not show."""
    if each.option.old[spelling] is not None:
        return click.Option([spelling, _former_name(spelling)], is_flag=True, hidden=True)
    return click.Option([spelling, _former_name(spelling)], type=each.kind, multiple=each.many, hidden=True)


def _former_name(spelling: str) -> str:
    return f"former_{spelling.strip('-').replace('-', '_')}"


def _said(ctx: click.Context, each: Field) -> Any:
    """What the command line says of an option; None for nothing."""
    value = ctx.params[each.name]
    for spelling, meaning in each.option.old.items():
        former = ctx.params[_former_name(spelling)]
        if former not in (None, False, ()):
            value = former if meaning is None else meaning
    if value is None or value is False or value == ():
        return None
    if each.option.parse is not None:
        try:
            return each.option.parse(value)
        except UsageError:
            raise
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param_hint=f"'{each.shown}'") from error
    if each.many:
        return value[0] if each.single and len(value) == 1 else value
    return each.choices[[*map(str, each.choices)].index(value)] if each.choices else value


def _general() -> list[click.Option]:
    """The flags that every command has; ``-h`` is click's own."""

    def version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked:
            from importlib.metadata import version as installed

            click.echo(f"logitstore {installed('logitstore')}")
            ctx.exit()

    return [
        click.Option(["--config"], metavar="FILE", help="Read options from a YAML file; those given here win."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Show no progress and no notes."),
        click.Option(
            ["-v", "--verbose"], is_flag=True,
            help="Show all options as they are used, in a form that --config takes, and where an error arose.",
        ),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=version, help="Show the version.",
        ),
    ]  # fmt: skip


def general_help() -> list[tuple[str, str]]:
    """The flags that every command has, and what they do."""
    context = click.Context(click.Command("any"))
    records = [each.get_help_record(context) for each in _general()]
    return [*(each for each in records if each is not None), ("-h, --help", "Show this help and exit.")]


def run(program: click.Command, interrupted: str = "interrupted") -> NoReturn:
    """Run a click command as a console script: one clear line instead of a traceback for a user's mistake.

    :param interrupted: what to say of a command that was interrupted.

    Exit codes: 0 done, 1 a failed job, 2 usage, 130 interrupted (Ctrl-C or a terminate signal).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        program.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(interrupted, INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except LogitstoreError as error:
        if _talk.verbose:
            traceback.print_exc()
        fail(str(error), error.exit_code)
    sys.exit(0)


@contextmanager
def resumable() -> Iterator[None]:
    """Around a job that the same command goes on with: an interrupt says so."""
    try:
        yield
    except KeyboardInterrupt:
        fail(_KEPT, INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """Print one line to stderr and leave."""
    print(f"Error: {message}", file=sys.stderr)
    sandbox = sys.modules.get("logitstore.sql.sandbox")
    if sandbox is not None and sandbox.abandoned():  # a query that does not end would go on while Python cleans up
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
