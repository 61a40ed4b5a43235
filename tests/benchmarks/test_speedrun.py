"""The speed run: its commands are the product's and the page's, every process is counted, and nothing is run twice."""

import json
import re
import shlex
import stat
import sys
from pathlib import Path

import pytest

from benchmarks.speedrun import STAGES, Finished, Plan, Spent, main, run, stages, table, verdict
from logitstore.cli.main import command_of
from logitstore.errors import RunError

PAGE = Path(__file__).parents[2] / "docs" / "speedrun.md"

#: Stands for every program: keeps what it was asked, works for 0.2 s of processor time, and leaves a file or an answer.
PROGRAM = f"""#!{sys.executable}
import json, os, sys, time
from pathlib import Path
name, asked = Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["ASKED"], "a") as file:
    print(json.dumps([name, os.environ["OMP_NUM_THREADS"], *asked]), file=file)
if name == os.environ.get("FAILS"):
    sys.exit("Error: no such thing")
while time.process_time() < 0.2:
    pass
if name == "export-student":
    Path(asked[asked.index("--out") + 1]).write_bytes(bytes(100))
if asked[0] == "evaluate":
    found = [asked[place + 1] for place, word in enumerate(asked) if word == "--teacher"]
    maps = [0.75, 0.5, 0.25][: len(found)]
    ensemble = {{"mAP": 0.95}} if len(found) > 1 else None
    print(json.dumps({{"members": [{{"mAP": each}} for each in maps], "ensemble": ensemble}}))
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Programs that do nothing, in the place of the real ones; gives what they were asked."""
    for name in ("logitstore", "train-teacher", "train-student", "export-student"):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(PROGRAM)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return lambda: [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]


def test_the_commands_are_those_of_the_page():
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    typed = [line[2:].replace(">", "").removesuffix("&") for line in lines if line.startswith("$ ")]
    words = [shlex.split(command.replace("OMP_NUM_THREADS=1", "")) for command in typed]
    wanted = stages("esc10", "runs", 5, 0, Plan())
    assert [each for each in words if each != ["wait"] and "evaluate" not in each and each[0] != "python"] == [
        command for name in STAGES for command in wanted[name]
    ]
    assert shlex.split("python -m benchmarks.speedrun esc10 --out runs/speed") in words


@pytest.mark.parametrize("held_out", [4, 5])
def test_every_command_is_one_that_there_is_and_the_student_gets_no_label(held_out):
    for name, commands in stages("esc10", "runs", held_out, 1, Plan(teachers=3)).items():
        assert len(commands) == (3 if name == "teachers" else 1)
        for program, *arguments in commands:
            command = command_of(arguments.pop(0) if program == "logitstore" else program)
            context = command.make_context(program, list(arguments))  # an unknown option would be an error
            assert ("label" in arguments) is (name == "teachers")
            where = context.params.get("where")
            assert where in (None, "fold IN (1, 2, 3, 4)" if held_out == 5 else "fold IN (1, 2, 3)")


def test_a_run_is_counted_measured_and_kept(asked, tmp_path):
    first = run("esc10", tmp_path / "out", 4, 3, Plan(), 2)
    ran = asked()
    assert [name for name, *_ in ran] == [
        "train-teacher", "train-teacher", "logitstore", "train-student", "export-student", "logitstore", "logitstore",
    ]  # fmt: skip
    assert {threads for name, threads, *_ in ran if name == "train-teacher"} == {"1"}
    assert {threads for name, threads, *_ in ran if name != "train-teacher"} == {"2"}
    assert sorted(words[words.index("--seed") + 1] for words in ran[:2]) == ["6", "7"]
    assert first.stages["teachers"].processor >= 0.4
    assert all(first.stages[name].processor >= 0.2 and first.stages[name].wall > 0 for name in STAGES)
    assert (first.student, first.teachers, first.ensemble, first.bytes) == (0.75, (0.75, 0.5), 0.95, 100)
    assert run("esc10", tmp_path / "out", 4, 3, Plan(), 2) == first
    assert len(asked()) == len(ran)
    with pytest.raises(RunError, match="is of other settings; give another --out"):
        run("esc10", tmp_path / "out", 4, 3, Plan(build=("--views", "2")), 2)


def test_the_table_has_every_stage_and_seed():
    runs = [
        Finished(seed, {name: Spent(10.0, 15.0) for name in STAGES}, student, 0.95, (0.9, 0.94), 100)
        for seed, student in enumerate((0.90, 0.92))
    ]
    lines = table(runs, 5, 2).splitlines()
    assert "| teachers | 10.0 | 15.0 | 75% |" in lines
    assert "| all | 40.0 | 60.0 | 75% |" in lines
    assert "| exported student | 0.900 | 0.920 | 0.910 ± 0.127 |" in lines
    assert "| its teachers, mean | 0.920 | 0.920 | 0.920 ± 0.000 |" in lines
    assert verdict(runs) == "40 s of at most 180 reached; mAP 0.910 of at least 0.90 reached"


def test_a_command_that_fails_is_named(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAILS", "train-student")
    assert main(["esc10", "--out", str(tmp_path / "out"), "--seeds", "1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: train-student ")
    assert "failed: Error: no such thing; all that it said is in" in said
    assert not list(tmp_path.rglob("finished.json"))
