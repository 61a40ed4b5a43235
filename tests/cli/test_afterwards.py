"""What a command says of what one usually does next: the real places, for what came out, and nothing to machines."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from logitstore.cli import afterwards
from logitstore.cli.command import part_of_more, run
from logitstore.cli.main import cli
from tests.heard import make_heard

SMALL = (
    "--model-arg width=2 --model-arg mels=16 --model-arg hop_ms=40 --device cpu --steps 2 --batch-size 6 --workers 1"
)
BUILT = "--teacher teacher-1 --views 1 --topk 3 --clip-seconds 0.6 --device cpu --workers 1"

#: A command line in a folder with a store, its exit code, and commands that it has to name; each may use what one
#: before made.
LINES = [
    (f"build labels.csv --audio-root audio --out new --dry-run {BUILT}", 0,
     [f"logitstore build labels.csv --audio-root audio --out new {BUILT}"]),
    (f"build labels.csv --audio-root audio --out 'a new one' {BUILT}", 0,
     ["logitstore look 'a new one'", "train-student 'a new one' --audio-root audio --out student"]),
    (f"build audio broken --out damaged {BUILT}", 0, ['logitstore inspect damaged "FROM failures"']),
    (f"build labels.csv --audio-root audio --out part --shard-clips 9 --shards 0:1 {BUILT}", 0,
     ["logitstore status part",
      f"logitstore build labels.csv --audio-root audio --out part --shard-clips 9 --shards 0:1 {BUILT}"]),
    ("status part", 0, ["logitstore verify part --partial"]),
    ("status store", 0, ["logitstore look store"]),
    ("verify store", 0, ["logitstore verify store --audio-root AUDIO"]),
    ("inspect store", 0, ["logitstore inspect store @"]),
    ("evaluate labels.csv --audio-root audio --teacher teacher-1 --label-column label", 0,
     ["logitstore evaluate labels.csv --audio-root audio --teacher teacher-1 --label-column label --per-class"]),
    ("compare store teacher-1 audio --device cpu", 0,
     ["logitstore tag --teacher teacher-1 audio", "export-student teacher-1 --out teacher-1.onnx"]),
    ("tag --teacher teacher-1 audio/00.wav", 0,
     ["logitstore tag audio/00.wav --teacher teacher-1 --format audacity --out labels"]),
    ("tag --teacher teacher-1 labels.csv", 1, []),
    ("teachers show teacher-1", 0, ["logitstore teachers check teacher-1"]),
    ("compare teacher-1 teacher-1 labels.csv --audio-root audio --device cpu", 0,
     ["logitstore tag --teacher teacher-1 audio"]),
    (f"train-student store --audio-root audio --student cnn4 --out runs/s {SMALL}", 0,
     ["logitstore compare store runs/s audio", "export-student runs/s --out runs/s.onnx"]),
    ("export store --format parquet --out flat.parquet", 0, ["python -c 'import duckdb; "]),
    ("repair store", 0, ["logitstore verify store"]),
]  # fmt: skip


def said(line: str, monkeypatch, capsys) -> tuple[int, list[str]]:
    """The exit code of a command line, and the commands that it names as next."""
    monkeypatch.setattr(sys, "argv", ["logitstore", *shlex.split(line)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run(cli)
    lines = capsys.readouterr().err.splitlines()
    first = next((number for number, text in enumerate(lines) if text.startswith("next ")), len(lines))
    return int(left.value.code or 0), [text[11:].replace("python -m pytest.", "") for text in lines[first:]]


@pytest.mark.usefixtures("one_thread")
def test_every_command_names_what_one_does_next(tmp_path, monkeypatch, capsys):
    make_heard(tmp_path, clips=18)
    monkeypatch.chdir(tmp_path)
    Path("broken").mkdir()
    Path("broken/none.wav").write_bytes(b"no audio" * 100)
    wrong = []
    for line, wanted, steps in LINES:
        code, found = said(line, monkeypatch, capsys)
        if code != wanted or not all(any(each.startswith(step) for each in found) for step in steps):
            wrong.append((line, code, found))
        if not steps and found:
            wrong.append((line, found))
    assert wrong == []
    for more in ("--json", "--quiet"):
        assert said(f"inspect store {more}", monkeypatch, capsys) == (0, [])
    with part_of_more():
        assert said("inspect store", monkeypatch, capsys) == (0, [])


@pytest.mark.parametrize(
    ("source", "given", "root"),
    [
        ("audio", None, "audio"),
        ("audio", "elsewhere", "elsewhere"),
        ("in/labels.csv", None, "in"),
        ("in/labels.txt", None, "in"),
        ("in/a.wav", None, "in"),
        ("in/*/a.wav", None, "in"),
        ("*.wav", None, "."),
        ("in/shards.tar", None, "in/shards.tar"),
        ((), None, "AUDIO"),
    ],
)
def test_the_audio_root_is_that_of_the_build(source, given, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("audio").mkdir()
    Path("in").mkdir()
    assert afterwards.audio_root(source, given) == root


def test_several_sources_have_the_folder_above_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/a", "x/b"):
        Path(name).mkdir(parents=True)
    assert afterwards.audio_root(["x/a", "x/b"], None) == str(tmp_path / "x")


def test_what_follows_several_stores_or_a_model_file():
    assert not any("compare" in each for each in afterwards.after_student("run", ["a", "b"], ["audio"]))
    quoted = shlex.quote("onnx:it's.onnx")
    assert afterwards.after_compare("it's.onnx", None) == [f"logitstore tag --teacher {quoted} AUDIO"]
    exported = afterwards.after_export_student("r", ["s.onnx", "s.int8.onnx"])
    assert exported[0] == "logitstore compare r s.int8.onnx AUDIO"
    assert afterwards.after_teacher("t", "in/labels.csv", "audio")[1] == (
        "logitstore build in/labels.csv --audio-root audio --teacher t --out store"
    )
