"""The evaluation job: teachers on files of several clips, a store's targets, what the command prints and writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.evaluate import evaluate_command
from logitstore.errors import AudioError, ModelOutputError, SourceError, TeacherError, UsageError
from logitstore.evaluation.labelled import classes_from, label_matrix, label_names, read_labelled
from logitstore.jobs.build.job import BuildOptions, build
from logitstore.jobs.evaluate import EvaluateOptions, evaluate

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
def here(tmp_path, own_folder):
    """Eight files of one second, rising in level, and one of 2.5 s that is loud, then silent."""
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
    with pytest.raises(AudioError, match=r"not one of the 1 files of .* can be read \(3.wav: not readable as audio"):
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
        ({"teachers": []}, UsageError, "no teacher was given; give at least one --teacher SPEC, or the targets of a "),
        ({"manifest": None}, UsageError, "teachers hear audio: give the MANIFEST that names it"),
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


def test_an_unknown_label_is_named_with_the_manifest_and_the_class_that_was_meant():
    classes = ["dog_bark", "rain", "Inside, small room", "sea_waves"]
    labels = [("dog bark",), ("Rain", "sea_wave"), ("rain",), ("violin",)]
    with pytest.raises(
        TeacherError,
        match=r"^x.csv: 4 of 5 labels are no class of it: 'Rain' \(perhaps 'rain'\), 'dog bark' \(perhaps 'dog_bark'\),"
        r" 'sea_wave' \(perhaps 'sea_waves'\), …; its 4 classes are 'dog_bark', 'rain', 'Inside, small room', …; re",
    ):
        label_matrix(labels, classes, whose="it", source="x.csv")
    with pytest.raises(TeacherError, match=r"^1 of 1 labels is no class of it: 'violin'; its 4 classes"):
        label_matrix([("violin",)], classes, whose="it")


def test_the_command_prints_a_table_or_json(here):
    arguments = ["labels.csv", "--audio-root", "audio", "--label-column", "label", "--where", "fold < 2"]
    arguments += ["--teacher", f"python:{here}:Loud", "--teacher", f"python:{here}:Wrong", "--teacher-weight", "2"]
    arguments += ["--teacher-weight", "1", "--device", "cpu"]
    shown = CliRunner().invoke(evaluate_command, arguments)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["teacher", "mAP", "micro", "AUPRC", "macro", "AUPRC", "AUC", "d-prime", "ECE"]
    assert lines[1].split()[:2] == [f"python:{here}:Loud", "1.0000"]
    assert lines[3].split()[:2] == ["ensemble", "1.0000"]
    assert "8 labelled rows in 8 clips of 1 s at 8000 Hz; 2 classes, 1 left out for having no positives" in lines[5]
    assert "an AUC of 1 or 0 is taken half a count short of it, in up to 2 classes" in shown.stdout
    document = json.loads(CliRunner().invoke(evaluate_command, [*arguments, "--json"]).stdout)
    assert document["ensemble"]["mAP"] == 1.0
    assert document["stored"] is None
    assert [row["class"] for row in document["ensemble"]["by_class"]] == ["loud", "quiet"]
    assert sum(each["count"] for each in document["ensemble"]["calibration"]["bins"]) == 8 * 3
    assert [member["teacher"].rsplit(":")[-1] for member in document["members"]] == ["Loud", "Wrong"]


def built(here, **changes):
    """A store of the audio of ``labels.csv``, in clips of 1 s, as the teacher Loud hears it, unaugmented."""
    values = {
        "source": "labels.csv",
        "audio_root": "audio",
        "out": "store",
        "teachers": [f"python:{here}:Loud"],
        "recipe": "none",
        "views": 2,
        "topk": 3,
        "clip_seconds": 1.0,
        "batch_size": 4,
        "device": "cpu",
        "value_bits": 16,
    }
    build(BuildOptions(**(values | changes)))


def test_beside_teachers_a_store_is_scored_on_the_rows_of_both(here):
    built(here, where="fold < 2 OR fold = 2")
    with Path("labels.csv").open("a") as file:
        file.write("late.wav,loud,3\n")
    soundfile.write("audio/late.wav", np.zeros(RATE, np.float32), RATE)
    found = evaluate(asked(here, stored="store"))
    assert (found.rows, found.stored.rows, found.stored.clips, found.clips) == (9, 9, 11, 11)
    assert found.stored.rows_without_clips == 1
    teacher, stored = found.members[0][1], found.stored.metrics
    assert stored.mAP == pytest.approx(teacher.mAP)
    assert teacher.mAP > 0.9
    assert stored.calibration.brier == pytest.approx(teacher.calibration.brier, abs=1e-3)
    Path("audio/2.wav").write_bytes(b"gone")
    found = evaluate(asked(here, stored="store"))
    assert (found.rows, found.stored.rows) == (8, 8)
    assert [name for name, _ in found.named()] == [f"python:{here}:Loud", "targets of store"]


def test_the_rows_of_a_cut_file_get_the_clips_that_lie_in_them(here):
    rows = "path,start,duration,label\nlong.wav,0,1,loud\nlong.wav,1,1.5,quiet\n7.wav,,,loud\n0.wav,,,quiet\n"
    Path("labels.csv").write_text(rows)
    built(here)
    assert open_store("store").clips.num_rows == 5
    found = evaluate(EvaluateOptions(manifest="labels.csv", stored="store", label_column="label"))
    assert found.stored.metrics.mAP == 1.0
    assert (found.rows, found.clips, found.stored.clips_without_labels) == (4, 5, 0)
    Path("part.csv").write_text("path,start,duration,label\nlong.wav,0.5,1.0,loud\nlong.wav,0,1.0,loud\n")
    part = evaluate(EvaluateOptions(manifest="part.csv", stored="store", label_column="label"))
    assert (part.rows, part.clips, part.stored.rows_without_clips, part.stored.clips_without_labels) == (1, 1, 1, 4)


def segments(lines):
    """Audio of one file, a second at each level from 0 to 0.9, and a manifest of segments of it."""
    wave = np.repeat(np.arange(10) / 10, RATE).astype(np.float32)
    soundfile.write("audio/survey.wav", wave, RATE, subtype="FLOAT")
    Path("segments.csv").write_text("path,start,duration,label\n" + "".join(f"survey.wav,{line}\n" for line in lines))


def test_stored_targets_of_segments_are_scored_one_by_one(here):
    """Some with the same label, two of them wrong: a mean over the file's would hide that."""
    labels = ["quiet", "quiet", "loud", "quiet", "quiet", "loud", "quiet", "loud", "loud", "loud"]
    segments([f"{number},1,{label}" for number, label in enumerate(labels)])
    built(here, source="segments.csv", views=1)
    own = evaluate(EvaluateOptions(manifest=None, stored="store", label_column="label"))
    told = evaluate(EvaluateOptions(manifest="segments.csv", stored="store", label_column="label"))
    heard = evaluate(asked(here, manifest="segments.csv"))
    assert (own.rows, own.clips, told.rows, told.clips, heard.rows) == (10, 10, 10, 10, 10)
    assert 0.5 < own.stored.metrics.mAP < 0.99
    assert own.stored.metrics.mAP == told.stored.metrics.mAP == pytest.approx(heard.members[0][1].mAP)
    assert own.stored.rows_of_several_clips == 0


