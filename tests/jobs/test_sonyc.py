"""SONYC-UST from its table to a student, as docs/sonyc.md has it, on a small set of the same layout."""

import csv
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import logitstore
from logitstore.audio.sonyc import COARSE, FINE, TAGS
from logitstore.errors import RunError, SourceError, UsageError
from logitstore.evaluation.sonyc import LEVELS, WhileTraining, read_predictions, read_truth, unknown
from logitstore.models.losses import bce, known_bce
from students.data import _HeardLabels
from students.labels import clip_labels
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


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A fine store of all clips but the train ones' X, and of one view; its audio and annotations beside it."""
    folder = tmp_path_factory.mktemp("stored")
    make_sonyc(folder, seconds=0.3)
    torch.set_num_threads(1)
    logitstore.train_teacher(
        manifest=str(folder / "annotations.csv"), labels="sonyc", level="fine", where="split = 'train'",
        out=str(folder / "run"), **SMALL,
    )  # fmt: skip
    logitstore.build(
        source=str(folder / "annotations.csv"), teachers=[str(folder / "run")], views=2, recipe="none", topk=23,
        value_bits=16, out=str(folder / "store"), device="cpu",
    )  # fmt: skip
    return folder


def test_what_a_store_says_is_measured_as_its_teachers_are(stored, tmp_path, monkeypatch):
    asked = {"measure": "sonyc", "annotations": str(stored / "annotations.csv")}
    written = str(tmp_path / "said.csv")
    found = logitstore.evaluate(
        **asked, teachers=[str(stored / "run")], stored=str(stored / "store"), audio_root=str(stored), device="cpu"
    )
    assert [each.scored for each in found.sonyc] == [str(stored / "run"), f"targets of {stored / 'store'}"]
    for heard, kept in zip(*(each.levels for each in found.sonyc), strict=True):
        assert heard.clips == kept.clips == VERIFIED
        assert kept.average_precision_micro == pytest.approx(heard.average_precision_micro, abs=0.02)
    (stored / "annotations.csv").rename(stored / "moved.csv")  # where no audio is beside it
    try:
        moved = tmp_path / "annotations.csv"
        moved.write_bytes((stored / "moved.csv").read_bytes())
        alone = logitstore.evaluate(
            measure="sonyc", annotations=str(moved), stored=str(stored / "store"), write_predictions=written
        )
    finally:
        (stored / "moved.csv").rename(stored / "annotations.csv")
    assert alone.sonyc == found.sonyc[1:]
    again = logitstore.evaluate(**asked, predictions=written)
    for one, other in zip(again.levels, alone.sonyc[0].levels, strict=True):
        assert one.micro.auprc == pytest.approx(other.micro.auprc, abs=1e-9)
    (coarse,) = logitstore.evaluate(**asked, stored=str(stored / "store"), level="coarse").sonyc[0].levels
    assert coarse == alone.sonyc[0].levels[0]
    (tmp_path / "few.csv").write_text("clip\n0\n1\n13\n")
    with pytest.raises(UsageError, match="7 have no prediction"):
        logitstore.evaluate(**asked, stored=str(stored / "store"), clips=str(tmp_path / "few.csv"))


@pytest.mark.usefixtures("one_thread")
def test_the_official_measure_says_which_student_is_kept(stored, tmp_path):
    values = {
        "store": str(stored / "store"), "audio_root": str(stored), "student": "cnn4", "device": "cpu", "steps": 6,
        "model_args": SMALL["model_args"], "batch_size": 13, "eval_manifest": str(stored / "annotations.csv"),
        "eval_measure": "sonyc", "hold_out": 0.0, "workers": 1,
    }  # fmt: skip
    trained = logitstore.train_student(
        **values, out=str(tmp_path / "run"), select_by="sonyc", average_best=1, eval_every=1, terms=["labels=0.5"],
        labels="sonyc",
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    curve = {each["step"]: each["sonyc_micro_auprc"] for each in log if each["event"] == "epoch"}
    (kept,) = trained.result.averaged
    assert kept["sonyc"] == curve[kept["step"]] == max(curve.values())
    asked = {"measure": "sonyc", "annotations": str(stored / "annotations.csv"), "audio_root": str(stored)}
    measured = logitstore.evaluate(**asked, teachers=[trained.out], level="coarse", device="cpu").sonyc[0].levels[0]
    said = trained.result.metrics
    assert said["sonyc_micro_auprc"] == pytest.approx(measured.micro.auprc, abs=1e-6)
    assert said["sonyc_macro_auprc"] == pytest.approx(measured.macro.auprc, abs=1e-6)
    assert (said["sonyc_level"], said["sonyc_clips"]) == ("coarse", VERIFIED)
    for changes, wrong in (
        ({"label_column": "fine"}, "--label-column others; leave it out"),
        ({"eval_where": "true"}, "--eval-where others; leave it out"),
        ({"eval_measure": None, "label_column": "fine", "level": "fine"}, "--level is of an official measure"),
        ({"eval_measure": None, "select_by": "sonyc", "patience": 1}, "give --eval-measure sonyc too"),
        ({"eval_manifest": None}, "give SONYC-UST's annotations.csv as --eval"),
        ({"select_by": "sonyc"}, "says what --patience and --average-best go by, and neither is given"),
    ):
        with pytest.raises(RunError, match=wrong):
            logitstore.train_student(**values | changes, out=str(tmp_path / "none"))
    fewer = tmp_path / "fewer"
    shutil.copytree(stored / "audio", fewer / "audio")
    next((fewer / "audio").glob("13_*.wav")).unlink()
    with pytest.raises(SourceError, match=r"1 of the 8 verified clips of the split validate .* as '13_"):
        logitstore.train_student(**values, eval_audio_root=str(fewer), out=str(tmp_path / "late"))
    assert not (tmp_path / "late" / "log.jsonl").exists()


def test_a_level_that_no_class_is_of_is_refused_while_training(stored):
    truth = read_truth(str(stored / "annotations.csv"), "validate")
    for classes, level, fine in ((COARSE, "coarse", True), (COARSE, "fine", False), (FINE, "fine", True),
                                 (FINE, "coarse", True), (("dog",), "coarse", False)):  # fmt: skip
        if fine:
            WhileTraining(truth, classes, level).require(truth.files)
            continue
        with pytest.raises(
            SourceError, match=f"is one of SONYC-UST's {level} ones, so the official measure would be 0"
        ):
            WhileTraining(truth, classes, level).require(truth.files)


def test_a_student_learns_nothing_of_the_labels_of_an_x(stored):
    store = logitstore.open_store(stored / "store")
    labels, labelled = clip_labels(store, "fine", masked=True)(np.arange(store.clips.num_rows))
    plain, _ = clip_labels(store, "fine")(np.arange(store.clips.num_rows))
    hidden = unknown(store.clips["uncertain"].to_pylist(), store.manifest.classes)
    assert labelled.all()
    assert hidden.any()
    assert np.array_equal(labels, np.where(hidden, -1, plain))
    mixed = _HeardLabels(
        clip_labels(store, "fine", masked=True),
        SimpleNamespace(partner_shares=lambda draws: draws),
        np.arange(3),
        np.array([0.25, 0, 0.5], np.float32),
        np.array([3, -1, 5]),
    )(np.arange(3))[0]
    assert np.array_equal(mixed < 0, hidden[:3] | (hidden[[3, 1, 5]]))
    assert np.allclose(mixed[2][mixed[2] >= 0], ((plain[2] + plain[5]) / 2)[mixed[2] >= 0])
