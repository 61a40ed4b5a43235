"""``docs/reference.md``, from the options themselves: ``python -m logitstore.cli.reference > docs/reference.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from logitstore.cli.command import OptionsCommand, described, general_help, spelled
from logitstore.cli.main import cli
from logitstore.options import Field

_BEGIN = """# Reference

Every command and every option. This file is made by `python -m logitstore.cli.reference`; a test compares the two.

An option is one thing in four places: a flag (`--batch-size 32`), a key of a YAML file that `--config` reads
(`batch-size: 32`; the flag without dashes, arguments included), a keyword in Python (`batch_size=32`, named below where
it is not the flag with underscores), and a check of its value. What is given on the command line wins over the file.
`train-student`, `train-teacher` and `export-student` are commands of their own too.

Older spellings still work: `--amp` is `--precision amp`, the 16-bit format that the device is made for: bf16 on a CPU,
fp16 on a GPU. Stores that were built with it say `amp` in their manifest, and go on with `--amp`, or with
`--precision bf16` on a CPU and `--precision fp16` on a GPU. `--onnx` of `export-student` and `--output` of `inspect`
are `--out`.
"""


def commands() -> dict[str, OptionsCommand]:
    """Every command by its full name, in the order of the help."""
    found: dict[str, OptionsCommand] = {}
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        group = command.commands if isinstance(command, click.Group) else {"": command}
        for part, each in group.items():
            assert isinstance(each, OptionsCommand)
            found[f"logitstore {name} {part}".rstrip()] = each
    return found


def reference() -> str:
    """The text of the file."""
    return "\n".join(
        [_BEGIN, *_general(), *(line for name, each in commands().items() for line in _section(name, each))]
    )


def _general() -> Iterator[str]:
    yield from ("## Every command", "", "| flag | what it does |", "| --- | --- |")
    yield from (f"| `{flag}` | {text} |" for flag, text in general_help())


def _section(name: str, command: OptionsCommand) -> Iterator[str]:
    arguments = [each for each in command.fields if each.option.argument]
    words = " ".join(each.shown if each.required else f"[{each.shown}]" for each in arguments)
    first = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
    yield from ("", f"## {name}", "", f"`{name} {words}`".replace(" `", "`"), "", first, "")
    yield from ("| option | Python | value | what it does |", "| --- | --- | --- | --- |")
    for each in command.fields:
        flag = each.shown if each.option.argument else spelled(each)
        keyword = f"`{each.name}`" if each.name != each.key.replace("-", "_") else ""
        cells = (f"`{flag}`".replace("|", "\\|"), keyword, _value(each), described(each).replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _value(each: Field) -> str:
    kinds = {bool: "flag", int: "whole number", float: "number", str: "text", dict: "mapping"}
    value = "one of these" if each.choices else kinds[each.kind]
    value = " or ".join((value, *each.words))
    return ", ".join(part for part in (value, each.allowed(), "repeatable" if each.many else None) if part)


if __name__ == "__main__":
    print(reference())
