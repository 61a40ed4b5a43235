"""What ``--json`` prints of every command that has it, well done and failed, is what ``docs/json.md`` says."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.cli.command import OptionsCommand
from logitstore.cli.main import cli
from logitstore.models.registry import build as build_model
from logitstore.training.runs import save_run
from tests.heard import SMALL as SMALL_NET
from tests.heard import make_heard
from tests.sonyc import make_sonyc

ALWAYS = {"command", "exit_code", "error"}
SUMMARY = "all of `inspect`'s summary"
PAGE = Path(__file__).parents[2] / "docs" / "json.md"
SMALL = (
    "--model-arg width=2 --model-arg mels=16 --model-arg hop_ms=40 --device cpu --steps 2 --batch-size 6 --workers 1"
)
BUILT = "--teacher teacher-1 --views 1 --topk 3 --clip-seconds 0.6 --device cpu --workers 1"

#: The heading of the page, a command line in a folder with a store, its exit code; each may use what one before made.
LINES = [
    ("doctor", "doctor", 0),
    ("build", f"build labels.csv --audio-root audio --out new {BUILT}", 0),
    ("build", f"build nowhere.csv --audio-root audio --out new2 {BUILT}", 2),
    ("build --dry-run", f"build labels.csv --audio-root audio --out new2 --dry-run {BUILT}", 0),
    ("build", "extend new labels.csv --audio-root audio --teacher teacher-1 --skip-known --workers 1", None),
    ("build --dry-run", "extend new more --teacher teacher-1 --dry-run", 0),
    ("build", "extend nowhere audio --teacher teacher-1", 2),
    ("build", "build --like store --audio-root audio --out alike --teacher teacher-1 --workers 1", 0),
    ("build", "merge store alike --ensemble --out joint", 0),
    ("build", "merge store nowhere --ensemble --out joint", 2),
    ("import ced", "import npy scores.npy --names names.txt --classes classes.txt --scores logits --out npy "
                   "--audio-root audio --clip-seconds 0.6", 0),
    ("import ced", "import npy none.npy --names names.txt --classes classes.txt --scores logits --out npy2", 2),
    ("import ced", "import ced nowhere --audio-root audio --classes classes.txt --out ced", 2),
    ("plan", "plan --clips 2e6 --teacher any --rate 100 --price 2", 0),
    ("plan", "plan --clips 2e6 --teacher any --rate none", 2),
    ("status", "status store", 0),
    ("status", "status nowhere", 2),
    ("verify", "verify store", 0),
    ("verify", "verify damaged", 1),
    ("repair", "repair store", 0),
    ("repair", "repair damaged", 1),
    ("look", "look store", 0),
    ("look", "look nowhere", 2),
    ("show", "show store 0 --audio-root audio --wav view.wav", 0),
    ("show", "show store 999", 2),
    ("inspect", "inspect store", 0),
    ("inspect", "inspect nowhere", 2),
    ("inspect SQL", "inspect store @classes", 0),
    ("inspect SQL", "inspect store nonsense", 2),
    ("inspect SQL", "inspect store @classes --explain", 0),
    ("inspect @", "inspect store @", 0),
    ("inspect @NAME --sql", "inspect store @classes --sql", 0),
    ("inspect @NAME --sql", "inspect store @nothing --sql", 2),
    ("inspect --out", "inspect store @classes --out rows.csv", 0),
    ("inspect --out", "inspect store @classes --out rows.csv --explain", 0),
    ("inspect --out", "inspect store @classes --out rows.xlsx", 2),
    ("export", "export store --format parquet --out flat.parquet", 0),
    ("export", "export store --format parquet --out flat.parquet", 2),
    ("evaluate", "evaluate labels.csv --audio-root audio --teacher teacher-1 --label-column label", 0),
    ("evaluate", "evaluate labels.csv --audio-root audio --teacher teacher-1 --label-column none", 2),
    ("evaluate --predictions", "evaluate --measure sonyc --annotations annotations.csv --predictions scores.csv", 0),
    ("evaluate --predictions", "evaluate --measure sonyc --predictions scores.csv", 2),
    ("evaluate --events", "evaluate strong.csv --audio-root audio --events --teacher when", 0),
    ("evaluate --events", "evaluate strong.csv --audio-root audio --events --teacher teacher-1", 2),
    ("report", "report store --out page.html", 0),
    ("report", "report store nowhere --out page.html", 2),
    ("report --listen", "report store --audio-root audio --listen listen.html --clips 2", 0),
    ("report --listen", "report store --listen listen.html", 2),
    ("compare", "compare store teacher-1 audio --device cpu", 0),
    ("compare", "compare store teacher-1", 2),
    ("tag", "tag --teacher teacher-1 audio/00.wav", 0),
    ("tag", "tag --teacher teacher-1 labels.csv", 1),
    ("tag --frames", "tag --frames --teacher when audio/00.wav", 0),
    ("tag --frames", "tag --frames --teacher teacher-1 audio/00.wav", 2),
    ("teachers list", "teachers list", 0),
    ("teachers show", "teachers show teacher-1", 0),
    ("teachers show", "teachers show teacher-0", 2),
    ("teachers map", "teachers map teacher-1 labels.csv", 0),
    ("teachers map", "teachers map teacher-1 none.csv", 2),
    ("teachers check", "teachers check teacher-1 audio --clip-seconds 0.6 --device cpu --workers 1", 0),
    ("teachers check", "teachers check teacher-0", 2),
    ("train-student", f"train-student store --audio-root audio --student cnn4 --out run {SMALL}", 0),
    ("train-student", f"train-student store --audio-root audio --student nothing --out run2 {SMALL}", 2),
    ("train-student", f"train-teacher labels.csv --audio-root audio --label-column label --clip-seconds 0.6 "
                      f"--model cnn4 --out taught {SMALL}", 0),
    ("train-student", "train-teacher labels.csv --audio-root audio --label-column none --model cnn4 --out no", 2),
    ("export-student", "export-student run --out student.onnx", 0),
    ("export-student", "export-student nowhere --out other.onnx", 2),
    ("teachers init", "teachers init student.onnx --force", 0),
    ("teachers init", "teachers init classes.txt", 2),
]  # fmt: skip


def page() -> dict[str, set[str]]:
    """The keys that each heading of the page lists beside those that are always there."""
    found: dict[str, set[str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading = section.splitlines()[0].strip("`")
        cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")][1:]
        found[heading] = {key for cell in cells if SUMMARY not in cell for key in re.findall(r"`([^`]+)`", cell)}
        found[heading] |= {SUMMARY} if any(SUMMARY in cell for cell in cells) else set()
    return {name: (keys - {SUMMARY}) | (found["inspect"] if SUMMARY in keys else set()) for name, keys in found.items()}


def commands(group: Any = cli, above: str = "") -> set[str]:
    """The names of all commands that have ``--json``."""
    found = set[str]()
    for name in group.list_commands(None):
        each = group.get_command(None, name)
        if isinstance(each, OptionsCommand):
            found |= {above + name} if any("--json" in option.opts for option in each.params) else set()
        else:
            found |= commands(each, f"{name} ")
    return found


def test_every_command_with_json_is_run_here():
    run = {_name(line) for _, line, _ in LINES}
    assert commands() == run
    assert {heading for heading, _, _ in LINES} == page().keys()


@pytest.mark.usefixtures("one_thread")
def test_json_of_every_command_has_the_keys_of_the_page(tmp_path, monkeypatch, capsys):
    from logitstore.cli.command import run

    make_heard(tmp_path, clips=18)
    monkeypatch.chdir(tmp_path)
    np.save("scores.npy", np.linspace(-3, 3, 54, dtype=np.float32).reshape(18, 3))
    Path("names.txt").write_text("".join(f"{number:02d}.wav\n" for number in range(18)))
    Path("classes.txt").write_text("high\nlow\nmiddle\n")
    make_sonyc(tmp_path)
    Path("strong.csv").write_text("filename,onset,offset,event_label\n00.wav,0.1,0.4,high\n")
    when = SMALL_NET | {"pool": "mean", "time_halvings": 1}
    save_run("when", "cnn4", when, ("high", "low", "middle"), "sigmoid", 16_000, build_model("cnn4", 3, **when))
    Path("more").mkdir()
    Path("more/another.wav").write_bytes(Path("audio/03.wav").read_bytes())
    wrong = []
    for heading, line, wanted in LINES:
        if (
            heading in ("export-student", "teachers init") and find_spec("onnxscript") is None
        ):  # the extra `onnx` is not installed
            continue
        if line == "verify damaged":
            copy_damaged(Path("store"), Path("damaged"))
        monkeypatch.setattr(sys, "argv", ["logitstore", *line.split(), "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit, match=r"\d") as left:
            run(cli)
        code, said = int(left.value.code or 0), capsys.readouterr()
        assert said.out.count("\n") == 1, (line, said.out, said.err)
        document = json.loads(said.out)
        name = _name(line)
        keys = document.keys() - ALWAYS
        documented = page()[heading] - ({"row_count", "sampled", "explain"} - keys)
        result = not code or "problems" in document or "windows" in document
        if wanted not in (None, code) or document["command"] != name or document["exit_code"] != code:
            wrong.append((line, code, said.out[:300]))
        if (document["error"] is None) != (code == 0) or (code and f"{document['error']}"[:40] not in said.err):
            wrong.append((line, document["error"], said.err[-300:]))
        if keys != (documented if result else set()):
            wrong.append((line, keys ^ documented))
    assert not wrong


def _name(line: str) -> str:
    """The command of a line: two words where the first is a group."""
    return " ".join(line.split()[: 1 + line.startswith(("import", "teachers"))])


def copy_damaged(store: Path, place: Path) -> None:
    """Copy a store, with one byte of its largest object changed."""
    import shutil

    shutil.copytree(store, place)
    largest = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
