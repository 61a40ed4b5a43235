"""Metrics against scikit-learn and by hand, and the evaluation job on files of several clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from logitstore.cli.evaluate import evaluate_command
from logitstore.errors import ModelOutputError, SourceError, TeacherError, UsageError
from logitstore.jobs.evaluate import EvaluateOptions, evaluate
from logitstore.jobs.labelled import label_matrix, label_names, read_labelled
from logitstore.jobs.metrics import measure

RATE = 8_000

TEACHERS = '''
"""Teachers for tests: loudness decides between the classes."""
import torch


class Loud(torch.nn.Module):
    classes = ["loud", "quiet", "never"]
    sample_rate = 8_000
    scores = "sigmoid"

    def forward(self, waveforms):
        level = waveforms.abs().mean(dim=1).clamp(0, 1)
        return torch.stack([level, 1 - level, torch.zeros_like(level)], dim=1)


class Wrong(Loud):
    def forward(self, waveforms):
        return Loud.forward(self, waveforms)[:, [1, 0, 2]]


class AudioSet(Loud):
    classes = ["Speech", "Music"]

    def forward(self, waveforms):
        return Loud.forward(self, waveforms)[:, :2]


class Fast(Loud):
    sample_rate = 16_000


class Broken(Loud):
    def forward(self, waveforms):
        return Loud.forward(self, waveforms) * float("nan")
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Eight files of one second, rising in level, and one of 2.5 s that is loud, then silent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"teachers_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TEACHERS)
    (tmp_path / "audio").mkdir()
    lines = ["path,label,fold"]
    for number in range(8):
        wave = np.full(RATE, 0.1 + 0.1 * number, dtype=np.float32)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wave, RATE, subtype="FLOAT")
        lines.append(f"{number}.wav,{'loud' if number >= 4 else 'quiet'},{number % 2}")
    wave = np.concatenate([np.ones(RATE), np.zeros(RATE * 3 // 2)]).astype(np.float32)
    soundfile.write(tmp_path / "audio" / "long.wav", wave, RATE, subtype="FLOAT")
    lines.append("long.wav,loud;quiet,2")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return name


def asked(here, *factories, **changes):
    values = {
        "manifest": "labels.csv",
        "audio_root": "audio",
        "label_column": "label",
        "teachers": [f"python:{here}:{factory}" for factory in factories or ("Loud",)],
        "clip_seconds": 1.0,
        "device": "cpu",
        "batch_size": 4,
    }
    return EvaluateOptions(**(values | changes))


def test_metrics_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = random.random((60, 7)) < 0.2
    labels[:, 3] = False
    scores = (labels * 0.3 + random.random((60, 7))).astype(np.float32)
    found = measure(labels, scores)
    kept = [c for c in range(7) if c != 3]
    assert found.mAP == pytest.approx(average_precision_score(labels[:, kept], scores[:, kept], average="macro"))
    assert found.micro_auprc == pytest.approx(average_precision_score(labels, scores, average="micro"))
    assert found.macro_auprc == found.mAP
    assert (found.classes, found.left_out, found.rows) == (6, 1, 60)
    assert "average precision" in found.to_dict()["estimator"]


def test_average_precision_by_hand():
    labels = np.array([[1], [0], [1], [0]], dtype=bool)
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    assert measure(labels, scores).mAP == pytest.approx((1 + 2 / 3) / 2)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(SourceError, match="none of 3 rows has a label"):
        measure(np.zeros((3, 2), bool), np.zeros((3, 2)))
    with pytest.raises(ModelOutputError, match="a score is not finite"):
        measure(np.ones((3, 2), bool), np.full((3, 2), np.nan))


def test_members_and_ensemble_are_scored(here):
    found = evaluate(asked(here, "Loud", "Wrong", "Fast", where="fold < 2"))
    scores = {spec.rsplit(":", 1)[1]: metrics.mAP for spec, metrics in found.members}
    assert scores["Loud"] == scores["Fast"] == 1.0
    assert scores["Wrong"] < 0.5
    assert found.ensemble is not None
    assert found.ensemble.mAP == 1.0  # two of three are right
    assert found.sample_rate == 16_000
    assert (found.rows, found.clips) == (8, 8)
    assert found.members[0][1].left_out == 1
    assert evaluate(asked(here)).ensemble is None


def test_the_scores_of_a_long_file_are_averaged_over_its_clips(here):
    labelled = read_labelled("labels.csv", "audio", "label", clip_seconds=1.0)
    assert labelled.table.num_rows == 11
    long = [clip for clip in range(11) if labelled.name(clip) == "long.wav"]
    assert labelled.labels[labelled.row_of[long[0]]] == ("loud", "quiet")
    scores = np.zeros((1, 11, 2), np.float32)
    scores[0, long, 0] = [0.9, 0.3, 0.6]
    heard = np.ones(11, bool)
    rows, there = labelled.by_row(scores, heard)
    assert rows.shape == (1, 9, 2)
    assert rows[0, labelled.row_of[long[0]], 0] == pytest.approx(0.6)
    assert there.all()
    heard[long[0]] = False
    assert labelled.by_row(scores, heard)[0][0, labelled.row_of[long[0]], 0] == pytest.approx(0.45)


def test_rows_of_one_file_keep_their_own_labels(here):
    Path("segments.csv").write_text("path,start,duration,label\nlong.wav,1.0,1.0,quiet\nlong.wav,0.0,1.0,loud\n")
    found = evaluate(asked(here, manifest="segments.csv"))
    assert found.members[0][1].mAP == 1.0
    assert found.rows == 2


def test_the_default_clip_is_the_longest_file_up_to_ten_seconds(here):
    assert read_labelled("labels.csv", "audio", "label").clip_seconds == 2.5
    assert read_labelled("labels.csv", "audio", "label", where="fold < 2").clip_seconds == 1.0


def test_labels_are_matched_through_the_audioset_table(here):
    labels = read_labelled("labels.csv", "audio", "label").labels
    assert label_names(labels) == ("loud", "quiet")
    matrix = label_matrix([("/m/09x0r",), ("137", "Speech"), ()], ["Speech", "Music"], whose="the model")
    assert matrix.tolist() == [[True, False], [True, True], [False, False]]
    Path("mids.csv").write_text("path,label\n7.wav,/m/09x0r\n0.wav,Music\n")
    assert evaluate(asked(here, "AudioSet", manifest="mids.csv")).members[0][1].mAP == 1.0


def test_an_unreadable_clip_is_reported(here):
    Path("audio/3.wav").write_bytes(b"RIFFnothing")
    found = evaluate(asked(here, where="fold < 2"))
    assert found.rows == 7
    assert found.failures[0][0] == "3.wav"
    assert found.failures[0][1].startswith("not readable as audio")
    with pytest.raises(SourceError, match=r"none of 1 clips can be decoded, the first \(3.wav\)"):
        evaluate(asked(here, where="path = '3.wav'"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"label_column": "name"},
            SourceError,
            "labels.csv: no column 'name' to take labels from; found 'label', 'fold'",
        ),
        ({"manifest": "audio"}, SourceError, "no column 'label' to take labels from; found no columns beside the path"),
        ({"teachers": []}, UsageError, "no teacher was given"),
        ({"clip_seconds": 0.0}, UsageError, "--clip-seconds is 0; allowed are 0.1 to 3600"),
        ({"batch_size": 0}, UsageError, "--batch-size is 0; it must be at least 1"),
        ({"weights": [1.0, 2.0]}, TeacherError, "2 teacher weights for 1 teachers"),
        ({"teachers": ["runs/none"]}, TeacherError, "no teacher 'runs/none'"),
    ],
)
def test_bad_input_is_one_clear_line(here, changes, error, message):
    with pytest.raises(error, match=message):
        evaluate(asked(here, **changes))


def test_unknown_labels_and_bad_outputs_are_refused(here):
    with pytest.raises(
        TeacherError, match=r"2 of 2 labels are no class of teacher 'python:.*': 'loud', 'quiet'; its 2 cl"
    ):
        evaluate(asked(here, "AudioSet"))
    with pytest.raises(ModelOutputError, match="gave NaN for clip 0"):
        evaluate(asked(here, "Broken"))


def test_the_command_prints_a_table_or_json(here):
    arguments = ["labels.csv", "--audio-root", "audio", "--label-column", "label", "--where", "fold < 2"]
    arguments += ["--teacher", f"python:{here}:Loud", "--teacher", f"python:{here}:Wrong", "--teacher-weight", "2"]
    arguments += ["--teacher-weight", "1", "--device", "cpu"]
    shown = CliRunner().invoke(evaluate_command, arguments)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["teacher", "mAP", "micro", "AUPRC", "macro", "AUPRC"]
    assert lines[1].split()[:2] == [f"python:{here}:Loud", "1.0000"]
    assert lines[3].split()[:2] == ["ensemble", "1.0000"]
    assert "8 files in 8 clips of 1 s at 8000 Hz; 2 classes, 1 left out for having no positives" in lines[5]
    document = json.loads(CliRunner().invoke(evaluate_command, [*arguments, "--json"]).stdout)
    assert document["ensemble"]["mAP"] == 1.0
    assert [member["teacher"].rsplit(":")[-1] for member in document["members"]] == ["Loud", "Wrong"]
