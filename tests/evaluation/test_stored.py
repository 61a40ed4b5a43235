"""The targets of a store scored on labels, and what the command prints and writes of them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from logitstore import open_store
from logitstore.cli.evaluate import evaluate_command, render
from logitstore.errors import MissingExtraError, SourceError, TeacherError, UsageError
from logitstore.jobs.evaluate import EvaluateOptions, evaluate
from tests.small_store import Spec, make_store

SPEC = Spec(clips=30, shard_clips=8, view_ranges=((0, 3),), classes=6, topk=3, failed=(10,))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store of 30 clips, clip 10 failed, whose column ``label`` is null for clips 0 and 1."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(5)
    cells = [";".join(f"class {c}" for c in np.flatnonzero(random.random(6) < 0.4)) for _ in range(30)]
    return make_store(tmp_path / "store", SPEC, label=pa.array([None, None, *cells[2:]]), fold=pa.array([1, 2] * 15))


def dense(made):
    """What the store holds, float64 (clips, views, classes), the tail as 0."""
    scores = np.zeros((*made.classes.shape[:2], 6))
    np.put_along_axis(scores, made.classes.astype(np.int64), made.probabilities.astype(np.float64), axis=2)
    return scores


def test_stored_targets_are_scored_on_the_labels_of_their_own_clip_table(made):
    found = evaluate(EvaluateOptions(manifest=None, stored="store", label_column="label"))
    rows = [clip for clip in range(30) if clip not in (0, 1, 10)]
    cells = open_store("store").clips["label"].to_pylist()
    labels = np.array([[f"class {c}" in cells[clip].split(";") for c in range(6)] for clip in rows])
    scores = dense(made)[rows]
    assert found.stored.metrics.mAP == pytest.approx(average_precision_score(labels, scores.mean(axis=1)))
    by_view = [average_precision_score(labels, scores[:, view]) for view in range(3)]
    assert [view.mAP for view in found.stored.views] == pytest.approx(by_view)
    assert [view.rows for view in found.stored.views] == [27] * 3
    micro = [average_precision_score(labels, scores[:, view], average="micro") for view in range(3)]
    assert [view.micro_auprc for view in found.stored.views] == pytest.approx(micro)
    assert found.stored.spread == pytest.approx(np.std(by_view, ddof=1))
    assert (found.stored.clips_without_labels, found.stored.clips_failed, found.stored.rows) == (2, 1, 27)
    assert (found.clip_seconds, found.sample_rate, found.members, found.ensemble) == (2.0, 16_000, (), None)
    fewer = evaluate(EvaluateOptions(manifest=None, stored="store", label_column="label", where="fold = 1"))
    assert fewer.rows == 13


def test_a_table_says_which_clips_are_scored(made, caplog):
    caplog.set_level("INFO", "logitstore")
    Path("some.csv").write_text("clip\n" + "\n".join(map(str, range(15))))
    asked = {"stored": "store", "label_column": "label", "clips": "some.csv"}
    found = evaluate(EvaluateOptions(manifest=None, **asked))
    assert (found.rows, found.stored.clips_without_labels, found.stored.clips_failed) == (12, 2, 1)
    assert "--clips some.csv: 14 of the 29 clips with targets are scored" in caplog.text
    assert evaluate(EvaluateOptions(manifest=None, where="fold = 1", **asked)).rows == 6
    Path("labels.csv").write_text("path,label\nfolder/clip 000003.wav,class 1\nfolder/clip 000020.wav,class 1\n")
    joined = evaluate(EvaluateOptions(manifest="labels.csv", **asked))
    assert (joined.rows, joined.stored.rows_without_clips) == (1, 1)
    Path("failed.csv").write_text("clip\n10\n")
    with pytest.raises(SourceError, match=r"none of the 1 clips of --clips failed.csv has targets"):
        evaluate(EvaluateOptions(manifest=None, **asked | {"clips": "failed.csv"}))
    with pytest.raises(UsageError, match="--clips names clips of a store; give --stored STORE"):
        evaluate(EvaluateOptions(manifest="labels.csv", label_column="label", teachers=["t"], clips="some.csv"))


def test_stored_targets_are_joined_to_a_manifest_by_path(made):
    lines = [f"folder/clip {number:06d}.wav,class {number % 6}" for number in (29, 3, 4, 5, 6, 10, 99)]
    Path("labels.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    found = evaluate(EvaluateOptions(manifest="labels.csv", stored="store", label_column="label"))
    rows = [29, 3, 4, 5, 6]
    labels = np.eye(6, dtype=bool)[[number % 6 for number in rows]]
    positive = labels.any(axis=0)
    scores = dense(made)[rows].mean(axis=1)
    assert found.stored.metrics.mAP == pytest.approx(average_precision_score(labels[:, positive], scores[:, positive]))
    assert (found.rows, found.stored.rows_without_clips, found.stored.clips_without_labels) == (5, 2, 24)
    Path("other.csv").write_text("path,label\naudio/1.wav,class 1\n")
    with pytest.raises(SourceError, match=r"none of the 1 rows of other.csv .*'audio/1.wav', a clip's 'folder/clip"):
        evaluate(EvaluateOptions(manifest="other.csv", stored="store", label_column="label"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"label_column": "name"}, SourceError, r"the store store has no column 'name' .*found 'label', 'fold'; name"),
        ({"where": "label IS NULL"}, SourceError, "none of 2 clips with targets of the store store has a label in"),
        ({"where": "fold = 3"}, SourceError, "--where 'fold = 3' leaves none of 30 rows"),
        (
            {"label_column": "fold"},
            TeacherError,
            r"^2 of 2 labels are no class of the store store: ",
        ),
        ({"classes": "classes.txt"}, TeacherError, r"the store store has another class list: 1 missing \('a siren'\)"),
        ({"classes": "some.txt"}, TeacherError, r"^5 of 6 labels are no class of the --classes file: "),
        ({"stored": "nothing"}, UsageError, "no store at nothing"),
        ({"clip_seconds": 2.0}, UsageError, "--clip-seconds is for teachers, and stored targets are as they are"),
        ({"weights": (1.0,)}, UsageError, "--teacher-weight is for teachers"),
    ],
)
def test_a_store_that_cannot_be_scored_is_one_clear_line(made, changes, error, message):
    Path("classes.txt").write_text("class 1\na siren\n")
    Path("some.txt").write_text("class 1\n")
    values = {"manifest": None, "stored": "store", "label_column": "label"} | changes
    with pytest.raises(error, match=message):
        evaluate(EvaluateOptions(**values))


def test_scoring_a_store_loads_no_torch(made):
    script = (
        "import sys; from logitstore.jobs.evaluate import EvaluateOptions, evaluate\n"
        "evaluate(EvaluateOptions(manifest=None, stored='store', label_column='label'))\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def invoke(*arguments):
    return CliRunner().invoke(evaluate_command, ["--label-column", "label", *arguments])


def test_the_command_prints_classes_and_says_what_of_a_store_was_left_out(made):
    shown = invoke("--stored", "store", "--per-class")
    assert shown.exit_code == 0, shown.output
    assert "targets: the mean of 3 views; one view alone has a mAP of 0." in shown.stdout
    assert "\nleft out: 1 clip of the store that failed and so without targets\n" in shown.stdout
    assert "\nleft out: 2 clips of the store without labels\n" in shown.stdout
    table = shown.stdout.split("classes, targets of store:\n")[1].splitlines()
    header = ["class", "positives", "AP", "AUC", "d-prime", "mean", "score", "best", "F1", "threshold"]
    assert table[0].split() == header
    scores = [float(line.split()[3]) for line in table[1:]]
    assert len(scores) == 6
    assert scores == sorted(scores, reverse=True)


def test_tables_keep_to_the_terminal(made):
    found = evaluate(EvaluateOptions(manifest=None, stored="store", label_column="label"))
    for width in (30, 50, 80):
        text = render(found, per_class=True, width=width)
        tables = [line for line in text.splitlines() if line.startswith(("class", "teacher", "targets of", "…"))]
        assert len(tables) >= 8
        assert max(map(len, [line for line in tables if "classes, " not in line])) <= width


def test_the_command_writes_csv_files_and_a_figure(made):
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    done = invoke("--stored", "store", "--csv", "scores/of store", "--png", "figure.png", "--json")
    assert done.exit_code == 0, done.output
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(done.stdout)["stored"]
    tables = {}
    for name in ("metrics", "classes", "calibration", "views"):
        with (Path("scores/of store") / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    (metrics,) = tables["metrics"]
    assert metrics["scored"] == "targets of store"
    assert float(metrics["mAP"]) == document["metrics"]["mAP"]
    assert float(metrics["brier"]) == document["metrics"]["calibration"]["brier"]
    assert [row["class"] for row in tables["classes"]] == [row["class"] for row in document["metrics"]["by_class"]]
    assert float(tables["classes"][2]["d_prime"]) == document["metrics"]["by_class"][2]["d_prime"]
    assert [int(row["count"]) for row in tables["calibration"]] == [
        each["count"] for each in document["metrics"]["calibration"]["bins"]
    ]
    assert [float(row["mAP"]) for row in tables["views"]] == [view["mAP"] for view in document["views"]]


def test_what_cannot_be_written_is_refused_before_the_work(made, monkeypatch):
    monkeypatch.setattr("logitstore.jobs.evaluate.evaluate", lambda *_: pytest.fail("the work began"))
    Path("file").touch()
    refused = invoke("--stored", "store", "--csv", "file/scores").exception
    assert isinstance(refused, UsageError)
    assert str(refused).startswith("--csv file/scores cannot be written: ")
    Path("folder").mkdir()
    refused = invoke("--stored", "store", "--png", "folder").exception
    assert str(refused) == "--png 'folder' is a folder; give the name of a file"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused = invoke("--stored", "store", "--png", "figure.png").exception
    assert isinstance(refused, MissingExtraError)
    assert str(refused).endswith("install it with: pip install 'logitstore[report]'")
