"""Architectures of a user's own: by ``python:MODULE:FACTORY`` and by entry points, and never imported unasked."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import teachers
from logitstore import plugins
from logitstore.errors import RunError
from logitstore.models.registry import DEFAULT_LR, build, default_lr, names
from logitstore.training.runs import load_run, load_student
from students.options import StudentOptions
from students.train import train_student
from teachers.registry import forms, load_teacher
from tests.heard import make_heard, student_values

NETS = """
import torch
from logitstore.models.cnn4 import Cnn4

LOADED = True


class Mine(Cnn4):
    default_lr = 0.02

    def __init__(self, classes, *, scores="sigmoid", width=2):
        super().__init__(classes, scores=scores, width=width, mels=16, hop_ms=40)


def mine(classes, scores, **args):
    return Mine(classes, scores=scores, **args)


def wrong(classes, scores):
    return Mine(classes + 1, scores=scores)


def linear(classes, scores):
    return torch.nn.Linear(2, classes)


def failing(classes, scores):
    raise KeyError("nothing")


def load(spec, rest):
    from teachers.specs.python import ModuleTeacher
    raise ValueError(f"{spec} {rest}")
"""
MINE = "python:own_nets:mine"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_nets", None)
    yield tmp_path
    sys.modules.pop("own_nets", None)


def test_names_and_forms_are_listed_without_torch():
    code = (
        "import sys; from logitstore.models.registry import names, default_lr; from teachers.registry import forms\n"
        "names(); default_lr('cnn4'); forms(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert next(iter(forms())) == "FOLDER"
    files = {file.stem for file in (Path(teachers.__file__).parent / "specs").glob("*.py")}
    prefixes = {form.partition(":")[0] for form in list(forms())[1:]}
    assert prefixes == files - {"__init__", "run_folder"}
    assert [default_lr(name) for name in ("cnn4", "mobile", "cnn14", "ced-mini", "ced-base")] == [
        5e-3, 5e-3, 1e-3, 1e-3, 3e-4,
    ]  # fmt: skip


def test_a_factory_makes_a_net(here):
    model = build(MINE, 5, scores="softmax", width=4)
    assert (model.classes, model.scores) == (5, "softmax")
    assert model(torch.zeros(2, 16_000)).shape == (2, 5)
    assert default_lr(MINE) == DEFAULT_LR
    assert default_lr("python:own_nets:Mine") == 0.02


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("python:own_nets", {}, "model 'python:own_nets' is not of the form python:MODULE:FACTORY"),
        ("python:nowhere:mine", {}, "cannot import 'nowhere': ModuleNotFoundError"),
        ("python:own_nets:none", {}, "the module 'own_nets' has no 'none'; name a factory in it"),
        ("python:own_nets:failing", {}, r"failing\(\) failed: KeyError: 'nothing'"),
        ("python:own_nets:linear", {}, "gave a Linear, which has no classes, scores, .*subclass of logitstore"),
        ("python:own_nets:wrong", {}, "gave one of 6 classes and sigmoid scores; asked for were 5 and sigmoid"),
        ("python:own_nets:Mine", {"depth": 3}, "has no argument 'depth'; allowed are width"),
        (MINE, {"depth": 3}, r"mine\(\) failed: TypeError"),
    ],
)
def test_what_is_no_net_is_refused_in_a_line(here, name, args, message):
    with pytest.raises(RunError, match=message):
        build(name, 5, **args)


def test_nets_and_teachers_of_other_packages_are_found_by_entry_points(here):
    info = here / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[logitstore.nets]\nmine-small = own_nets:Mine\n[logitstore.teachers]\nmine = own_nets:load\n"
    )
    plugins.offered.cache_clear()
    try:
        assert names()[-1] == "mine-small"
        assert "own_nets" not in sys.modules
        assert type(build("mine-small", 3, width=3)).__name__ == "Mine"
        assert default_lr("mine-small") == 0.02
        assert list(forms())[-1] == "mine:…"
        with pytest.raises(ValueError, match="mine:a/file a/file"):
            load_teacher("mine:a/file")
    finally:
        plugins.offered.cache_clear()


def test_a_student_of_ones_own_is_trained_and_read_only_where_its_code_is_named(here):
    root = make_heard(here, clips=18)
    out = here / "run"
    values = student_values(root, out, student=MINE, model_args={"width": 3}, steps=3, epochs=None)
    trained = train_student(StudentOptions(**values))
    assert trained.model == MINE
    assert train_student(StudentOptions(**values)).before
    del sys.modules["own_nets"]
    with pytest.raises(
        RunError, match=r"code that is imported only where you name it, and none is named; .*\?student="
    ):
        load_run(out)
    with pytest.raises(RunError, match="and python:own_nets:wrong is named"):
        load_run(out, student="python:own_nets:wrong")
    with pytest.raises(RunError, match="imported only where you name it"):
        load_teacher(str(out))
    assert "own_nets" not in sys.modules
    named = f"{out}?student={MINE}"
    waveforms = torch.randn(2, 9_600, generator=torch.Generator().manual_seed(0))
    model = load_student(out, student=MINE)
    assert torch.equal(model(waveforms), load_student(named)(waveforms))
    teacher = load_teacher(named)
    assert torch.equal(teacher.probabilities(waveforms, None), model(waveforms).sigmoid())
    again = values | {"out": str(here / "again"), "init": named, "steps": 1}
    notes = train_student(StudentOptions(**again)).notes
    assert notes[0].startswith("loaded ")
