"""``logitstore completion``: what a shell offers when the tab key is pressed.

The script of a shell asks this same command, with ``--line``, what can follow; so what is offered is what is installed:
commands, options and their choices, kinds of teachers, nets, recipes, terms, questions, and the shell's own files.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from logitstore.cli import command as commands
from logitstore.cli.command import command, echo
from logitstore.options import Field, Option, Options
from logitstore.texts import one_line

PROGRAMS = ("logitstore", "train-student", "train-teacher", "export-student")
#: Where bash begins a new word.
_BREAKS = frozenset("\"'@><=;|&(:")
_MOST_PATHS = 500

_BASH = r"""_logitstore_complete() {
    local kind value help
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case "$kind" in
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            part) COMPREPLY+=("$value"); compopt -o nospace ;;
            word) COMPREPLY+=("$value") ;;
        esac
    done < <(logitstore completion bash --line "${COMP_LINE:0:COMP_POINT}" \
        --current "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null)
}
complete -o nosort -F _logitstore_complete PROGRAMS
"""
_ZSH = r"""#compdef PROGRAMS
_logitstore() {
    local kind value help
    local -a found parts
    while IFS=$'\t' read -r kind value help; do
        case "$kind" in
            file) _files ;;
            dir) _files -/ ;;
            part) parts+=("$value") ;;
            word) found+=("${value//:/\\:}:$help") ;;
        esac
    done < <(logitstore completion zsh --line "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    (( $#parts )) && compadd -S '' -a parts
    (( $#found )) && _describe -V candidates found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _logitstore "$@"
else
    compdef _logitstore PROGRAMS
fi
"""
_FISH = r"""function __logitstore_complete
    set -l line (commandline -cp | string collect)
    for each in (logitstore completion fish --line "$line" 2>/dev/null)
        set -l cells (string split \t -- $each)
        switch $cells[1]
            case file
                __fish_complete_path (commandline -ct)
            case dir
                __fish_complete_directories (commandline -ct)
            case part word
                printf '%s\t%s\n' $cells[2] "$cells[3]"
        end
    end
end
for program in PROGRAMS
    complete --command $program --no-files --arguments '(__logitstore_complete)'
end
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@dataclass(frozen=True, kw_only=True)
class _Completion(Options):
    shell: Annotated[Literal["bash", "zsh", "fish"], Option("The shell.", argument=True, metavar="SHELL")]
    line: Annotated[
        str | None,
        Option("Print what can follow this beginning of a command line, as the script asks it, and no script.",
               group="Options", metavar="TEXT"),
    ] = None  # fmt: skip
    current: Annotated[
        str | None,
        Option("The end of it that bash takes for a word of its own.", group="Options", metavar="TEXT"),
    ] = None


@command("completion", _Completion)
def completion_command(options: _Completion) -> None:
    """Print the script that completes command lines in SHELL: bash (4.4 or later), zsh or fish.

    It is for all four programs, and read by one line in what the shell reads when it begins.

    \b
    Example:
      echo 'eval "$(logitstore completion bash)"' >> ~/.bashrc
      echo 'eval "$(logitstore completion zsh)"' >> ~/.zshrc
      logitstore completion fish > ~/.config/fish/completions/logitstore.fish
    """
    if options.line is None:
        echo(_SCRIPTS[options.shell].replace("PROGRAMS", " ".join(PROGRAMS)).rstrip())
        return
    for item in following(options.line):
        kind = {"plain": "word"}.get(item.type, item.type)
        value = _after(str(item.value), options.line, options.current)
        echo("\t".join((kind, one_line(value), one_line(item.help or ""))))


def following(line: str) -> list[CompletionItem]:
    """What can follow the beginning of a command line, its last word not yet written to its end.

    An item's type is plain; part, of which more is to come; or file or dir, which the shell itself looks for.
    """
    words = split_arg_string(line)
    word = "" if not words or line[-1:].isspace() else words.pop()
    if not words or Path(words[0]).name not in PROGRAMS:
        return []
    program = Path(words[0]).name
    commands.completer = candidates
    try:
        return ShellComplete(_program(program), {}, program, "").get_completions(words[1:], word)
    except click.ClickException:  # a command that there is not
        return []
    finally:
        commands.completer = None


def _after(value: str, line: str, current: str | None) -> str:
    """A candidate without what bash has before the word that it completes."""
    if current is None:
        return value
    words = split_arg_string(line)
    word = "" if not words or line[-1:].isspace() else words[-1]
    if set(current) <= _BREAKS:
        current = ""
    before = word[: len(word) - len(current)] if word.endswith(current) else ""
    before = before.removesuffix("@")  # which readline takes into the word that it replaces
    return shlex.quote(value[len(before) :]) if value.startswith(before) else value


def _program(name: str) -> click.Command:
    from logitstore.cli.main import command_of

    return command_of(name)


def candidates(each: Field, word: str) -> list[CompletionItem]:
    """What a word of an option's value can become, by what the option says that its value names."""
    names = each.option.names
    if names in _NAMED:
        return [*_NAMED[names](word)]
    if names in ("store", "run"):
        return [CompletionItem(word, type="dir")]
    if each.name == "sql":
        return [*_questions(word)]
    if each.name == "terms":
        return [*_terms(word)]
    shown = set(re.split(r"[|.]+", each.placeholder))
    if names is None and _FOLDERS & shown:
        return [CompletionItem(word, type="dir")]
    return [CompletionItem(word, type="file")] if names is not None or _FILES & shown else []


#: Words of placeholders whose values are folders, and files.
_FOLDERS = frozenset(("DIR", "PLACE", "STORE", "RUN"))
_FILES = frozenset(("FILE", "AUDIO", "MANIFEST", "LABELS", "OUT", "LOGITS", "A", "B"))


def _starting(names: dict[str, str], word: str, kind: str = "plain") -> Iterator[CompletionItem]:
    for name, about in names.items():
        if name.startswith(word):
            yield CompletionItem(name, type=kind, help=about)


def _teachers(word: str) -> Iterator[CompletionItem]:
    """Kinds of teachers up to their colon, then what a kind names; run folders where there is none."""
    from teachers.registry import forms

    kinds = {form.partition(":")[0] + ":": about for form, about in forms().items() if ":" in form}
    kind, colon, rest = word.partition(":")
    if colon:
        if f"{kind}:" in kinds and kind != "python":
            yield from _paths(rest, f"{kind}:")
        return
    yield from _starting(kinds, word, "part")
    yield from _paths(word, folders=True)


def _paths(word: str, before: str = "", *, folders: bool = False) -> Iterator[CompletionItem]:
    """Files and folders whose names begin so; what is hidden only where its dot is there."""
    head, _, name = word.rpartition("/")
    folder = Path(f"{head}/" if "/" in word else ".").expanduser()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    found = 0
    for entry in entries:
        inside = entry.is_dir()
        hidden = entry.name.startswith(".") and not name.startswith(".")
        wanted = entry.name.startswith(name) and (inside or not folders) and not hidden
        if wanted and found < _MOST_PATHS:
            found += 1
            path = f"{head}/{entry.name}" if "/" in word else entry.name
            yield CompletionItem(f"{before}{path}{'/' * inside}", type="part" if inside else "plain")


def _nets(word: str) -> Iterator[CompletionItem]:
    from logitstore.models.registry import names

    return _starting(dict.fromkeys(names(), ""), word)


def _teacher_nets(word: str) -> Iterator[CompletionItem]:
    from logitstore.models.registry import names

    return _starting(dict.fromkeys((*names(), *names("TEACHERS")), ""), word)


def _recipes(word: str) -> Iterator[CompletionItem]:
    from logitstore.views.recipe import AUTO, BUILT_IN

    yield from _starting(dict.fromkeys((AUTO, *BUILT_IN), ""), word)
    yield from _paths(word)


def _questions(word: str) -> Iterator[CompletionItem]:
    from logitstore.queries import questions

    return _starting({f"@{name}": each.asks for name, each in questions().items()}, word)


def _terms(word: str) -> Iterator[CompletionItem]:
    from students.terms import names

    return _starting(names(), word)


_NAMED: dict[str | None, Callable[[str], Iterator[CompletionItem]]] = {
    "teacher": _teachers, "net": _nets, "teacher net": _teacher_nets, "recipe": _recipes,
}  # fmt: skip