def test_label_rows_of_one_segment_are_one_clip(here, caplog):
    segments(["0,1,quiet", "0,1,never", "0,1,quiet", "5,1,loud", "8,1,loud"])
    found = evaluate(asked(here, manifest="segments.csv"))
    assert found.rows == 3
    assert {row["class"]: row["positives"] for row in found.by_class(found.members[0][1])} == {
        "loud": 2, "quiet": 1, "never": 1,
    }  # fmt: skip
    assert "segments.csv: 3 rows name 1 segments more than once (such as of 'survey.wav'); each is one" in caplog.text
    Path("one.csv").write_text("path,start,duration\nsurvey.wav,0,1\nsurvey.wav,5,1\nsurvey.wav,8,1\n")
    built(here, source="one.csv", views=1)
    stored = evaluate(EvaluateOptions(manifest="segments.csv", stored="store", label_column="label"))
    assert (stored.rows, stored.clips) == (3, 3)
    assert stored.stored.metrics.mAP == pytest.approx(found.members[0][1].mAP)


def test_a_row_that_is_a_clip_is_scored_on_that_clip_alone(here):
    """A segment within another is no part of it, unless the store has the other in pieces."""
    segments(["0,10,quiet", "8,2,loud", "4,1,never"])
    built(here, source="segments.csv", views=1, clip_seconds=10.0)
    found = evaluate(EvaluateOptions(manifest="segments.csv", stored="store", label_column="label"))
    assert (found.rows, found.clips, found.stored.rows_of_several_clips) == (3, 3, 0)
    Path("pieces.csv").write_text(
        "path,start,duration,label\n" + "".join(f"survey.wav,{at},1,quiet\n" for at in (0, 3.5, 7))
    )
    built(here, source="pieces.csv", views=1, out="pieces")
    found = evaluate(EvaluateOptions(manifest="segments.csv", stored="pieces", label_column="label"))
    assert (found.rows, found.clips, found.stored.rows_without_clips) == (1, 3, 2)
    assert found.stored.rows_of_several_clips == 1
    Path("short.csv").write_text("path,start,duration,label\nsurvey.wav,1,0.5,quiet\n")
    with pytest.raises(SourceError, match=r"none of the 1 rows of short.csv holds a whole clip .*as 'survey.wav'"):
        evaluate(EvaluateOptions(manifest="short.csv", stored="pieces", label_column="label"))


