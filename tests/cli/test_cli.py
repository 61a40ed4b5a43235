"""What a user sees: one clear line and the right exit code for each mistake, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.stores import TONE_TEACHER, contents, write_audio

REPOSITORY = Path(__file__).parents[2]


class Program:
    """Runs a console script in this process, in a folder with audio and the tone teachers."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        from logitstore.cli.command import run
        from logitstore.cli.main import cli

        argv = sys.argv
        sys.argv = ["logitstore", *map(str, arguments)]
        self._capsys.readouterr()
        with pytest.raises(SystemExit, match=r"\d") as left:
            run(cli)
        sys.argv = argv
        said = self._capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    def build(
        self, source: object = "audio", *more: object, teacher: str = "python:tones:plain"
    ) -> tuple[int, str, str]:
        return self("build", source, "--out", "store", "--teacher", teacher, "--views", 2, "--topk", 4,
                    "--clip-seconds", 2, "--device", "cpu", "--shard-clips", 8, *more)  # fmt: skip

    def refused(self, result: tuple[int, str, str], *parts: str, code: int = 2) -> None:
        """One line on stderr with every part in it, the exit code, no traceback, nothing on stdout."""
        found, out, err = result
        assert found == code, err
        assert not out
        lines = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, err
        assert "Traceback" not in err
        for part in parts:
            assert part in lines[0], lines[0]


@pytest.fixture
def logitstore(tmp_path, own_folder, capsys):
    (tmp_path / "tones.py").write_text(TONE_TEACHER)
    write_audio(tmp_path / "audio", 12)
    return Program(tmp_path, capsys)


def test_build_status_and_inspect_say_what_they_did(logitstore):
    code, out, err = logitstore.build()
    assert code == 0, err
    assert "12 x 2 views, in 2 blocks" in out
    assert "bytes a view" in out
    assert "failures   0" in out
    code, out, _ = logitstore("status", "store")
    assert code == 0
    assert "finished" in out
    assert "2 of 2 shards done" in out
    assert json.loads(logitstore("status", "store", "--json")[1])["missing"] == 0
    assert logitstore("status", "store", "--watch")[:2] == (0, out)
    logitstore.refused(logitstore("status", "store", "--every", "2"), "--every is for --watch")
    code, out, _ = logitstore("inspect", "store", "SELECT count(*) AS n FROM topk", "--format", "csv")
    assert (code, out.split()) == (0, ["n", "96"])


def test_dry_run(logitstore):
    code, out, _ = logitstore.build("audio", "--dry-run")
    assert code == 0
    assert "24 in all, in 2 blocks" in out
    assert not Path("store").exists()


def test_help_has_an_example_for_every_command(logitstore):
    for command in ("build", "status", "inspect", "evaluate", "demo"):
        code, out, _ = logitstore(command, "--help")
        assert code == 0
        assert "Example:" in out
        assert f"logitstore {command}" in out
    assert "inspect" in logitstore("--help")[1]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("nowhere", ("nowhere",)),
        ("empty", ("empty",)),
        ("no_path.csv", ("no_path.csv", "no column 'path'")),
        ("leaves.csv", ("leaves.csv", "../secret.wav")),
        ("twice.csv", ("duplicate", "a/000.wav")),
    ],
)
def test_a_source_that_cannot_be_used(logitstore, source, parts):
    Path("empty").mkdir()
    Path("no_path.csv").write_text("sound,label\na.wav,x\n")
    Path("leaves.csv").write_text("path\n../secret.wav\n")
    Path("twice.csv").write_text("path\na/000.wav\na/000.wav\n")
    logitstore.refused(logitstore.build(source, "--audio-root", "audio" if source.endswith("csv") else "."), *parts)


def test_audio_that_cannot_be_read_is_counted_and_the_rest_is_stored(logitstore):
    whole = Path("audio/a/000.wav").read_bytes()
    Path("audio/truncated.wav").write_bytes(whole[:5000])
    Path("audio/zero.wav").write_bytes(b"")
    Path("audio/text.wav").write_text("hello")
    code, out, err = logitstore.build()
    assert code == 0, err
    assert "failures   3" in out
    for name in ("truncated.wav: truncated", "zero.wav: empty", "text.wav: "):
        assert name in out
    code, out, _ = logitstore("inspect", "store", "SELECT count(DISTINCT clip) AS n FROM topk", "--format", "csv")
    assert out.split() == ["n", "12"]
    logitstore.refused(logitstore.build("audio", "--strict", "--seed", 1), code=2)
    logitstore.refused(logitstore("build", "audio", "--out", "other", "--teacher", "python:tones:plain", "--topk", 4,
                                  "--clip-seconds", 2, "--strict"), code=1)  # fmt: skip


