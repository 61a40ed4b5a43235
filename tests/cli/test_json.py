"""``--json`` of every command: one shape, with the keys that ``docs/json.md`` says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from logitstore.cli.command import run
from logitstore.cli.main import _COMMANDS, cli
from tests.stores import TONE_TEACHER, write_audio

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
HEAD = {"command", "exit_code", "error"}


def documented() -> dict[str, set[str]]:
    """The keys of each row of the page's table of commands, beside those that all have."""
    found: dict[str, set[str]] = {}
    for commands, keys in re.findall(r"^\| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE):
        names = set(re.findall(r"`(\w+)`", re.sub(r"those of `inspect`|\(.*?\)|;.*", "", keys)))
        for command in re.findall(r"`([^`]+)`", commands):
            found[command] = names | found["inspect"] if "those of `inspect`" in keys else names
    return found


@pytest.fixture
def said(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    (own_folder / "tones.py").write_text(TONE_TEACHER)
    write_audio(own_folder / "audio", 6)
    Path("audio/bad\n.wav").write_text("no audio")
    Path("labels.csv").write_text(
        "path,label\n" + "".join(f"{file.relative_to('audio')},tone 300 Hz\n" for file in Path("audio").rglob("0*.wav"))
    )

    def call(*arguments: object, code: int = 0) -> list[dict[str, Any]]:
        words = [*map(str, arguments), "--json"]
        before, sys.argv = sys.argv, ["logitstore", *words]
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit, match=str(code)) as left:
                run(cli)
        finally:
            sys.argv = before
        out = capsys.readouterr()
        assert left.value.code == code, out
        return [json.loads(line) for line in out.out.splitlines()]

    return call


def test_every_command_prints_one_shape(said: Any) -> None:
    pages = documented()
    teacher, small = ("--teacher", "python:tones:plain"), ("--clip-seconds", 2, "--topk", 4, "--device", "cpu")
    build = ("build", "audio", "--out", "store", *teacher, "--views", 1, *small, "--shard-clips", 4)
    write_audio(Path("more/new"), 2)
    training = ("--device", "cpu", "--model-arg", "width=2", "--model-arg", "mels=16", "--model-arg", "hop_ms=40",
                "--steps", 1, "--batch-size", 2, "--workers", 1)  # fmt: skip
    calls: dict[str, tuple[object, ...]] = {
        "build --dry-run": (*build, "--dry-run"),
        "build": build,
        "extend --dry-run": ("extend", "store", "more", *teacher, "--device", "cpu", "--dry-run"),
        "extend": ("extend", "store", "more", *teacher, "--device", "cpu"),
        "status": ("status", "store"),
        "verify": ("verify", "store"),
        "repair": ("repair", "store"),
        "inspect": ("inspect", "store"),
        "inspect SQL": ("inspect", "store", "FROM clips"),
        "inspect SQL --out FILE": ("inspect", "store", "FROM clips", "--out", "clips.csv"),
        "inspect @": ("inspect", "store", "@"),
        "export": ("export", "store", "--format", "parquet", "--out", "flat.parquet"),
        "evaluate": ("evaluate", "labels.csv", "--audio-root", "audio", "--label-column", "label", *teacher,
                     "--device", "cpu"),
        "tag": ("tag", *teacher, "--seconds", 1, "--device", "cpu", *sorted(Path("more").rglob("*.wav"))),
        "train-student": ("train-student", "store", "--audio-root", "audio", "--student", "cnn4", "--out", "run",
                          *training),
        "train-teacher": ("train-teacher", "labels.csv", "--audio-root", "audio", "--label-column", "label", "--model",
                          "cnn4", "--out", "taught", *training),
    }  # fmt: skip
    for name, arguments in calls.items():
        if name == "train-student":
            Path("more/new").rename("audio/new")
        found = said(*arguments)
        assert len(found) == (2 if name == "tag" else 1), name
        for each in found:
            assert set(each) == HEAD | pages[name], name
            assert (each["command"], each["exit_code"], each["error"]) == (str(arguments[0]), 0, None)
    assert said("status", "store")[0]["failures"][0]["path"] == "bad\n.wav"
    tried = {str(arguments[0]) for arguments in calls.values()}
    assert tried | {"import", "export-student", "demo"} >= set(_COMMANDS), (
        "a command of which nobody knows what it prints"
    )


def test_what_goes_wrong_is_an_object_too(said: Any) -> None:
    for command, arguments, code, error in (
        ("status", ["nowhere"], 2, "no store at nowhere"),
        ("status", ["--jsonn"], 2, "No such option"),
        ("inspect", ["nowhere", "--format", "magic"], 2, "magic"),
        ("tag", ["a.wav", "--teacher", "magic:x"], 2, "magic"),
    ):
        (found,) = said(command, *arguments, code=code)
        assert set(found) == HEAD
        assert (found["command"], found["exit_code"]) == (command, code)
        assert re.search(error, found["error"])
