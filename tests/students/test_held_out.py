"""Clips that are held out by file: how far the share is from the one that was asked for is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import average_precision_score

from logitstore import open_store
from logitstore.cli.progress import render_training
from logitstore.errors import MismatchError
from logitstore.models.tagger import probabilities
from logitstore.training.runs import load_run
from students.data import ReplayDataset
from students.held_out import default_share, held_out, split
from students.train import StudentOptions, train_student
from tests.heard import make_heard, student_values


def store(clips_of_file: list[int]) -> Any:
    paths = [f"{number}.wav" for number, clips in enumerate(clips_of_file) for _ in range(clips)]
    return SimpleNamespace(clips=pa.table({"path": paths}), location="store")


@pytest.mark.parametrize(
    ("clips_of_file", "share", "said"),
    [
        ([4, 4, 4], 0.05, "--hold-out 0.05 holds out 1 of 3 files, 4 of 12 clips (33% of the clips, 5% was asked for)"),
        ([1] * 7, 0.1, "holds out 1 of 7 files, 1 of 7 clips (14% of the clips"),
        ([1] * 40, 0.1, None),
        ([1] * 10, 0.1, None),
    ],
)
def test_a_share_that_few_files_cannot_give_is_said_with_the_numbers(
    clips_of_file: list[int], share: float, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    some = store(clips_of_file)
    every = np.arange(some.clips.num_rows)
    learned, apart = split(some, [every, every[:-1]], share)
    assert sorted([*learned[0], *apart[0]]) == every.tolist()
    assert caplog.text == "" if said is None else said in caplog.text


def test_files_of_very_different_sizes_are_no_share_of_the_clips(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [1] * 10
    chosen = held_out([f"{number}.wav" for number in range(10)], 0.1)
    sizes[int(np.flatnonzero(chosen)[0])] = 30
    split(store(sizes), [np.arange(39)], 0.1)
    assert "1 of 10 files, 30 of 39 clips (77% of the clips, 10% was asked for): a file's clips stay" in caplog.text


@pytest.mark.parametrize(
    ("clips_of_file", "share", "message"),
    [
        ([5], 0.2, r"holds out 1 of 1 files of store, all 5 clips .*leave it out, for there is one file"),
        ([2, 2], 0.9, r"--hold-out 0\.9 leaves nothing to learn from: it holds out 2 of 2 files .*; hold out less"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(clips_of_file: list[int], share: float, message: str) -> None:
    some = store(clips_of_file)
    with pytest.raises(MismatchError, match=message):
        split(some, [np.arange(some.clips.num_rows)], share)


@pytest.mark.parametrize(
    ("clips_of_file", "share", "said"),
    [
        ([1] * 20, 0.05, None),
        ([3] * 40, 0.05, None),
        ([10] * 4000, 0.0125, None),  # 500 of 40,000 clips
        ([100] * 19, 0.0, "store has 19 files, too few to do without some, so nothing is held out"),
        ([1], 0.0, "store has 1 file, too few"),
    ],
)
def test_by_default_a_small_share_is_held_out_of_a_store_that_is_large_enough(
    clips_of_file: list[int], share: float, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    some = store(clips_of_file)
    assert default_share(some, [np.arange(some.clips.num_rows)])[0] == share
    assert said in caplog.text if said else caplog.text == ""


def test_a_long_file_is_not_held_out_by_default(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [1] * 20
    sizes[int(np.flatnonzero(held_out([f"{number}.wav" for number in range(20)], 0.05))[0])] = 100
    assert default_share(store(sizes), [np.arange(119)]) == (0, None)
    assert "the files to hold out have 84% of the clips of store, so nothing is held out" in caplog.text


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_heard(tmp_path_factory.mktemp("heard"))


def learn(root: Path, out: Path, **changes: Any) -> Any:
    return train_student(StudentOptions(**student_values(root, out, **{"epochs": 2} | changes)))


@pytest.mark.usefixtures("one_thread")
def test_a_training_ends_with_how_far_the_student_agrees_with_the_targets_of_held_out_clips(
    root: Path, tmp_path: Path
) -> None:
    trained = learn(root, tmp_path / "run")
    some = open_store(root / "store")
    apart = np.flatnonzero(held_out(some.clips["path"].to_pylist(), 0.05))
    assert len(apart) == 2
    model = load_run(tmp_path / "run").model
    said, heard = [], []
    for view in range(2):
        data = ReplayDataset(root / "store", str(root / "audio"), view, rows=apart)
        batch = data.collate([data[0], data[1]])
        with torch.inference_mode():
            heard.append(probabilities(model(batch["waveform"], batch["masks"]), "sigmoid").double().numpy())
        said.append(batch["target"].double().numpy())
    a, b = np.concatenate(said), np.concatenate(heard)
    kl = (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))).sum(axis=1)
    found = trained.agreement
    assert (found["views"], found["clips"], found["classes"]) == (4, 2, 3)
    assert found["kl"] == pytest.approx(kl.mean(), rel=1e-4)
    assert found["top1"] == (a.argmax(axis=1) == b.argmax(axis=1)).mean()
    decisions = a >= 0.5
    decisions[~decisions.any(axis=1), a.argmax(axis=1)[~decisions.any(axis=1)]] = True
    decided = decisions.any(axis=0) & ~decisions.all(axis=0)
    mean_ap = average_precision_score(decisions[:, decided], b[:, decided]) if decided.any() else None
    assert found["mAP"] == (None if mean_ap is None else pytest.approx(mean_ap))
    assert {each["path"] for each in found["worst"]} == set(some.clips["path"].take(apart).to_pylist())
    assert {each["view"] for each in found["worst"]} == {0, 1}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["agreement"] == json.loads(json.dumps(found))
    shown = render_training(trained)
    assert "on held-out clips of the store, without labels:" in shown
    assert "of 4 views of 2 clips" in shown
    again = learn(root, tmp_path / "run")
    assert again.before
    assert again.agreement == json.loads(json.dumps(found))
    # the run says what was held out, so that its config repeats it
    assert json.loads((tmp_path / "run" / "training.json").read_text())["options"]["hold_out"] == 0.05


@pytest.mark.usefixtures("one_thread")
def test_nothing_is_held_out_where_that_was_asked_for_or_a_run_was_begun_before_it_was_the_default(
    root: Path, tmp_path: Path
) -> None:
    whole = learn(root, tmp_path / "whole", hold_out=0)
    assert whole.agreement is None
    assert "held-out" not in render_training(whole)
    clips = {json.loads(line).get("clips") for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()}
    assert 36 in clips
    # an earlier release recorded null where nothing was held out
    for name in ("training.json", "run.json"):
        text = (tmp_path / "whole" / name).read_text()
        assert '"hold_out": 0,' in text.replace("0.0,", "0,")
        (tmp_path / "whole" / name).write_text(text.replace('"hold_out": 0,', '"hold_out": null,'))
    before = learn(root, tmp_path / "whole")
    assert before.before
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "training.json").write_bytes((tmp_path / "whole" / "training.json").read_bytes())
    learn(root, begun)  # goes on as it was begun, and not as a new one would be
    assert load_run(begun).digest == load_run(tmp_path / "whole").digest
    assert load_run(begun).digest != load_run(learn(root, tmp_path / "new").out).digest