def test_a_teacher_with_other_classes(logitstore):
    more = ("--teacher", "python:tones:others")
    code, _, said = logitstore.build("audio", *more)
    assert code == 0
    assert "join to 9 (8 of 'python:tones:plain', 8 of 'python:tones:others')" in said


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("ced:notes.txt", ("notes.txt",)),
        ("onnx:notes.txt", ("notes.txt",)),
        ("audio", ("audio", "run")),
        ("python:tones", ("python:tones",)),
        ("python:tones:absent", ("absent",)),
        ("python:nothing:factory", ("nothing",)),
        ("magic:x", ("magic",)),
        ("ced:absent.pt", ("absent.pt",)),
    ],
)
def test_a_teacher_that_is_not_what_its_spec_says(logitstore, spec, parts):
    Path("notes.txt").write_text("not a model")
    Path("notes.txt.json").write_text('{"classes": ["a"], "scores": "sigmoid", "sample_rate": 16000}')
    logitstore.refused(logitstore.build(teacher=spec), *parts)


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ("- op: reverb", ("unknown op 'reverb'", "gain, mixup")),
        ("- {op: gain, min_db: 3, max_db: -3}", ("upside down", "min_db 3", "max_db -3")),
    ],
)
def test_a_recipe_that_cannot_be_used(logitstore, recipe, parts):
    Path("recipe.yaml").write_text(recipe)
    logitstore.refused(logitstore.build("audio", "--recipe", "recipe.yaml"), *parts)


def test_k_larger_than_the_number_of_classes(logitstore):
    result = logitstore("build", "audio", "--out", "store", "--teacher", "python:tones:plain", "--topk", 9)
    logitstore.refused(result, "--topk 9", "8 classes")


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "SELECT 1; SELECT 2", "DROP TABLE clips", "SELECT * FROM read_csv('/etc/passwd')",
     "COPY clips TO 'x.csv'", "SELECT nothing FROM clips", "SELECT * FROM nowhere"],
)  # fmt: skip
def test_sql_that_is_refused(logitstore, sql):
    assert logitstore.build()[0] == 0
    before = contents(Path("store"))
    logitstore.refused(logitstore("inspect", "store", sql))
    assert contents(Path("store")) == before
    assert not Path("x.csv").exists()


def test_a_path_that_is_no_store(logitstore):
    Path("store").mkdir()
    Path("store/letter.txt").write_text("dear")
    logitstore.refused(logitstore.build(), "exists and is not a store", "letter.txt")
    logitstore.refused(logitstore("inspect", "store"), "no store at store")
    logitstore.refused(logitstore("status", "store"), "no store at store")
    assert contents(Path("store")) == {"letter.txt": b"dear"}


def test_an_unknown_format_version(logitstore):
    assert logitstore.build()[0] == 0
    root = Path("store/zarr.json")
    root.write_text(root.read_text().replace('"format_version":3', '"format_version":99'))
    for result in (logitstore("inspect", "store"), logitstore("status", "store"), logitstore.build()):
        logitstore.refused(result, "format version 99", "reads versions 1 to 4")


def test_usage_errors_of_the_command_line_have_code_2(logitstore):
    assert logitstore("build", "audio")[0] == 2
    assert logitstore("nonsense")[0] == 2
    assert logitstore.build("audio", "--average", "median")[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_finished(logitstore, number):
    write_audio(Path("audio"), 120)
    command = [sys.executable, "-c", "from logitstore.cli.main import main; main()", "build", "audio", "--out", "store",
               "--teacher", "python:tones:plain", "--views", "8", "--topk", "4", "--clip-seconds", "2",
               "--shard-clips", "2", "--device", "cpu"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}."}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(Path("store").glob("commits/*.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("Error: interrupted; what was finished is kept")
    assert "Traceback" not in err
    assert not out
    kept = contents(Path("store") / "commits")
    assert len(kept) >= 2
    assert not list(Path("store").glob("claims/*"))
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "120 x 8 views, in 60 blocks" in resumed.stdout
    assert {name: (Path("store/commits") / name).read_bytes() for name in kept} == kept


def test_a_manifest_with_labels_reaches_sql(logitstore):
    names = sorted(str(p.relative_to("audio")) for p in Path("audio").rglob("*.wav"))
    rows = [f"{name},{number % 3},{'ab'[number % 2]}" for number, name in enumerate(names)]
    Path("clips.csv").write_text("path,fold,label\n" + "\n".join(rows) + "\n")
    code, _, err = logitstore.build("clips.csv", "--audio-root", "audio", "--where", "fold < 2")
    assert code == 0, err
    sql = "SELECT fold, count(*) AS n FROM clips JOIN views USING (clip) GROUP BY fold ORDER BY fold"
    assert logitstore("inspect", "store", sql, "--format", "csv")[1].split() == ["fold,n", "0,8", "1,8"]
    assert soundfile.info("audio/a/000.wav").samplerate == 16_000


def test_a_store_of_mixed_precision_goes_on_under_both_names(logitstore):
    assert logitstore.build("audio", "--amp")[0] == 0
    assert json.loads(Path("store/zarr.json").read_text())["attributes"]["logitstore"]["precision"] == "amp"
    before = contents(Path("store"))
    for again in (("--amp",), ("--precision", "bf16"), ("--precision", "amp")):
        code, out, err = logitstore.build("audio", *again)
        assert code == 0, err
        assert "made       0 views" in out
    assert contents(Path("store")) == before
    logitstore.refused(logitstore.build("audio"), "precision: stored 'amp', asked 'float32'")


def test_quiet_says_nothing_beside_the_answer_and_verbose_says_where_an_error_arose(logitstore):
    code, out, err = logitstore.build("audio", "-q")
    assert (code, err) == (0, "")
    assert "12 x 2 views" in out
    code, _, err = logitstore("status", "nowhere", "-v")
    assert code == 2
    assert "store: nowhere" in err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("Error: no store at nowhere")
