"""What is printed: escaped whatever prints it, one line an error, and the exit code that a shell expects."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from rich.progress import Progress, TextColumn

from logitstore.cli import command as printing
from logitstore.errors import UsageError
from tests.small_store import Made, make_store

EVIL = "\x07\x1b]0;mine\x1b[31m\x9b31m\rforged\u202e\udcff [/x] [link=http://x]y[/link]"
TOLD = EVIL.replace("\udcff", "")  # pytest keeps what is warned of and logged, and sends it from process to process
PROGRAM = [sys.executable, "-c", "from logitstore.cli.main import main; main()"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("printing") / "store")


def by_library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(TOLD, stacklevel=1)
    logging.getLogger("some.library").warning(TOLD)
    print(EVIL)
    sys.stderr.writelines([EVIL, "\n"])


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (lambda: printing.echo(EVIL), 0),
        (lambda: printing.echo(EVIL, err=True), 0),
        (lambda: printing.note(EVIL), 0),
        (lambda: printing.fault(EVIL), 0),
        (lambda: printing.stderr.print(EVIL), 0),
        (by_library, 0),
        (lambda: (_ for _ in ()).throw(UsageError(EVIL)), 2),
        (lambda: (_ for _ in ()).throw(click.UsageError(EVIL)), 2),
        (lambda: (_ for _ in ()).throw(OSError(5, EVIL, EVIL)), 1),
    ],
)
def test_nothing_that_is_printed_steers_a_terminal(
    say: object, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit, match=str(code)):
        printing.run(click.Command("program", callback=say))  # type: ignore[arg-type]
    said = "".join(capsys.readouterr())
    assert said.replace("\n", "").isprintable()
    assert "[link=http://x]y[/link]" in said.replace("\n", "")


def test_a_bar_on_a_terminal_shows_names_as_they_are() -> None:
    console = printing._Console()
    console.file = io.StringIO()
    console._force_terminal = True
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(EVIL, total=1)
    text = console.file.getvalue()
    assert "\x07" not in text
    assert "\x9b" not in text
    assert r"\x1b[31m" in text


def test_a_name_makes_no_second_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise UsageError("a\nError: forged " + "x" * 10**6)

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit, match="2"):
        printing.run(click.Command("program", callback=fails))
    said = capsys.readouterr().err
    assert said.startswith(r"Error: a\nError: forged xxx")
    assert said.count("\n") == 1
    assert len(said) < 3000


def test_what_cannot_be_printed_is_an_error(made: Made) -> None:
    for more in ([], ["FROM clips"], ["FROM clips", "--json"]):
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [*PROGRAM, "inspect", str(made.path), *more],
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert (ended.returncode, ended.stderr) == (1, b"Error: No space left on device\n")


def test_stdout_may_be_closed(made: Made) -> None:
    for more in ("", "'FROM clips'"):
        shell = f"exec {sys.executable} -c '{PROGRAM[2]}' inspect -q {made.path} {more} >&-"
        ended = subprocess.run(["sh", "-c", shell], stderr=subprocess.PIPE, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
