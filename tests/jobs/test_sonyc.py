"""SONYC-UST from its table to a student, as docs/sonyc.md has it, on a small set of the same layout."""

import csv
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import logitstore
from logitstore.audio.sonyc import COARSE, FINE, TAGS
from logitstore.errors import RunError
from logitstore.evaluation.sonyc import LEVELS, read_predictions, unknown
from logitstore.models.losses import bce, known_bce
from tests.sonyc import CLIPS, UNVERIFIED, make_sonyc

VERIFIED = CLIPS["validate"] - UNVERIFIED
SMALL = {"model": "cnn4", "model_args": {"width": 2, "mels": 16}, "steps": 2, "batch_size": 4, "device": "cpu"}


@pytest.mark.usefixtures("one_thread")
def test_the_session_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """docs/sonyc.md"""
    from logitstore.cli.command import run
    from logitstore.cli.main import cli
    from tests.test_docs import sessions, smaller

    (tmp_path / "sonyc").mkdir()
    make_sonyc(tmp_path / "sonyc", seconds=0.3)
    monkeypatch.chdir(tmp_path)
    ran = sessions("docs/sonyc.md")
    assert len(ran) == 8
    for command, first in ran:
        words = shlex.split(smaller(command).replace("\\\n", " "))
        if words[0] != "logitstore":
            words = ["logitstore", *words]
        if "train" in words[1]:
            words += ["--batch-size", "6"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            run(cli)
        said = capsys.readouterr()
        assert not left.value.code, (command, said.err)
        assert said.out.split()[:1] == first.split()[:1], (command, said.out)
    with Path("table/sonyc.csv").open() as file:
        table = list(csv.DictReader(file))
    models = ["ensemble", "runs/teacher", "runs/student-16", "runs/student-4"]
    assert [(row["scored"], row["level"]) for row in table] == [(each, of) for each in models for of in LEVELS]
    assert all(0 <= float(row[name]) <= 1 for row in table for name in ("micro_auprc", "macro_auprc", *COARSE))
    given, heard = (read_predictions(file) for file in ("predictions.csv", "student.csv"))
    assert (len(given.files), len(heard.files)) == (VERIFIED, sum(CLIPS.values()))
    assert np.allclose(given.coarse[:, 7], given.fine[:, TAGS.index("8-1_dog-barking-whining")])
    told = logitstore.evaluate(measure="sonyc", annotations="sonyc/annotations.csv", predictions="predictions.csv")
    again = logitstore.evaluate(measure="sonyc", annotations="sonyc/annotations.csv", teachers=["runs/teacher"])
    for one, other in zip(told.levels, again.sonyc[0].levels, strict=True):
        assert one.micro.auprc == pytest.approx(other.micro.auprc, abs=1e-6)
    store = logitstore.open_store("store")
    assert store.sql("SELECT count(*) AS n FROM clips WHERE len(coarse) > 0").column("n").to_pylist() == [
        CLIPS["train"]
    ]


@pytest.mark.usefixtures("one_thread")
def test_a_coarse_teacher_is_measured_at_the_coarse_level(tmp_path, monkeypatch):
    make_sonyc(tmp_path, "v1", seconds=0.3)
    monkeypatch.chdir(tmp_path)
    trained = logitstore.train_teacher(
        manifest="annotations.csv", labels="sonyc", where="split = 'train'", out="run", **SMALL
    )
    found = logitstore.evaluate(measure="sonyc", annotations="annotations.csv", split="test", teachers=[trained.out])
    assert found.classes == COARSE
    ((measured,),) = (each.levels for each in found.sonyc)
    assert (measured.level, measured.clips) == ("coarse", CLIPS["test"])
    with pytest.raises(RunError, match="leave --scores softmax out"):
        logitstore.train_teacher(manifest="annotations.csv", labels="sonyc", scores="softmax", out="other", **SMALL)


def test_the_fine_classes_of_an_x_are_left_out_of_the_loss():
    names = FINE[:7]  # 1-1 to 1-3, 2-1 to 2-4
    left_out = unknown([[], ["1-X_engine-of-uncertain-size"], []], names)
    assert left_out.tolist() == [[False] * 7, [True] * 3 + [False] * 4, [False] * 7]
    logits, labels = torch.randn(3, 7), torch.rand(3, 7).round()
    targets = torch.where(torch.from_numpy(left_out), torch.tensor(-1.0), labels)
    found, whole = known_bce(logits, targets), bce(logits, labels)
    assert torch.allclose(found[[0, 2]], whole[[0, 2]])
    assert torch.allclose(found[1], bce(logits[1:2, 3:], labels[1:2, 3:])[0] * 4 / 7)
