"""What every command shares: made from its options, one line an error, the right exit code, results to stdout.

Everything that is printed goes out by :func:`echo`, :func:`answer`, :func:`note`, :func:`fail` or the console
``stderr``, and shows characters that do not print escaped; while a program runs, whatever else writes to stdout or
stderr as text (warnings, logs, click's own messages) does so through a stream that escapes them too.
"""

from __future__ import annotations

import atexit
import difflib
import gc
import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO, TypeVar, cast

import click
from click.shell_completion import CompletionItem
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from logitstore.errors import LogitstoreError, UsageError
from logitstore.launched import is_first
from logitstore.notes import LOGGER
from logitstore.options import Field, Options, dump, fields_of, read_config
from logitstore.texts import in_json, one_line, printable

INTERRUPTED = 130
READER_GONE = 141  # as a shell has it of a program that writes to a pipe that nobody reads any more
_KEPT = "interrupted; what was finished is kept, and the same command goes on from there"
GOES_ON = "interrupted; the same command goes on from the training's last checkpoint"

#: The headings of a help text in their order.
GROUPS = (
    "Audio", "Teachers", "Classes", "Model", "Views", "Windows", "Events", "Question", "Checks", "Training", "Loss",
    "Evaluation", "What is stored", "8-bit weights", "Running", "Output", "Options",
)  # fmt: skip
_GENERAL = "Every command"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Asked = TypeVar("Asked", bound=Options)


@dataclass
class _Talk:
    """How much the program says, and how: ``answered`` where its JSON holds the error already."""

    verbose: bool = False
    json: bool = False
    answered: bool = False
    command: str = ""
    line: str = ""
    within: bool = False
    silent: bool = False


_talk = _Talk()


