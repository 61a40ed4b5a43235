"""Training teachers and students: what they learn, what a run folder says, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.inspect import inspect_command
from logitstore.cli.train_student import train_student_command
from logitstore.cli.train_teacher import train_teacher_command
from logitstore.digests import digest
from logitstore.errors import MismatchError, ModelOutputError, QueryError, RunError, SourceError, TeacherError
from logitstore.jobs.build.job import build
from logitstore.models.registry import build as build_model
from logitstore.models.registry import initialised
from logitstore.training.loop import Epoch, FitOptions, FitProgress, fit
from logitstore.training.runs import load_run
from logitstore.training.schedule import learning_rate
from logitstore.views.ops import Place
from students.objective import Objective
from students.terms import Setting
from students.train import StudentOptions, train_student
from teachers.train import TeacherOptions, default_recipe, train_teacher
from tests.stores import inside
from tests.stores import options as build_options

RATE = 16_000
HZ = {"low": 400, "middle": 1500, "high": 5000}
SMALL = {"width": 2, "mels": 16, "hop_ms": 40}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tones of three classes, 36 to train and 12 to measure on, two of them at once in some; a store of 2 views."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(2)
    lines = ["path,label,fold"]
    (folder / "audio").mkdir()
    for number in range(48):
        names = random.choice(list(HZ), 1 + (number % 4 == 0), replace=False)
        time = np.arange(RATE * 6 // 10) / RATE
        wave = 0.02 * random.standard_normal(len(time))
        for name in names:
            wave += 0.2 * np.sin(2 * np.pi * HZ[name] * time * random.uniform(0.9, 1.1))
        soundfile.write(folder / "audio" / f"{number:02d}.wav", wave.astype(np.float32), RATE)
        lines.append(f"{number:02d}.wav,{';'.join(names)},{1 + number // 12}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    with inside(folder):
        build(build_options(folder, source=str(folder / "labels.csv"), audio_root=str(folder / "audio"),
                            where="fold < 4", views=2, clip_seconds=0.6, out=str(folder / "store"),
                            recipe=str(short_recipe(folder))))  # fmt: skip
    return folder


def short_recipe(folder: Path) -> Path:
    recipe = folder / "short.yaml"
    recipe.write_text("ops:\n- op: roll\n- op: time_mask\n  max_seconds: 0.2\n- op: frequency_mask\n  max_steps: 12\n")
    return recipe


def teacher_options(root, out, **changes):
    values = {
        "manifest": str(root / "labels.csv"),
        "audio_root": str(root / "audio"),
        "label_column": "label",
        "where": "fold < 4",
        "model": "cnn4",
        "model_args": SMALL,
        "out": str(out),
        "steps": 40,
        "batch_size": 12,
        "device": "cpu",
    }
    return TeacherOptions(**(values | changes))


def student_options(root, out, **changes):
    values = {
        "store": str(root / "store"),
        "audio_root": str(root / "audio"),
        "student": "cnn4",
        "model_args": SMALL,
        "out": str(out),
        "epochs": 4,
        "batch_size": 16,
        "device": "cpu",
    }
    return StudentOptions(**(values | changes))


def log_of(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def test_a_teacher_learns_several_labels_and_is_a_run(root, tmp_path):
    trained = train_teacher(teacher_options(root, tmp_path / "run", eval_where="fold = 4", steps=90, lr=1e-2))
    assert trained.result.metrics["mAP"] > 0.9
    assert trained.result.metrics["eval_rows"] == 12
    run = load_run(tmp_path / "run")
    assert run.classes == ("high", "low", "middle")
    assert run.scores == "sigmoid"
    training = run.config["training"]
    assert training["options"]["seed"] == 0
    assert training["options"]["clip_seconds"] == pytest.approx(0.6)
    assert training["recipe"]["name"] == "teacher"
    assert "torch" in training["versions"]
    steps = [record for record in log_of(tmp_path / "run") if record["event"] == "step"]
    assert [record["step"] for record in steps] == list(range(90))
    assert np.mean([r["loss"] for r in steps[-10:]]) < 0.5 * np.mean([r["loss"] for r in steps[:10]])


def test_a_softmax_teacher_wants_one_label_a_row(root, tmp_path):
    with pytest.raises(RunError, match=r"--scores softmax needs one label a row; 00\.wav has 2 in the column 'label'"):
        train_teacher(teacher_options(root, tmp_path / "run", scores="softmax"))
    trained = train_teacher(
        teacher_options(root, tmp_path / "run", scores="softmax", where="NOT contains(label, ';')", steps=5)
    )
    assert trained.result.steps == 5
    assert load_run(tmp_path / "run").scores == "softmax"


def test_mixup_mixes_the_labels_too(root, tmp_path):
    recipe = tmp_path / "mix.yaml"
    recipe.write_text("- op: mixup\n  probability: 1.0\n  min_weight: 0.25\n  max_weight: 0.25\n")
    seen = []
    trained = train_teacher(
        teacher_options(root, tmp_path / "run", recipe=str(recipe), steps=6),
        FitProgress(step=lambda step, clips, loss: seen.append((step, clips))),
    )
    assert seen == [(step, 12) for step in range(1, 7)]
    assert np.isfinite(trained.result.loss)


def test_an_unreadable_clip_is_left_out_and_named(root, tmp_path):
    (tmp_path / "audio").mkdir()
    for path in sorted((root / "audio").iterdir())[:8]:
        (tmp_path / "audio" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "audio" / "03.wav").write_bytes((root / "audio" / "03.wav").read_bytes()[:2000])
    rows = (root / "labels.csv").read_text().splitlines()[:9]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    trained = train_teacher(teacher_options(tmp_path, tmp_path / "run", where=None, steps=3, batch_size=4))
    assert len(trained.notes) == 1
    assert trained.notes[0].startswith("left out, cannot be decoded: 03.wav: truncated")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "cnn5"}, RunError, r"no model 'cnn5'; allowed are .*, cnn4, .*cnn6"),
        ({"model_args": {"widht": 4}}, RunError, "model 'cnn4' has no argument 'widht'; allowed are width"),
        ({"label_column": "labels"}, SourceError, "no column 'labels' to take labels from; found 'label', 'fold'"),
        ({"where": "fold = 9"}, SourceError, "leaves none of 48 rows"),
        ({"eval_where": "fold = 9"}, SourceError, "--eval-where 'fold = 9' leaves none of 48 rows"),
        ({"where": "fold ="}, QueryError, "--where 'fold ='"),
        ({"epochs": 2}, RunError, "--epochs and --steps are both given"),
        ({"steps": 0}, RunError, "--steps is 0; it must be at least 1"),
        ({"lr": -1.0}, RunError, "--lr is -1; it must be more than 0"),
        ({"seed": -1}, RunError, "--seed is -1"),
        ({"recipe": "sed"}, ValueError, "no recipe 'sed'"),
        ({"eval_every": 2}, RunError, "there is no --eval-where"),
    ],
)
def test_a_teacher_that_cannot_be_trained_is_refused_and_nothing_written(root, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train_teacher(teacher_options(root, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_classes_from_a_file_must_hold_every_label(root, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("low\nhigh\n")
    with pytest.raises(TeacherError, match=r"1 of 3 labels is no class of .*classes\.txt: 'middle'"):
        train_teacher(teacher_options(root, tmp_path / "run", classes=str(names)))
    names.write_text("low\nhigh\nmiddle\nother\n")
    train_teacher(teacher_options(root, tmp_path / "run", classes=str(names), steps=2))
    assert load_run(tmp_path / "run").classes == ("low", "high", "middle", "other")


def test_the_default_recipe_of_teachers_fits_any_length_of_clip():
    for samples in (100, 1600, 16_000, 160_000):
        place = Place(samples, RATE)
        default_recipe(place).check(place)
    assert default_recipe(Place(160_000, RATE)).ops[2].max_ticks == 192


def test_a_student_learns_what_the_store_says(root, tmp_path):
    trained = train_student(student_options(root, tmp_path / "run", epochs=20, lr=5e-3, tail="mean"))
    epochs = [record for record in log_of(tmp_path / "run") if record["event"] == "epoch"]
    assert [record["view"] for record in epochs] == [epoch % 2 for epoch in range(20)]
    assert all(record["clips"] == 34 for record in epochs)  # 2 of 36 files are held out
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    run = load_run(tmp_path / "run")
    store = open_store(root / "store")
    assert run.classes == store.manifest.classes
    assert run.config["training"]["store"]["manifest_digest"] == store.root_digest
    assert run.config["training"]["options"]["tail"] == "mean"
    assert trained.result.epochs == 20


def test_the_seed_decides_everything(root, tmp_path):
    digests = []
    for name, changes in (("a", {}), ("b", {"workers": 1}), ("c", {"seed": 1}), ("d", {"inconsistent": True})):
        torch.rand(3)  # a caller's own random numbers change nothing
        train_student(student_options(root, tmp_path / name, **changes))
        digests.append(load_run(tmp_path / name).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    first, fresh = (log_of(tmp_path / name)[0]["loss"] for name in "ad")
    assert first != fresh


def test_a_model_at_another_rate_hears_the_resampled_view(root, tmp_path):
    trained = train_student(
        student_options(root, tmp_path / "run", model_args=SMALL | {"sample_rate": 22_050}, steps=2, epochs=None)
    )
    assert load_run(trained.out).sample_rate == 22_050


def test_clips_are_chosen_with_sql(root, tmp_path):
    train_student(student_options(root, tmp_path / "run", where="fold = 1 -- the first", epochs=2))
    assert [r["clips"] for r in log_of(tmp_path / "run") if r["event"] == "epoch"] == [12, 12]
    with pytest.raises(MismatchError, match="no clip with targets in view 0 for which --where 'fold = 7' holds"):
        train_student(student_options(root, tmp_path / "other", where="fold = 7"))
    with pytest.raises(QueryError, match="--where 'fold ='"):
        train_student(student_options(root, tmp_path / "other", where="fold ="))


def test_a_table_says_which_clips_are_learnt_from(root, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "logitstore")
    asked = CliRunner().invoke(inspect_command, [str(root / "store"), "FROM clips LIMIT 9", "--out", "some.parquet"])
    assert asked.exit_code == 0
    some = student_options(root, "run", clips="some.parquet", where="clip > 2", hold_out=0.34, epochs=2)
    train_student(some)
    assert {record["clips"] for record in log_of("run") if record["event"] == "epoch"} == {4}
    assert "6 of the 36 clips with targets of" in caplog.text
    assert "learnt from; --where 'clip > 2' leaves out 3" in caplog.text
    training = json.loads(Path("run/run.json").read_text())["training"]
    assert training["subset"] == {"clips": 9, "digest": digest(np.arange(9, dtype="<i8").tobytes())}
    Path("some.parquet").rename("moved.parquet")
    assert train_student(replace(some, clips="moved.parquet")).before
    Path("others.csv").write_text("clip\n" + "\n".join(map(str, range(8))))
    with pytest.raises(
        RunError, match=r"holds another training \(subset.clips: there 9, asked 8; subset.digest: there '"
    ):
        train_student(replace(some, clips="others.csv"))
    with pytest.raises(RunError, match=r"subset.clips: there 9, asked None"):
        train_student(replace(some, clips=None))
    Path("none.csv").write_text("clip\n1\n")
    with pytest.raises(
        MismatchError, match=r"view 0 for which --where 'clip > 2' holds among the 1 of --clips none.csv"
    ):
        train_student(replace(some, clips="none.csv"))


def test_the_default_number_of_epochs_uses_every_view_equally(root, tmp_path, monkeypatch):
    monkeypatch.setattr("students.train.DEFAULT_STEPS", 7)
    trained = train_student(student_options(root, tmp_path / "run", epochs=None))
    assert (trained.result.steps, trained.result.epochs) == (12, 4)


def test_mixed_precision_trains_on_the_cpu(root, tmp_path):
    trained = train_student(student_options(root, tmp_path / "run", precision="bf16"))
    assert np.isfinite(trained.result.loss)
    assert all(value.dtype != torch.bfloat16 for value in load_run(trained.out).model.state_dict().values())


def test_an_out_of_another_training_is_refused_and_the_same_one_is_not_done_twice(root, tmp_path):
    out = tmp_path / "run"
    first = train_student(student_options(root, out))
    content = {path.name: path.read_bytes() for path in out.iterdir()}
    again = train_student(student_options(root, out, workers=1, audio_root=str(root / "audio" / ".." / "audio")))
    assert again.before
    assert again.result == first.result
    assert {path.name: path.read_bytes() for path in out.iterdir()} == content
    with pytest.raises(
        RunError, match=r"holds another training \(options.seed: there 0, asked 3\); give another --out"
    ):
        train_student(student_options(root, out, seed=3))
    (out / "run.json").unlink()  # as an interrupt leaves it: the same command starts over, and ends the same
    train_student(student_options(root, out))
    assert (out / "model.safetensors").read_bytes() == content["model.safetensors"]
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("three years of work")
    with pytest.raises(RunError, match=r"is not empty \(it holds 'thesis.txt'\) and not a training's"):
        train_student(student_options(root, stranger))
    with pytest.raises(RunError, match="cannot be written"):
        train_student(student_options(root, stranger / "thesis.txt"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student": "vgg"}, RunError, "no model 'vgg'; allowed are"),
        ({"model_args": {"depth": 2}}, RunError, "model 'cnn4' has no argument 'depth'"),
        ({"model_args": {"width": "wide"}}, RunError, "model argument width is 'wide'"),
        ({"loss": "kl"}, RunError, "'kl' fits softmax targets"),
        ({"temperature": 2.0}, RunError, "--temperature 2 has no meaning"),
        ({"tail": "ones"}, RunError, "--tail is 'ones'"),
        ({"store": "audio"}, ValueError, "no store at audio"),
        ({"label_column": "label"}, RunError, "--label-column is for --eval MANIFEST and --label-weight"),
        ({"device": "tpu"}, ValueError, "--device tpu cannot be used here"),
    ],
)
def test_a_student_that_cannot_be_trained_is_refused_and_nothing_written(root, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train_student(student_options(root, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_labels_that_are_no_class_of_the_store_are_refused(root, tmp_path):
    measured = {"eval_manifest": str(root / "labels.csv"), "label_column": "label", "eval_where": "fold = 4"}
    with pytest.raises(TeacherError, match=r"3 of 3 labels are no class of the store .*: 'high', 'low', 'middle'"):
        train_student(student_options(root, tmp_path / "run", **measured))
    with pytest.raises(RunError, match="--eval is given without --label-column"):
        train_student(student_options(root, tmp_path / "run", **(measured | {"label_column": None})))


def test_audio_that_is_not_the_stores_is_refused_by_name(root, tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(MismatchError, match=r"36 of 36 files .* are not under the audio root: 00\.wav, 01\.wav"):
        train_student(student_options(root, tmp_path / "run", audio_root=str(tmp_path / "audio")))
    for path in (root / "audio").iterdir():
        soundfile.write(tmp_path / "audio" / path.name, np.zeros(RATE * 6 // 10), RATE)
    with pytest.raises(MismatchError, match=r"the audio is not what the teachers of .* heard, in 4 of 4 views"):
        train_student(student_options(root, tmp_path / "run", audio_root=str(tmp_path / "audio")))


def test_a_store_without_a_finished_block_is_refused(root, tmp_path):
    empty = tmp_path / "store"
    for name in ("zarr.json", "clips/00000.parquet"):
        (empty / name).parent.mkdir(parents=True, exist_ok=True)
        (empty / name).write_bytes((root / "store" / name).read_bytes())
    with pytest.raises(MismatchError, match="has no finished block, so no view to learn from; run its build first"):
        train_student(student_options(root, tmp_path / "run", store=str(empty)))


def test_a_loss_that_is_not_finite_stops_the_training(root, tmp_path):
    with pytest.raises(ModelOutputError, match=r"the loss is nan at step \d+; lower --lr"):
        train_teacher(teacher_options(root, tmp_path / "run", lr=1e30, steps=30))
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_learning_rate_warms_up_and_falls_to_its_floor():
    rates = [learning_rate(step, 200, 1e-3) for step in range(200)]
    assert rates[0] == pytest.approx(1e-3 / 20)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[19] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5)
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert learning_rate(0, 1, 1e-3) == pytest.approx(1e-3)


def test_weights_at_the_start_depend_on_the_seed_alone():
    first, again, other = (
        initialised(lambda: build_model("cnn4", 3, **SMALL), seed).output.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_epoch_without_clips_is_an_error(tmp_path):
    def no_batch(positions):
        raise AssertionError("no plan, no batch")

    model = build_model("cnn4", 3, **SMALL)
    with pytest.raises(RunError, match="epoch 0 has no clip that can be decoded"):
        fit(
            model,
            FitOptions(steps=2, lr=1e-3, seed=0),
            lambda epoch: Epoch([], no_batch),
            Objective({"target": 1.0}, Setting("bce")),
            tmp_path,
        )


def test_the_commands_train_a_teacher_and_a_student(root, tmp_path):
    small = [part for name, value in SMALL.items() for part in ("--model-arg", f"{name}={value}")]
    shared = ["--audio-root", str(root / "audio"), *small, "--steps", "3", "--device", "cpu"]
    runner = CliRunner()
    taught = runner.invoke(
        train_teacher_command,
        [str(root / "labels.csv"), "--label-column", "label", "--where", "fold < 4", "--eval-where", "fold = 4",
         "--model", "cnn4", "--out", str(tmp_path / "teacher"), *shared],
    )  # fmt: skip
    assert taught.exit_code == 0, taught.output
    assert "mAP        0." in taught.stdout
    assert "on 12 rows and 3 classes; 0 classes left out for having no positives" in taught.stdout
    learned = runner.invoke(
        train_student_command,
        [str(root / "store"), "--student", "cnn4", "--out", str(tmp_path / "student"), *shared, "--steps", "5"],
    )
    assert learned.exit_code == 0, learned.output
    assert "trained    5 steps, 3 epochs" in learned.stdout
    assert "some views were used once more often" in learned.stdout
    malformed = runner.invoke(
        train_student_command,
        [str(root / "store"), "--student", "cnn4", "--out", "x", "--audio-root", "y", "--model-arg", "width"],
    )
    assert malformed.exit_code == 2
    assert "'width' is not of the form NAME=VALUE" in malformed.output