def test_a_manifest_of_whole_files_is_scored_on_the_mean_of_their_clips(here):
    built(here)
    shown = CliRunner().invoke(
        evaluate_command, ["labels.csv", "--stored", "store", "--label-column", "label"], catch_exceptions=False
    )
    assert "9 labelled rows in 11 clips of 1 s" in shown.stdout
    assert "targets: 1 of 9 rows are longer than a clip of the store, and scored on the mean of their" in shown.stdout
    own = CliRunner().invoke(evaluate_command, ["--stored", "store", "--label-column", "label"], catch_exceptions=False)
    assert "11 labelled clips of 1 s" in own.stdout


def test_labels_with_separators_are_guessed_from_the_classes_and_said(here):
    Path("bars.csv").write_text('path,label\n0.wav,quiet\n5.wav,loud|never\n7.wav,"loud,quiet"\n6.wav,\n')
    arguments = ["bars.csv", "--audio-root", "audio", "--label-column", "label", "--teacher", f"python:{here}:Loud"]
    shown = CliRunner().invoke(evaluate_command, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert "4 labelled rows" in shown.stdout
    for said in ("'loud|never' is read as 2 labels", "'loud,quiet' is read as 2", "1 of 4 rows have no label"):
        assert shown.stderr.count(said) == 1
    with pytest.raises(TeacherError, match=r"if 'loud,quiet' is several, say --label-separator"):
        evaluate(asked(here, manifest="bars.csv", label_separator="|"))


def test_a_number_that_is_taken_for_an_index_of_audioset_is_said(here, caplog):
    assert label_matrix([("0",), ("137",)], ["Speech", "Music"], whose="it", source="m.csv").all(axis=0).tolist() == [
        False, False,
    ]  # fmt: skip
    assert "m.csv: the label '0' is taken for AudioSet's index 0, 'Speech', as are 2 numbers in all" in caplog.text


def test_labels_that_are_alike_but_for_case_or_unicode_make_no_two_classes():
    for one, other in (("Dog", "dog"), ("caf\u00e9", "cafe\u0301"), ("Dog bark", "Dog  bark")):
        with pytest.raises(SourceError, match=r"x\.csv: the labels .* \(1 rows\) differ only by case"):
            classes_from([(one,), (other, "Cat")], "x.csv")
    assert classes_from([("Dog", "Cat"), ("Dog",)], "x.csv") == ("Cat", "Dog")