class _Console(Console):
    """A console that takes texts as they are: brackets are brackets, and what does not print is escaped."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something to print; those of rich itself, which steer the terminal, are left alone."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, "\n"), segment.style)


#: Progress and notes; results are printed with :func:`echo` and :func:`answer`.
stderr = _Console()


def echo(text: str, *, err: bool = False) -> None:
    """Print text, which may have several lines, to stdout or stderr."""
    click.echo(printable(text, "\n\t"), err=err)


def note(message: str) -> None:
    """Print a line to stderr that a user should know; ``--quiet`` leaves it out."""
    stderr.print(one_line(f"{'note':<10} {message}"), soft_wrap=True)


def next_steps(*commands: str) -> None:
    """Print what one usually does next to stderr, a command a line; ``--quiet`` leaves it out, and so does ``--json``.

    :param commands: as they would be typed, with the places that this command was given; quote with ``shlex.quote``.
    """
    if not (_talk.json or _talk.within):
        for number, each in enumerate(commands):
            stderr.print(one_line(f"{'' if number else 'next':<10} {each}"), soft_wrap=True, style="dim")


def again(*without: str) -> str:
    """This command as it was typed, for :func:`next_steps`; some flags left out."""
    return shlex.join(each for each in shlex.split(_talk.line) if each not in without)


def first_speaks() -> None:
    """Of the processes that ``torchrun`` started on one piece of work, only the first says anything but errors."""
    if not is_first():
        stderr.quiet, _talk.silent = True, True


@contextmanager
def part_of_more() -> Iterator[None]:
    """Around commands that are run one after the other: what one does next is known, and not said."""
    before, _talk.within = _talk.within, True
    try:
        yield
    finally:
        _talk.within = before


def answer(options: Options, document: Mapping[str, Any], text: str, error: LogitstoreError | None = None) -> None:
    """Print the result of a command: for people, or with ``--json`` as one line of JSON (see ``docs/json.md``).

    :param document: plain JSON values. :param error: what the command will fail with, although it has a result.
    """
    if _talk.silent:
        return
    if not getattr(options, "json", False):
        echo(text)
        return
    _talk.answered = error is not None
    echo(in_json(_headed(0 if error is None else error.exit_code, error) | dict(document)))


def streamed(write: Callable[[IO[str]], None]) -> None:
    """Print the result of a command with ``--json`` as it comes.

    :param write: writes further keys and their values, in JSON, each with a comma behind it; where it fails, what it
        has written must do with the rest of an object behind it.
    """
    out = sys.stdout
    out.write(f'{{"command": {in_json(_talk.command)}, ')
    code, error = 0, None
    try:
        write(out)
    except LogitstoreError as failed:
        code, error = failed.exit_code, str(failed)
        _talk.answered = True
        raise
    except KeyboardInterrupt:
        code, error = INTERRUPTED, "interrupted"
        _talk.answered = True
        raise
    finally:
        out.write(f'"exit_code": {code}, "error": {in_json(error)}}}\n')


def _headed(code: int, error: object) -> dict[str, Any]:
    return {"command": _talk.command, "exit_code": code, "error": None if error is None else str(error)}


class _Notes(logging.Handler):
    """Prints the notes of one command, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            stderr.print(one_line(f"{getattr(record, 'kind', 'note'):<10} {message}"), soft_wrap=True)


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
        _talk.command, _talk.answered = _name(ctx), False
        _talk.line = shlex.join([*ctx.command_path.split(), *args])
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            near = difflib.get_close_matches(error.option_name, [f"--{each.flag}" for each in self.fields], n=1)
            raise click.NoSuchOption(error.option_name, possibilities=near, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> None:
        stderr.quiet, _talk.verbose, _talk.silent = ctx.params["quiet"], ctx.params["verbose"], False
        LOGGER.handlers = [_Notes()]
        LOGGER.setLevel(logging.INFO)
        asked = self.asked(ctx)
        _talk.json = bool(getattr(asked, "json", False))
        if ctx.params["print_config"]:
            echo(dump(asked).rstrip())
            return
        if _talk.verbose:
            stderr.print(dump(asked), end="", soft_wrap=True)
        from logitstore.cli.glance import glance

        glance(asked)
        try:
            self.body(asked)
        except BrokenPipeError as error:  # which click would make exit code 1 of
            raise _ReaderGoneError from error

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
        values = self.options.filled(values)
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


class _ReaderGoneError(Exception):
    """Nobody reads any more what is printed."""


def _name(ctx: click.Context) -> str:
    """What a command is called, without its program where that has several: ``import ced``."""
    above = ctx.parent
    name = str(ctx.command.name)
    return name if above is None or above.parent is None else f"{_name(above)} {name}"


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


#: While a shell asks what can follow: what a word of an option's value can become.
completer: Callable[[Field, str], list[CompletionItem]] | None = None


def _completing(each: Field) -> Callable[[click.Context, click.Parameter, str], list[Any]] | None:
    """How the value of an option is completed; None where its choices tell that already."""
    if each.choices:
        return None
    return lambda ctx, param, word: [] if completer is None else completer(each, word)


class _NumberOrWord(click.ParamType):  # type: ignore[type-arg]
    """A number, or one of some words in its place."""

    def __init__(self, kind: type, words: tuple[str, ...]) -> None:
        self.number, self.words = click.types.convert_type(kind), words
        self.name = self.number.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self.words:
            return value
        try:
            return self.number.convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}, nor {' or '.join(self.words)}.", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


