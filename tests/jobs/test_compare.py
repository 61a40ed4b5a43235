"""How far one model agrees with another: the numbers, stores, runs and files, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

import logitstore
from logitstore.cli.main import cli
from logitstore.errors import MismatchError, TeacherError, UsageError
from logitstore.evaluation.agreement import Place, agree
from logitstore.jobs.compare import compare
from logitstore.jobs.options import CompareOptions
from logitstore.models.cost import macs_of, parameters_of
from logitstore.training.runs import load_run
from students.train import StudentOptions, train_student
from tests.heard import make_heard, student_values
from tests.stores import inside

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = make_heard(tmp_path_factory.mktemp("heard"))
    train_student(StudentOptions(**student_values(folder, folder / "student", epochs=4)))
    train_student(StudentOptions(**student_values(folder, folder / "all", epochs=1, hold_out=0)))
    return folder


@pytest.fixture(autouse=True)
def here(root):
    with inside(root):
        yield root


def compared(a, b, source="audio", **more):
    return compare(CompareOptions(a=a, b=b, source=source, device="cpu", **more))


def places(count):
    return [Place(f"{number}.wav", 0.0) for number in range(count)]


def test_the_numbers_of_an_agreement():
    a = np.array([[0.9, 0.6, 0.1], [0.2, 0.8, 0.1], [0.3, 0.1, 0.4], [0.1, 0.1, 0.9]], np.float32)
    b = np.array([[0.7, 0.8, 0.1], [0.1, 0.9, 0.3], [0.2, 0.3, 0.6], [0.4, 0.2, 0.1]], np.float32)
    found = agree(a, b, ("x", "y", "z"), places(4))
    assert found.top1 == 0.5
    decisions = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], bool)  # the third view by its first class
    assert found.mAP == pytest.approx(average_precision_score(decisions, b))
    kl = (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))).sum(axis=1)
    assert found.kl == pytest.approx(kl.mean(), rel=1e-5)
    assert found.worst[0].path == "3.wav"
    assert (found.worst[0].a, found.worst[0].b[0]) == (("z", pytest.approx(0.9)), "x")
    assert [each.name for each in found.by_class] == ["z", "y", "x"][: len(found.by_class)]
    assert found.by_class[0].views == 2
    same = agree(a, a, ("x", "y", "z"), places(4))
    assert (same.top1, same.top5, same.kl) == (1, 1, 0)


def test_what_is_not_known_of_a_counts_in_no_divergence():
    a = np.array([[0.9, 0.0, 0.0, 0.3], [0.0, 0.7, 0.2, 0.0]], np.float32)
    b = np.array([[0.8, 0.4, 0.1, 0.2], [0.5, 0.6, 0.1, 0.9]], np.float32)
    known = a > 0
    p, q = a[known].astype(float), b[known].astype(float)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert agree(a, b, tuple("wxyz"), places(2), known=known).kl == pytest.approx(kl.sum() / 2, rel=1e-5)
    softmax_a, softmax_b = np.array([[0.6, 0.4, 0.0]], np.float32), np.array([[0.5, 0.2, 0.3]], np.float32)
    found = agree(softmax_a, softmax_b, tuple("xyz"), places(1), scores="softmax").kl
    assert found == pytest.approx(0.6 * np.log(0.6 / 0.5) + 0.4 * np.log(0.4 / 0.2), rel=1e-4)
    first = agree(softmax_a, softmax_b, tuple("xyz"), places(1), scores="softmax", known=softmax_a > 0.5).kl
    assert first == pytest.approx(0.6 * np.log(0.6 / 0.5) + 0.4 * np.log(0.4 / 0.5), rel=1e-4)  # the rest as one


def test_two_models_hear_the_same_clips(root):
    found = compared("teacher-1", "student", limit=12)
    assert (found.agreement.views, found.agreement.clips, found.agreement.classes) == (12, 12, 3)
    assert found.seconds == 0.6
    model = load_run("student").model
    assert found.b.parameters == sum(each.numel() for each in model.parameters())
    assert found.a.macs is not None
    assert found.a.views_per_second > 0
    assert found.heard.startswith("12 of 36 clips of audio")
    itself = compared("teacher-1", "teacher-1", where="path < '10'")
    assert (itself.agreement.top1, itself.agreement.clips) == (1, 10)
    assert itself.agreement.kl == pytest.approx(0, abs=1e-9)
    again = logitstore.compare(a="teacher-1", b="student", source="audio", limit=12, device="cpu")
    assert again.agreement == found.agreement


def test_a_student_is_compared_with_its_store_on_what_it_held_out(root, caplog):
    found = compared("store", "student")
    ended = json.loads(Path("student/run.json").read_text())["agreement"]
    assert found.agreement.kl == pytest.approx(ended["kl"], rel=1e-4)
    assert [each.path for each in found.agreement.worst] == [each["path"] for each in ended["worst"]]
    assert (found.agreement.views, found.agreement.top1) == (ended["views"], ended["top1"])
    assert "which student held out" in found.heard
    assert (found.a.store, found.a.parameters, found.b.store) == (True, None, False)
    every = compared("store", "teacher-1")  # no run of this store
    assert (every.agreement.views, every.agreement.clips) == (72, 36)
    swapped = compared("teacher-1", "store", limit=5)
    assert swapped.agreement.clips == 5
    with caplog.at_level("INFO", "logitstore"):
        compared("store", "all", limit=3)
    assert "all was trained on store, and held nothing out: it may have learnt what is compared here" in caplog.text


def test_what_a_student_of_a_table_of_clips_held_out_is_known_while_the_table_is_there(root, tmp_path, caplog):
    caplog.set_level("INFO", "logitstore")
    table = tmp_path / "some.csv"
    table.write_text("clip\n" + "\n".join(map(str, range(0, 36, 2))))
    values = student_values(root, tmp_path / "some", epochs=1, hold_out=0.2, clips=str(table))
    agreement = train_student(StudentOptions(**values)).agreement
    found = compared("store", str(tmp_path / "some"))
    assert (found.agreement.views, found.agreement.clips) == (agreement["views"], agreement["clips"])
    assert "held nothing out" not in caplog.text
    table.write_text("clip\n1\n")
    compared("store", str(tmp_path / "some"), limit=3)
    assert "some.csv has changed since: it may have learnt what is compared here" in caplog.text
    table.unlink()
    compared("store", str(tmp_path / "some"), limit=3)
    assert "some.csv cannot be read here: it may have learnt" in caplog.text


def test_two_stores_hold_what_was_said_of_the_same_views(root):
    found = compare(CompareOptions(a="store", b="store"))
    assert (found.agreement.views, found.agreement.top1, found.agreement.kl) == (72, 1, 0)
    with pytest.raises(UsageError, match="two stores are compared by what they hold; leave SOURCE out"):
        compared("store", "store")


@pytest.mark.parametrize(
    ("a", "b", "more", "error", "message"),
    [
        ("teacher-1", "student", {"source": None}, UsageError, "models hear audio: give SOURCE"),
        ("store", "student", {"clip_seconds": 1.0}, UsageError, "--clip-seconds is for models on audio"),
        ("store", "none", {}, TeacherError, "no teacher 'none'"),
        ("store", "python:deaf:Deaf", {}, TeacherError, "takes only waveforms and the recipe 'short' has the"),
        (
            "teacher-1",
            "python:deaf:Deaf",
            {},
            MismatchError,
            "no class in common, by MID or by name: .* 'high' and 'x'",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(root, own_folder, a, b, more, error, message):
    code = "import torch\n\nclass Deaf(torch.nn.Module):\n    classes = ['x']\n    sample_rate = 16_000\n"
    (own_folder / "deaf.py").write_text(
        f"{code}    scores = 'sigmoid'\n\n    def forward(self, waves):\n        return waves[:, :1].sigmoid()\n"
    )
    a, b = (str(root / each) if (root / each).exists() else each for each in (a, b))
    with pytest.raises(error, match=message):
        compared(a, b, **{"source": str(root / "audio")} | more)


def test_an_onnx_file_is_named_by_its_path(root, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    file = str(tmp_path / "student.onnx")
    exported = logitstore.export_student(
        run="student", out=file, eval_manifest="labels.csv", label_column="label", audio_root="audio"
    )
    table = exported.files[0].compared
    assert table.agreement.top1 == 1
    assert table.agreement.kl < 1e-6
    assert table.agreement.clips == 36
    found = compared("student", file, limit=4)
    assert (found.b.parameters, found.b.macs) == (None, None)  # torch computes nothing there
    assert found.agreement.top1 == 1


def test_the_command_prints_a_table_and_json(root):
    done = CliRunner().invoke(cli, ["compare", "store", "student", "audio"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["classes", "parameters", "MACs", "views/s"]
    assert lines[1].split() == ["A", "store", "3", "-", "-", "-"]
    assert "compared on 4 views of 2 clips of store, replayed, which student held out, of 0.6 s; on cpu" in lines
    assert any(line.startswith("worst views") for line in lines)
    done = CliRunner().invoke(cli, ["compare", "teacher-1", "student", "audio", "--limit", "6", "--json"])
    found = json.loads(done.stdout)
    assert (found["command"], found["agreement"]["views"], found["b"]["spec"]) == ("compare", 6, "student")


def test_what_a_model_costs_is_counted():
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 5, bias=False), torch.nn.Flatten(), torch.nn.Linear(4 * 96, 3))
    assert macs_of(lambda: net(torch.zeros(1, 1, 100))) == 4 * 5 * 96 + 4 * 96 * 3

    class Owner:
        def __init__(self):
            self.net, self.same, self.other = net, net, "text"

    assert parameters_of(Owner()) == 4 * 5 + 4 * 96 * 3 + 3
    assert parameters_of(object.__new__(type("Empty", (), {}))) is None
    heads, tokens, width = 2, 10, 8
    query = torch.zeros(1, heads, tokens, width)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert macs_of(lambda: attend(query, query, query)) == 2 * heads * tokens * tokens * width
    assert macs_of(lambda: np.zeros(3) + 1) is None
