"""``inspect --shell``: one question after the other, at a prompt or from a script on stdin.

A query goes on over several lines and ends with ``;`` or an empty line; ``@NAME`` and commands such as ``.help`` are a
line each. Every query runs as ``inspect`` runs one: checked, in the same sandbox, under the same limits.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.cli.ask import Manner, ask, described, list_questions, named, read_stdin, show, typed
from logitstore.cli.command import INTERRUPTED, echo, fault, note, stderr
from logitstore.cli.prompt_words import COMMANDS, Vocabulary
from logitstore.errors import LogitstoreError, MissingExtraError, UsageError
from logitstore.options import nearest

if TYPE_CHECKING:
    from logitstore.store.reader import Store

_PARTS = re.compile(
    r"'(?:[^']|'')*(?:'|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<end>;|\n[ \t]*(?=\n|\Z))|.",
    re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_WELCOME = ".help helps; a query ends with ; or an empty line; Ctrl-C ends one that runs, Ctrl-D leaves"


def split(text: str) -> tuple[list[tuple[int, str]], str]:
    """The queries and commands of a text, each with the line that it begins in (from 1), and what is not ended yet.

    Semicolons and empty lines in quotes and comments end nothing. What is left is "" where all is ended.
    """
    found: list[tuple[int, str]] = []
    at = 0
    while at < len(text):
        begin = at + len(text[at:]) - len(text[at:].lstrip("; \t\r\n"))
        if begin == len(text):
            return found, ""
        line = 1 + text.count("\n", 0, begin)
        if text[begin] in ".@":
            end = text.find("\n", begin)
            at = len(text) if end < 0 else end
            found.append((line, text[begin:at].strip().rstrip(";").rstrip()))
            continue
        end = at = begin
        for part in _PARTS.finditer(text, begin):
            end, at = part.start(), part.end()
            if part["end"]:
                break
        else:
            return found, text[begin:]
        query = text[begin:end].strip()
        if _COMMENT.sub("", query).strip():
            found.append((line, query))
    return found, ""


class Shell:
    """A conversation about a store.

    :param places: where it lies, for what must not be written there. :param manner: how answers are written at first.
    :param parameters: values of ``$name``, for the queries that have it.
    """

    def __init__(self, store: Store, places: Sequence[str], manner: Manner, parameters: Mapping[str, Any]) -> None:
        self.store, self.places, self.manner, self.values = store, places, manner, dict(parameters)
        self.out: str | None = None
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The names that the store has, read when first asked for."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of(self.store)
        return self._vocabulary

    def run(self) -> None:
        """Answer until the user leaves, or a script is done.

        :raises MissingExtraError: there is a terminal, and the extra ``shell`` is not installed.
        :raises UsageError: stdin is a terminal and stdout is none. :raises LogitstoreError: a query of a script failed.
        """
        if not sys.stdin.isatty():
            self.script(read_stdin())
            return
        if not sys.stdout.isatty():
            raise UsageError(
                "--shell shows its prompt on stdout, which is no terminal; give the queries of a script on stdin, or "
                "one query and --out FILE"
            )
        with _ended_by_signals():
            self.converse()
        _leave()

    def script(self, text: str) -> None:
        """Answer the queries of a text in their order, until one fails.

        :raises LogitstoreError: one failed; the line that it begins in is named.
        """
        asked, rest = split(f"{text}\n\n")
        if rest.strip():
            raise UsageError(f"the script on stdin ends within a quote or comment: {rest.strip()[:60]!r}; close it")
        for line, query in asked:
            try:
                self.do(query)
            except EOFError:
                return
            except LogitstoreError as error:
                error.args = (f"line {line} of the script: {error}",)
                raise

    def converse(self, given: Any = None, shown: Any = None) -> None:
        """Answer at a prompt.

        :param given, shown: prompt_toolkit's input and output; the terminal's by default.
        """
        prompt = _prompt(lambda: self.vocabulary, given, shown)
        echo(f"{self.store!r}\n{_WELCOME}")
        while True:
            try:
                text = prompt()
            except KeyboardInterrupt:
                continue  # the line is given up
            except EOFError:
                return
            asked, rest = split(f"{text}\n\n")
            if rest.strip():
                fault("a quote or comment is not closed; close it, and ask again")
            for _, query in asked:
                try:
                    self.do(query)
                except EOFError:
                    return
                except KeyboardInterrupt:
                    fault("interrupted; the query was ended")
                    break
                except (LogitstoreError, OSError) as error:
                    fault(str(error))
                    break

    def do(self, query: str) -> None:
        """Answer one query, question or command.

        :raises EOFError: it was ``.quit``. :raises LogitstoreError: it cannot be answered.
        """
        if query.startswith("."):
            name, *rest = _words(query)
            if name == ".exit":
                name = ".quit"
            if name not in COMMANDS:
                raise UsageError(f"there is no command {name}; {nearest(name, COMMANDS)}")
            _BY_NAME[name](self, rest)
            return
        if query.startswith("@"):
            self._question(query)
            return
        self._ask(query, {name: value for name, value in self.values.items() if re.search(rf"\${name}\b", query)})

    def _question(self, query: str) -> None:
        if query == "@":
            self._questions([])
            return
        name, *rest = _words(query)
        question, given, printed = named(name), [], False
        while rest:
            word = rest.pop(0)
            if word == "--sql":
                printed = True
            elif word == "-p" and len(rest) > 1:
                given.append((rest.pop(0), rest.pop(0)))
            else:
                raise UsageError(f"{query!r}: after @NAME may stand -p NAME VALUE and --sql, and not {word!r}")
        known = {each.name for each in question.parameters}
        values = {name: value for name, value in self.values.items() if name in known} | typed(tuple(given))
        if printed:
            echo(described(question, values, self.store))
        else:
            self._ask(name, values)

    def _ask(self, sql: str, values: Mapping[str, Any]) -> None:
        manner = self.manner
        if self.out is not None:
            out, self.out = self.out, None
            manner = replace(manner, out=out, format=None, transpose=False)
            manner.check(self.places)
        rows, explanation = ask(self.store, sql, values, manner)
        show(explanation)
        if manner.out is not None:
            note(f"{rows:,} rows written to {manner.out}")

    # the commands

    def _help(self, _: list[str]) -> None:
        wide = max(len(f"{name} {takes}") for name, (takes, _) in COMMANDS.items())
        for name, (takes, what) in COMMANDS.items():
            echo(f"{f'{name} {takes}':<{wide}}  {what}")
        echo(_WELCOME)

    def _tables(self, _: list[str]) -> None:
        wide = max(map(len, self.vocabulary.tables))
        for name, columns in self.vocabulary.tables.items():
            lines = textwrap.wrap(", ".join(columns), max(20, shutil.get_terminal_size().columns - wide - 2))
            for number, line in enumerate(lines):
                echo(f"{'' if number else name:<{wide}}  {line}")

    def _schema(self, words: list[str]) -> None:
        (table,) = _takes(".schema", words, 1)
        if table not in self.vocabulary.tables:
            raise UsageError(f"there is no table {table!r}; {nearest(table, self.vocabulary.tables)}")
        self._ask(f'SELECT column_name AS "column", column_type AS "type" FROM (DESCRIBE {table})', {})

    def _questions(self, _: list[str]) -> None:
        echo(list_questions(self.store, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))

    def _format(self, words: list[str]) -> None:
        (kind,) = _takes(".format", words, 1)
        known = ("table", "markdown", "csv", "json", "ndjson")
        if kind not in known:
            raise UsageError(f".format {kind} is none that can be shown; allowed are {', '.join(known)}")
        transpose = self.manner.transpose and kind in ("table", "markdown")
        self.manner = replace(self.manner, format=kind, transpose=transpose)

    def _transpose(self, words: list[str]) -> None:
        manner = replace(self.manner, transpose=_switched(".transpose", words, self.manner.transpose))
        manner.check(self.places)
        self.manner = manner

    def _explain(self, words: list[str]) -> None:
        self.manner = replace(self.manner, explain=_switched(".explain", words, self.manner.explain))

    def _out(self, words: list[str]) -> None:
        (file,) = _takes(".out", words, 1)
        replace(self.manner, out=file, format=None, transpose=False).check(self.places)
        self.out = file

    def _set(self, words: list[str]) -> None:
        name, value = _takes(".set", words, 2)
        self.values |= typed(((name, value),))

    def _quit(self, _: list[str]) -> None:
        raise EOFError


_BY_NAME: dict[str, Callable[[Shell, list[str]], None]] = {
    ".help": Shell._help, ".tables": Shell._tables, ".schema": Shell._schema, ".questions": Shell._questions,
    ".format": Shell._format, ".transpose": Shell._transpose, ".explain": Shell._explain, ".out": Shell._out,
    ".set": Shell._set, ".quit": Shell._quit,
}  # fmt: skip


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {str(error).lower()}; close the quote") from error


def _takes(name: str, words: list[str], count: int) -> list[str]:
    if len(words) != count:
        raise UsageError(f"{name} takes {COMMANDS[name][0]}; give {'that' if count == 1 else 'both'}")
    return words


def _switched(name: str, words: list[str], now: bool) -> bool:
    """What a switch is set to: the other way without a word."""
    if words and words not in (["on"], ["off"]):
        raise UsageError(f"{name} {' '.join(words)} is neither on nor off; give one of them")
    found = words == ["on"] if words else not now
    note(f"{name} is {'on' if found else 'off'}")
    return found


# the terminal


def _prompt(vocabulary: Callable[[], Vocabulary], given: Any, shown: Any) -> Callable[[], str]:
    """What asks for a query and gives its text, which may have several lines.

    :raises MissingExtraError: the extra is not installed.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.lexers import PygmentsLexer
        from prompt_toolkit.output import create_output
        from pygments.lexers.sql import SqlLexer
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("prompt_toolkit", "pygments"):
            raise
        raise MissingExtraError(missing, "shell", "the prompt of inspect --shell") from error

    class Words(Completer):
        def get_completions(self, document: Any, event: Any) -> Iterator[Completion]:
            """The words of the vocabulary that fit."""
            line = document.current_line_before_cursor.lstrip()
            before = line if line[:1] in (".", "@") else split(document.text_before_cursor)[1]
            for word in vocabulary().suggest(before, event.completion_requested):
                yield Completion(word.text, -word.replaces, display_meta=word.about)

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif is_ended(buffer.text) and not buffer.document.text_after_cursor.strip():
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    session: Any = PromptSession(
        history=_history(),
        auto_suggest=AutoSuggestFromHistory(),
        completer=Words(),
        complete_in_thread=True,
        lexer=PygmentsLexer(SqlLexer),
        multiline=True,
        key_bindings=keys,
        prompt_continuation=lambda width, *_: "…> ".rjust(width),
        input=given,
        output=shown or create_output(getattr(sys.stdout, "rich_proxied_file", sys.stdout)),
    )
    return lambda: str(session.prompt("logitstore> "))


def is_ended(text: str) -> bool:
    """Whether Enter ends what has been typed: it is a line of its own, ends with ``;``, or its last line is empty."""
    return not text.strip() or not split(text)[1] or text.endswith("\n")


def history_file() -> Path:
    """Where the shell keeps what was asked: in the user's folder for the state of programs."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "logitstore" / "history"


def _history() -> Any:
    """What was asked before, in a file that only the user can read; kept in memory alone where that cannot be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        file = history_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchmod(opened, 0o600)
        os.close(opened)
    except (OSError, RuntimeError) as error:
        note(f"what is asked is not kept for the next time: {getattr(error, 'strerror', None) or error}")
        return InMemoryHistory()
    return FileHistory(str(file))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While it lasts, Ctrl-C alone ends a query: the signals that end a program end the shell."""

    def leave(number: int, _: Any) -> None:
        raise SystemExit(INTERRUPTED)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _leave() -> None:
    """End the process without waiting for a query that was ended and does not hear it."""
    from logitstore.sql.sandbox import abandoned

    if abandoned():
        sys.stdout.flush()
        stderr.file.flush()
        os._exit(0)
