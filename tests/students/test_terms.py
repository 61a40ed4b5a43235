"""The terms of a student's loss: found by their files, weighed by options, added up; one of a user's own too."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from logitstore import plugins
from logitstore.errors import RunError
from logitstore.training.batches import Batch
from students.objective import Objective
from students.options import StudentOptions, check_student
from students.terms import Setting, Term, find, names, selected
from students.terms.iusp import Iusp
from students.terms.sp import Sp
from students.train import train_student
from tests.heard import make_heard, student_values

OWN = """
from students.terms import Term


class Quiet(Term):
    weight = 0.25

    def __call__(self, said):
        return said.logits.square().mean()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package that offers the term ``quiet``."""
    (tmp_path / "own_terms.py").write_text(OWN)
    info = tmp_path / "own_terms-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-terms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[logitstore.terms]\nquiet = own_terms:Quiet\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.offered.cache_clear()
    yield
    plugins.offered.cache_clear()
    sys.modules.pop("own_terms", None)


def test_every_file_is_a_term_by_its_name_and_none_is_run_for_that():
    assert list(names()) == ["frames", "iusp", "labels", "sp", "target"]
    assert all(about.endswith(".") for about in names().values())
    for name in names():
        assert issubclass(find(name), Term)
        assert find(name).__module__ == f"students.terms.{name}"
    code = "import sys; from students.terms import selected; selected(['iusp=2']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("asked", "weights"),
    [
        ({}, {"target": 1}),
        ({"terms": ["iusp", "sp"]}, {"target": 1, "iusp": Iusp.weight, "sp": Sp.weight}),
        ({"terms": ["iusp=3", "sp"]}, {"target": 1, "iusp": 3, "sp": Sp.weight}),
        ({"terms": ["target=0.5"], "label_weight": 2}, {"target": 0.5, "labels": 2}),
        ({"terms": ["sp", "labels=2"]}, {"target": 1, "sp": Sp.weight, "labels": 2}),
    ],
)
def test_options_are_short_for_terms_and_weights(asked, weights):
    chosen = selected(**asked)
    assert list(chosen.items()) == list(weights.items())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"terms": ["cosine=1"]}, "no term 'cosine'; allowed are frames, iusp, labels, sp, target, as NAME or NAME=W"),
        ({"terms": ["sp=1", "sp=2"]}, "the term 'sp' has a weight already; give one for each"),
        ({"terms": ["labels=1"], "label_weight": 2}, "the term 'labels' has a weight already"),
        ({"terms": ["sp=much"]}, "the weight 'much' is no number; give it as sp=0.5"),
        ({"terms": ["sp=-1"]}, "the weight is -1; it must be a number of at least 0"),
        ({"terms": ["sp=inf"]}, "the weight is inf; it must be a number of at least 0"),
    ],
)
def test_terms_that_cannot_be_are_refused(asked, message):
    with pytest.raises(RunError, match=message):
        selected(**asked)


def test_what_a_term_cannot_do_is_refused(tmp_path):
    with pytest.raises(RunError, match="--accumulate 2 with the term sp: it compares all clips of a batch"):
        Objective(selected(["sp"]), Setting("bce", frames=4), accumulate=2)
    asked = student_values(tmp_path, tmp_path / "run", terms=["labels=1"])
    with pytest.raises(RunError, match="--term labels is given without --label-column"):
        check_student(StudentOptions(**asked))


def test_a_term_of_another_package_is_one_like_the_others(own):
    assert list(names()) == ["frames", "iusp", "labels", "sp", "target", "quiet"]
    assert selected(["quiet"]) == {"target": 1, "quiet": 0.25}
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.zeros(3, 8), None, torch.full((3, 4), 0.5), np.arange(3))
    found = Objective(selected(["quiet=2"]), Setting("bce"))(logits, None, batch)
    assert float(found.terms["quiet"]) == pytest.approx(float(logits.square().mean()))
    assert float(found.total) == pytest.approx(float(found.terms["target"] + 2 * found.terms["quiet"]))
    with pytest.raises(RunError, match="--mixup and --term quiet are both given"):
        Objective(selected(["quiet"]), Setting("bce"), mixup=0.5)


def test_a_run_with_terms_is_the_one_of_the_options_that_are_short_for_them(tmp_path):
    root = make_heard(tmp_path, clips=18)
    steps = {"steps": 3, "epochs": None, "batch_size": 6}
    short = student_values(root, tmp_path / "short", similarity="both", **steps)
    long = student_values(root, tmp_path / "long", terms=["iusp", f"sp={Sp.weight}"], **steps)
    for values in (short, long):
        train_student(StudentOptions(**values))
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("short", "long")]
    assert logs[0] == logs[1]
    with pytest.raises(RunError, match="holds another training"):
        train_student(StudentOptions(**long | {"terms": ["iusp"]}))
