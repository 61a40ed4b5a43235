"""Options: frozen flags, the reference, files of options, help, and answers that do not wait for heavy imports."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
import yaml
from click.testing import CliRunner

from logitstore.cli.command import command
from logitstore.cli.main import cli
from logitstore.cli.reference import commands, reference
from logitstore.errors import UsageError
from logitstore.options import Option, Options, dump, fields_of, key_values, read_config

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "zarr", "pyarrow", "duckdb", "sklearn")


def frozen() -> str:
    """Every command with its arguments and flags, former spellings last."""
    lines = []
    for name, each in commands().items():
        shown = [f"-{one.option.short}|{one.shown}" if one.option.short else one.shown for one in each.fields]
        former = [spelling for one in each.fields for spelling in one.option.old]
        lines.append(f"{name}: {' '.join([*shown, *(f'({spelling})' for spelling in former)])}")
    return "\n".join(lines) + "\n"


def test_the_flags_are_those_that_were_agreed_on():
    """A flag that users know does not go, or change its name, by accident: change flags.txt in the same commit."""
    assert frozen() == (Path(__file__).parent / "flags.txt").read_text()


def test_the_reference_is_that_of_the_options():
    found = (REPOSITORY / "docs" / "reference.md").read_text()
    assert found == reference() + "\n", "run: python -m logitstore.cli.reference > docs/reference.md"


@pytest.mark.parametrize("name", commands())
def test_every_command_helps(name):
    told = CliRunner().invoke(cli, [*name.split()[1:], "-h"])
    assert told.exit_code == 0
    assert "Example:" in told.output
    for flag in ("--config FILE", "-q, --quiet", "-v, --verbose", "--version", "-h, --help"):
        assert flag in told.output
    for each in commands()[name].fields:
        assert each.shown in told.output
        assert not each.required or "[required]" in told.output
        for former in each.option.old:
            assert former not in told.output.split()
    said = CliRunner().invoke(cli, [*name.split()[1:], "--version"])
    assert said.output.startswith("logitstore 0.")


@pytest.mark.parametrize("name", commands())
def test_every_command_takes_a_file_of_options_and_says_what_is_missing(name, tmp_path):
    (tmp_path / "c.yaml").write_text("unkown: 1\n")
    told = CliRunner().invoke(cli, [*name.split()[1:], "--config", str(tmp_path / "c.yaml")])
    assert isinstance(told.exception, UsageError)
    assert "has the unknown key 'unkown'" in str(told.exception)
    if any(each.required for each in commands()[name].fields):
        told = CliRunner().invoke(cli, name.split()[1:])
        assert "given neither on the command line nor in a --config FILE" in str(told.exception)


def test_a_mistyped_flag_or_command_is_answered_with_the_one_that_was_meant():
    assert "Did you mean '--views'?" in CliRunner().invoke(cli, ["build", "--vews", "3"]).output
    assert "no command 'biuld'; did you mean 'build'?" in CliRunner().invoke(cli, ["biuld"]).output


@dataclass(frozen=True, kw_only=True)
class Asked(Options):
    """Options of every kind."""

    place: Annotated[str, Option("A place.", argument=True)]
    number: Annotated[int, Option("A number.", least=1, short="n")] = 3
    share: Annotated[float | None, Option("A share.", above=0, below=1)] = None
    way: Annotated[Literal["up", "down"], Option("A way.", old={"--skyward": "up", "--course": None})] = "down"
    names: Annotated[Sequence[str], Option("Names.", flag="name")] = ()
    roots: Annotated[str | Sequence[str], Option("One or several.", flag="root", many=True)] = "."
    pairs: Annotated[Mapping[str, Any], Option("Pairs.", flag="pair", parse=key_values)] = field(default_factory=dict)
    sure: Annotated[bool, Option("Whether.", instead="number_of_doubts")] = False
    number_of_doubts: Annotated[int | None, Option("How many.", instead="sure")] = None


def asked(*arguments: str) -> Asked:
    """What a command with these options is asked."""
    seen: list[Asked] = []
    told = CliRunner().invoke(command("try", Asked)(seen.append), arguments)
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        raise told.exception
    assert seen, told.output
    return seen[0]


def test_one_declaration_is_flag_key_and_keyword(tmp_path):
    wanted = Asked(
        place="here", number=5, share=0.5, way="up", names=("a", "b"), roots="r", pairs={"k": 1, "t": True}, sure=True
    )
    line = ["here", "-n", "5", "--share", "0.5", "--way", "up", "--name", "a", "--name", "b", "--root", "r", "--pair",
            "k=1", "--pair", "t=true", "--sure"]  # fmt: skip
    assert asked(*line) == wanted
    file = tmp_path / "c.yaml"
    file.write_text(dump(wanted))
    assert Asked(**read_config(str(file), Asked)) == Asked(**{**vars(wanted)})
    assert yaml.safe_load(dump(wanted))["name"] == ["a", "b"]
    assert asked("--config", str(file)) == wanted
    assert asked("--config", str(file), "-n", "1", "--course", "down").number == 1


def test_former_spellings_and_python_names_still_work_in_both_places(tmp_path):
    assert asked("x", "--skyward").way == "up"
    assert asked("x", "--course", "up").way == "up"
    file = tmp_path / "c.yaml"
    file.write_text("place: x\nskyward: true\nnames: a\nnumber_of_doubts: 2\nshare: 1e-3\nroot: [a, b]\n")
    found = asked("--config", str(file))
    assert (found.way, found.names, found.number_of_doubts, found.share) == ("up", ("a",), 2, 1e-3)
    assert found.roots == ("a", "b")
    assert asked("--config", str(file), "--sure").number_of_doubts is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 0}, "--number is 0; it must be at least 1"),
        ({"number": "3"}, "--number is '3'; it must be a whole number"),
        ({"number": True}, "--number is True; it must be a whole number"),
        ({"share": 1.0}, "--share is 1; it must be more than 0 and less than 1"),
        ({"share": float("nan")}, "--share is nan; it must be more than 0 and less than 1"),
        ({"way": "left"}, "--way is 'left'; it must be one of up, down"),
        ({"names": "a"}, "--name is 'a'; it must be text or a list of texts"),
        ({"names": ["a", 1]}, "--name is .'a', 1.; it must be text or a list of texts"),
        ({"pairs": ["a"]}, "--pair is .'a'.; it must be a mapping"),
        ({"sure": 1}, "--sure is 1; it must be true or false"),
        ({"place": None}, "PLACE is None; it must be text"),
        ({"sure": True, "number_of_doubts": 1}, "--number-of-doubts and --sure are both given; give one of them"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_when_the_options_are_made(values, message):
    with pytest.raises(UsageError, match=message):
        Asked(**({"place": "x"} | values))


def test_verbose_shows_the_options_as_a_file_of_options(tmp_path):
    told = CliRunner().invoke(command("try", Asked)(lambda _: None), ["x", "-v"])
    assert yaml.safe_load(told.stderr)["place"] == "x"


def test_a_field_of_every_command_says_what_it_is():
    for name, each in commands().items():
        for one in each.fields:
            assert one.option.help.endswith((".", ".)")), f"{name} {one.shown}"
            assert one.option.instead is None or one.option.instead in {other.name for other in each.fields}
            former = {spelling.lstrip("-") for other in each.fields for spelling in other.option.old}
            assert not former & {other.key for other in each.fields}
    assert all(isinstance(each, click.Command) for each in commands().values())
    assert len(fields_of(Asked)) == 9


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["build", "--help"],
        ["train-student", "-h"],
        ["build", "nowhere", "--out", "store", "--teacher", "ced:none.pt"],
        ["build", ".", "--out", "store", "--teacher", "ced:none.pt"],
        ["build", ".", "--out", "store", "--teacher", "none", "--recipe", "none.yaml"],
        ["extend", "none", ".", "--teacher", "none"],
        ["verify", "none"],
        ["status", "none"],
        ["inspect", "none", "SELECT 1"],
        ["evaluate", "none.csv", "--label-column", "label", "--teacher", "."],
        ["tag", "none.wav", "--teacher", "ced:none.pt"],
        ["train-student", "none", "--audio-root", ".", "--student", "cnn4", "--out", "run"],
        ["train-student", "none", "--audio-root", ".", "--student", "cnn4", "--out", "run", "--lr", "0"],
        ["train-student", "--config", "none.yaml"],
        ["train-teacher", "none.csv", "--label-column", "label", "--model", "cnn4", "--out", "run"],
        ["export-student", "none", "--out", "x.onnx"],
        ["export", "none", "--format", "parquet", "--out", "x"],
        ["import", "npy", "none.npy", "--names", "n", "--classes", "c", "--scores", "logits", "--out", "s"],
    ],
    ids=" ".join,
)
def test_mistakes_are_answered_before_anything_heavy_is_imported(arguments, tmp_path):
    code = (
        "import sys, atexit\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: print('loaded', *(m for m in heavy if m in sys.modules)))\n"
        "from logitstore.cli.main import main\nmain()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert ended.returncode == (0 if arguments[-1] in ("--help", "-h") else 2), ended.stderr
    assert ended.stdout.splitlines()[-1] == "loaded", ended.stdout
    if ended.returncode:
        assert [line for line in ended.stderr.splitlines() if line.startswith("Error: ")], ended.stderr
        assert "Traceback" not in ended.stderr