def _parameter(each: Field) -> click.Parameter:
    kind: Any = click.Choice([str(choice) for choice in each.choices]) if each.choices else each.kind
    if each.kind is dict:
        kind = str
    if each.words:
        kind = _NumberOrWord(kind, each.words)
    if each.option.argument:
        return click.Argument(
            [each.name], type=kind, nargs=-1 if each.many else 1, required=False, shell_complete=_completing(each)
        )
    names = [f"--{each.flag}", *([f"-{each.option.short}"] if each.option.short else []), each.name]
    if each.kind is bool:
        return click.Option(names, is_flag=True, help=each.option.help)
    many = each.many or each.kind is dict
    return click.Option(
        names, type=kind, multiple=many, nargs=each.option.words, help=each.option.help,
        shell_complete=_completing(each),
    )  # fmt: skip


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
        click.Option(
            ["--print-config"], is_flag=True,
            help="Show all options as they are used, in a form that --config takes, and exit.",
        ),
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

    Exit codes: 0 done, 1 a failed job, 2 usage, 130 interrupted (Ctrl-C or a signal to terminate), 141 nobody reads
    what is printed any more.
    """
    atexit.register(gc.freeze)  # at its end Python would search all objects of torch for cycles, for half a second
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    _talk.verbose, _talk.json, _talk.answered, _talk.command = False, "--json" in sys.argv[1:], False, ""
    with _escaping(), _said_once():
        try:
            program.main(standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            if isinstance(error, click.UsageError) and error.ctx is not None:
                hint = f"Try '{error.ctx.command_path} {error.ctx.help_option_names[0]}' for help."
                echo(f"{error.ctx.get_usage()}\n{hint}\n", err=True)
            fail(error.format_message(), error.exit_code)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort) as error:
            if isinstance(error.__cause__, EOFError):  # click takes the end of any file for one of the keyboard's input
                raise error.__cause__ from None
            fail(GOES_ON if _talk.command.startswith("train-") else interrupted, INTERRUPTED)
        except (_ReaderGoneError, BrokenPipeError):
            _print_no_more()
            sys.exit(READER_GONE)
        except LogitstoreError as error:
            _trace()
            fail(str(error), error.exit_code)
        except OSError as error:
            _trace()
            if error.filename is None:
                _print_no_more()  # it may be stdout that is full
            named = "" if error.filename is None else f": {os.fsdecode(error.filename)!r}"
            fail(f"{error.strerror or error}{named}", 1)
        except MemoryError:
            _trace()
            fail("there is not enough memory", 1)
    sys.exit(0)


@contextmanager
def _said_once() -> Iterator[None]:
    """While a program runs, a library that sets logging up does not say every note again."""
    before, LOGGER.propagate = LOGGER.propagate, False
    try:
        yield
    finally:
        LOGGER.propagate = before


@contextmanager
def resumable() -> Iterator[None]:
    """Around a job that the same command goes on with: an interrupt says so."""
    try:
        yield
    except KeyboardInterrupt:
        fail(_KEPT, INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """Print one line to stderr, with ``--json`` an object to stdout too, and leave."""
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # again, while all is put away: at once
    fault(message)
    with suppress(OSError):
        if _talk.json and not _talk.answered:
            echo(in_json(_headed(code, message)))
        sys.stdout.flush()
    sandbox = sys.modules.get("logitstore.sql.sandbox")
    if sandbox is not None and sandbox.abandoned():  # a query that does not end would go on while Python cleans up
        os._exit(code)
    sys.exit(code)


def fault(message: str) -> None:
    """Print one line to stderr that says what is wrong."""
    print(f"Error: {one_line(message)}", file=sys.stderr)


class _Escaping:
    """A text stream that shows what does not print escaped; rich writes to the stream below."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write text; ends of lines and tabs are left alone."""
        self.rich_proxied_file.write(printable(text, "\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def _escaping() -> Iterator[None]:
    """While it lasts, text that anything prints is escaped, and a warning is a line."""
    before = sys.stdout, sys.stderr, warnings.formatwarning
    for stream in before[:2]:
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    nowhere = None if all(before[:2]) else Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = (_Escaping(cast(TextIO, stream or nowhere)) for stream in before[:2])
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {one_line(str(message))}\n"
    try:
        yield
    finally:
        sys.stdout, sys.stderr, warnings.formatwarning = before


def _trace() -> None:
    if _talk.verbose:
        traceback.print_exc()


def _print_no_more() -> None:
    """Let what is still to be printed go nowhere: Python would try again, and complain, when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
