"""Completion: what can follow a command line, and the three shells themselves, with the script that is printed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from logitstore.cli.completion import _after, following


def values(line: str) -> list[str]:
    return [str(item.value) for item in following(line)]


def kinds(line: str) -> list[str]:
    return [item.type for item in following(line)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a run, a checkpoint and something hidden."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/teacher", ".hidden"):
        Path(name).mkdir(parents=True)
    Path("runs/base.pt").touch()
    return tmp_path


def test_commands_options_and_choices_follow():
    assert values("logitstore tr") == ["train-student", "train-teacher"]
    assert values("logitstore teachers sh") == ["show"]
    assert values("logitstore build --dry") == ["--dry-run"]
    assert values("train-student store --preci") == ["--precision"]
    assert values("/usr/bin/logitstore tag --format ra") == ["raven"]
    assert values("export-student --int") == ["--int8"]
    assert {"--views", "--teacher", "--out"} <= set(values("logitstore build -"))
    assert values("logitstore tag --format=au") == ["audacity"]


def test_questions_nets_recipes_and_terms_follow():
    assert "@coverage" in values("logitstore inspect store @co")
    assert values("train-student store --student ced-t") == ["ced-tiny"]
    assert values("logitstore build --recipe ge") == ["gentle"]
    assert values("train-student store --term iu") == ["iusp"]


def test_teachers_are_kinds_then_files_or_run_folders():
    assert {"ced:", "yamnet:", "onnx:", "runs/"} <= set(values("logitstore build --teacher "))
    assert ".hidden/" not in values("logitstore build --teacher ")
    assert values("logitstore build --teacher ced:runs/") == ["ced:runs/base.pt", "ced:runs/teacher/"]
    assert values("logitstore build --teacher runs/") == ["runs/teacher/"]
    assert values("logitstore build --teacher python:") == []
    assert kinds("logitstore build --teacher ya") == ["part"]
    assert values("logitstore teachers show pan") == ["panns:"]


def test_files_and_folders_are_the_shells_own():
    assert kinds("logitstore verify sto") == ["dir"]
    assert kinds("logitstore build au") == ["file"]
    assert kinds("logitstore tag a.w") == ["file"]
    assert kinds("logitstore inspect store --out r") == ["file"]
    assert kinds("train-teacher labels.csv --out r") == ["dir"]
    assert kinds("logitstore build audio --views 1") == []


def test_nothing_follows_what_there_is_not():
    assert values("logitstore nothing --vi") == []
    assert values("ls -") == []
    assert values("") == []


@pytest.mark.parametrize(
    ("value", "line", "current", "rest"),
    [
        ("@coverage", "logitstore inspect store @co", "co", "@coverage"),
        ("@coverage", "logitstore inspect store @", "@", "@coverage"),
        ("ced:a b.pt", "logitstore build --teacher ced:", ":", "'a b.pt'"),
        ("--views", "logitstore build --v", "--v", "--views"),
        ("build", "logitstore ", "", "build"),
    ],
)
def test_bash_gets_what_follows_its_own_beginning_of_a_word(value, line, current, rest):
    assert _after(value, line, current) == rest


def typed(shell: list[str], setup: str, line: str, wanted: str) -> str:
    """What a shell on a terminal shows when a line is typed and the tab key is pressed, until that is there."""
    environment = os.environ | {
        "PATH": f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}", "TERM": "xterm", "PS1": "> ",
    }  # fmt: skip
    ours, theirs = pty.openpty()
    process = subprocess.Popen(shell, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    shown = ""
    try:
        for text, until in ((f"{setup}; echo re''ady\n", "ready"), (f"{line}\t", wanted)):
            before = len(shown)
            os.write(ours, text.encode())
            end = time.monotonic() + 60
            while until not in shown[before:] and time.monotonic() < end:
                if select.select([ours], [], [], 0.1)[0]:
                    shown += os.read(ours, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("logitstore inspect store @cov", "@coverage"),
        ("logitstore build --teacher ced:runs/b", "ced:runs/base.pt"),
        ("logitstore tag ru", "runs/"),
    ],
)
def test_bash_completes_on_a_terminal(line, wanted):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed: apt-get install bash")
    shown = typed(["bash", "--norc", "--noprofile", "-i"], 'eval "$(logitstore completion bash)"', line, wanted)
    assert wanted in shown


def test_zsh_completes_on_a_terminal():
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed: apt-get install zsh")
    setup = 'autoload -U compinit; compinit -u -D; eval "$(logitstore completion zsh)"'
    line, wanted = "logitstore build --teacher ced:runs/b", "ced:runs/base.pt"
    assert wanted in typed(["zsh", "-f", "-i"], setup, line, wanted)


def test_fish_completes():
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed: apt-get install fish")
    for line, wanted in (
        ("logitstore inspect store @cov", "@coverage"),
        ("logitstore build --teacher ced:runs/b", "ced:runs/base.pt"),
        ("train-student --preci", "--precision"),
    ):
        code = f"logitstore completion fish | source; complete -C '{line}'"
        here = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True, env=here)
        assert wanted in done.stdout.split()
