"""Every code block of the README and the guide runs here, as it stands, on small audio.

Python and YAML blocks run in a folder with a store `store` and its audio `audio`; a block whose first line is a comment
with a file name is saved under it first. `console` blocks are sessions: each `$ ` command is run by a shell. Only the
number of training steps and of seeds is made smaller, and ESC-10 is replaced by files of the same names and columns.
"""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from logitstore.jobs.build.job import build
from logitstore.views.recipe import load_recipe
from tests.stores import inside, options, write_audio

REPOSITORY = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Documents whose sessions need a server or published files; tests of their own run them.
ELSEWHERE = {"cloud.md": "tests/test_docs.py", "imports.md": "tests/jobs/test_import_npy.py"}
CLASSES = ("dog_bark", "rain", "sea_waves", "baby_cry", "clock_tick", "person_sneeze", "helicopter", "chainsaw",
           "rooster", "fire_crackling")  # fmt: skip


def documents() -> list[Path]:
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(wanted: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{document.name}-{number}")
        for document in documents()
        if document.name not in ELSEWHERE
        for number, (language, text) in enumerate(BLOCK.findall(document.read_text()), start=1)
        if language == wanted
    ]


def commands(session: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the first line that it prints.

    A command follows `$ ` and goes on while a line ends with a backslash, a quote is open, or a loop has no `done`.
    """
    lines, found = session.splitlines(), []
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            continue
        command = line[2:]
        while command.endswith("\\") or command.count('"') % 2 or command.count("; do") > command.count("\ndone"):
            command += "\n" + lines.pop(0).removeprefix("> ")
        found.append((command, next((text for text in lines if text.strip()), "")))
    return found


def smaller(command: str) -> str:
    """Fewer steps and seeds: what a test can wait for."""
    return re.sub(r"--steps \d+", "--steps 2", command).replace("in 0 1 2 3 4;", "in 0;")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `audio` and `store`."""
    root = tmp_path_factory.mktemp("workshop")
    write_audio(root / "audio", 12)
    with inside(root):
        build(options(root))
    return root


@pytest.fixture(scope="module")
def esc10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `esc10` like the README's: a table, and Ogg files at 44.1 kHz in a folder a class."""
    root = tmp_path_factory.mktemp("session")
    random = np.random.default_rng(0)
    time = np.arange(5 * 44_100) / 44_100
    rows = []
    for number, label in enumerate(CLASSES):
        for fold in range(1, 6):
            name = f"{label}/{fold}-{number}-A.ogg"
            wave = 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time) + 0.05 * random.standard_normal(len(time))
            target = root / "esc10" / "audio" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, wave.astype(np.float32), 44_100, format="OGG", subtype="VORBIS")
            rows.append((name, label, fold))
    with (root / "esc10" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *rows])
    return root


@pytest.mark.parametrize("text", blocks("python"))
def test_a_python_block_runs(text, workshop):
    named = re.match(r"# (\w+\.py)\n", text)
    if named:
        (workshop / named[1]).write_text(text)
        text = f"from teachers.registry import load_teacher\nload_teacher('python:{named[1][:-3]}:factory')"
    done = subprocess.run([sys.executable, "-c", text], cwd=workshop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_yaml_block_is_a_recipe(text, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "recipe.yaml")).ops


@pytest.mark.parametrize("text", blocks("sh"))
def test_a_shell_block_names_targets_that_there_are(text):
    # `make demo` and `make test` would run this very suite; that they would do something is asked of make itself
    for line in text.splitlines():
        command = line.split("#")[0].split()
        if command[:2] == ["pip", "install"]:
            assert re.fullmatch(r"'logitstore\[(\w+)\]'", command[2]), line
            continue
        assert command[0] == "make", line
        planned = subprocess.run(
            ["make", "-n", *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert planned.returncode == 0, planned.stderr
        assert planned.stdout.strip()


def sessions(document: str) -> list[tuple[str, str]]:
    """The commands of a document's console blocks."""
    text = (REPOSITORY / document).read_text()
    return [pair for language, block in BLOCK.findall(text) if language == "console" for pair in commands(block)]


def test_the_sessions_of_the_readme_and_of_the_students_run(esc10):
    """The second goes on in the folder of the first."""
    readme, students = sessions("README.md"), sessions("docs/students.md")
    assert len(readme) >= 9
    assert len(students) >= 8
    for command, _ in readme + students:
        done = shell(smaller(command), esc10)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_session_at_a_url_runs(esc10, monkeypatch):
    """docs/cloud.md against a server of S3's API on loopback, its errors and its Python too."""
    boto3 = pytest.importorskip("boto3", reason="the S3 server of the tests is not installed: pip install '.[dev]'")
    server = pytest.importorskip("moto.server", reason="likewise").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        here = f"http://{host}:{port}"
        ran = 0
        for command, prints in sessions("docs/cloud.md"):
            if command.startswith("export "):
                for name, value in (pair.split("=", 1) for pair in shlex.split(command)[1:]):
                    monkeypatch.setenv(name, value.replace("http://127.0.0.1:5000", here))
                if "AWS_REGION" in command:
                    boto3.client("s3", endpoint_url=here).create_bucket(Bucket="logits")
                continue
            done = shell(smaller(command), esc10)
            ran += 1
            assert (done.returncode != 0) is prints.startswith("Error:"), f"{command}\n{done.stdout}\n{done.stderr}"
            if prints.startswith("Error:"):
                assert done.stderr.splitlines()[-1] == prints.replace("http://127.0.0.1:5000", here)
        assert ran >= 8
        (python,) = (block for language, block in BLOCK.findall((REPOSITORY / "docs/cloud.md").read_text())
                     if language == "python")  # fmt: skip
        done = shell(f"python - <<'END'\n{python}\nprint(table.num_rows)\nEND", esc10)
        assert done.stdout.strip() == "5", done.stderr
    finally:
        server.stop()


def test_every_block_says_what_it_is_and_is_run():
    known = {"python", "yaml", "sh", "console", ""}
    for document in documents():
        text = document.read_text()
        for language, block in BLOCK.findall(text):
            assert language in known, f"{document.name}: {language}"
            if not language:  # a drawing of folders, or what a file holds; never something to type
                assert "$ " not in block, f"{document.name}: {block}"
        if document.name in ELSEWHERE:
            assert document.name in (REPOSITORY / ELSEWHERE[document.name]).read_text()
        elif document.name not in ("README.md", "students.md"):
            assert "```console" not in text, f"{document.name} has a session that no test runs"


def test_links_between_documents_lead_somewhere():
    for document in documents():
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
