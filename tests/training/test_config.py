"""Options of a training: from a file, on the command line, written into the run, and refused where they cannot be."""

import builtins
import json

import pytest
import yaml
from click.testing import CliRunner

from logitstore.cli.train_student import train_student_command
from logitstore.cli.train_teacher import train_teacher_command
from logitstore.errors import MismatchError, MissingExtraError, RunError, SourceError, UsageError
from logitstore.options import dump, read_config
from logitstore.training.runs import load_run
from logitstore.training.train import identity
from students.options import StudentOptions
from students.terms import find
from students.train import train_student
from teachers.options import TeacherOptions
from tests.heard import make_heard, student_values

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"), clips=18)


def invoke(command, *arguments):
    return CliRunner().invoke(command, [str(each) for each in arguments])


def write(path, **values):
    path.write_text(yaml.safe_dump(values))
    return path


def asked(root, out):
    """The least that a student needs, as a file has it."""
    return {
        "store": str(root / "store"), "audio-root": str(root / "audio"), "student": "cnn4", "out": str(out),
        "model-arg": {"width": 2, "mels": 16, "hop_ms": 40}, "device": "cpu", "steps": 3, "batch-size": 6, "workers": 1,
    }  # fmt: skip


def test_a_runs_own_config_repeats_it(root, tmp_path):
    first = train_student(
        StudentOptions(**student_values(root, tmp_path / "a", epochs=3, batch_size=6, tail="mean", patience=9, ema=0.5))
    )
    config = tmp_path / "a" / "config.yaml"
    resolved = yaml.safe_load(config.read_text())
    assert resolved["steps"] == first.result.steps
    assert "epochs" not in resolved
    assert (resolved["lr"], resolved["loss"], resolved["warm-up"]) == (5e-3, "bce", 1)
    assert (resolved["hold-out"], resolved["average-best"]) == (0.05, 1)
    again = invoke(train_student_command, "--config", config)
    assert "finished before; nothing was done" in again.stdout, again.output
    other = invoke(train_student_command, "--config", config, "--out", tmp_path / "b")
    assert other.exit_code == 0, other.output
    assert load_run(tmp_path / "a").digest == load_run(tmp_path / "b").digest
    assert (tmp_path / "a" / "log.jsonl").read_bytes() == (tmp_path / "b" / "log.jsonl").read_bytes()
    assert yaml.safe_load((tmp_path / "b" / "config.yaml").read_text()) == resolved | {"out": str(tmp_path / "b")}


#: What an earlier release wrote into a run folder.
EARLIER = """\
steps: 3
batch-size: 32
accumulate: 1
lr: 0.005
warm-up: 1
floor: 0.01
precision: float32
ema: 0.5
freeze-bn: false
tensorboard: false
seed: 0
device: auto
cache-mib: 1
store: s
audio-root:
- a
- b
student: cnn4
out: r
also:
- t
model-arg:
  width: 2
new-head: false
loss: bce
temperature: 1.0
tail: zero
inconsistent: false
similarity-weight: 1.0
label-weight: 0.0
label-column: label
balance: false
hold-out: 0.05
average-best: 1
select-by: loss
eval: l.csv
"""


def test_the_config_of_a_run_of_an_earlier_release_is_still_read(tmp_path):
    (tmp_path / "config.yaml").write_text(EARLIER)
    options = StudentOptions(**read_config(str(tmp_path / "config.yaml"), StudentOptions))
    there = yaml.safe_load(EARLIER)
    assert there.pop("similarity-weight") == 1
    assert there.items() <= yaml.safe_load(dump(options)).items()
    assert (options.cache_bytes, options.audio_root, options.eval_manifest) == (1 << 20, ("a", "b"), "l.csv")


@pytest.mark.parametrize(
    ("written", "weights"),
    [
        ("similarity: both\nsimilarity-weight: 3.5\n", {"target": 1, "iusp": 3.5, "sp": 3.5}),
        ("similarity: sp\nsimilarity_weight: 2\nterm: target=0.5\n", {"target": 0.5, "sp": 2}),
        ("similarity: sp\n", {"target": 1, "sp": find("sp").weight}),
        ("similarity: both\nsimilarity-weight: much\n", None),
        ("similarity-weight: 2\n", None),
    ],
)
def test_the_one_weight_that_similarities_had_is_read_as_a_weight_of_each_term(tmp_path, written, weights):
    config = tmp_path / "config.yaml"
    config.write_text("store: s\naudio-root: a\nstudent: cnn4\nout: r\n" + written)
    if weights is None:
        with pytest.raises(RunError, match="is no option any more; give each term its own: --term iusp=W --term sp=W"):
            read_config(str(config), StudentOptions)
    else:
        assert StudentOptions(**read_config(str(config), StudentOptions)).weights == weights


def test_a_run_of_an_earlier_release_goes_on_with_the_terms_that_its_one_weight_stands_for(root, tmp_path):
    values = student_values(root, tmp_path / "run", steps=2, epochs=None, terms=["iusp=3", "sp=3"])
    done = train_student(StudentOptions(**values))
    run = tmp_path / "run"
    for change, message in (({}, None), ({"similarity_weight": 4.0}, "terms: there .*iusp=4.*, asked .*iusp=3")):
        about = json.loads((run / "training.json").read_text())
        about["options"] |= {"similarity": "both", "similarity_weight": 3.0, "terms": []} | change
        (run / "training.json").write_text(json.dumps(about))
        if message is None:
            again = train_student(StudentOptions(**values))
            assert (again.before, again.result.loss) == (True, done.result.loss)
        else:
            with pytest.raises(RunError, match=message):
                train_student(StudentOptions(**values))


def test_terms_that_mean_the_same_are_one_training(root, tmp_path):
    values = student_values(root, tmp_path / "run", steps=2, epochs=None)
    train_student(StudentOptions(**values, terms=["iusp=1.0", "sp"]))
    options = StudentOptions(**values, similarity="sp", terms=["iusp"])
    assert (options.similarity, options.terms) == (None, ("sp", "iusp"))
    with pytest.raises(RunError, match="--term 'sp=1': the term 'sp' has a weight already"):
        train_student(StudentOptions(**values, similarity="sp", terms=["sp=1"]))
    about = json.loads((tmp_path / "run" / "training.json").read_text())
    assert about["options"]["terms"] == ["iusp=1", f"sp={find('sp').weight:g}"]
    for same in (["iusp=1", f"sp={find('sp').weight}"], ["iusp=1.00", "sp"]):
        assert train_student(StudentOptions(**values, terms=same)).before
    about["options"] |= {"similarity": "sp", "terms": ["iusp=1.0"]}  # as it was recorded
    (tmp_path / "run" / "training.json").write_text(json.dumps(about))
    assert train_student(StudentOptions(**values, similarity="sp", terms=["iusp=1"])).before
    about["options"] |= {"similarity_weight": 1.0, "terms": []}  # of one weight for all, which was 1 unless given
    (tmp_path / "run" / "training.json").write_text(json.dumps(about))
    assert train_student(StudentOptions(**values, terms=["sp=1"])).before
    with pytest.raises(RunError, match=r"\(options.terms: there \['sp=1'\], asked \['sp=30'\]\)"):
        train_student(StudentOptions(**values, similarity="sp"))


def test_a_flag_wins_over_the_option_that_says_the_same_in_another_way(root, tmp_path):
    config = write(tmp_path / "c.yaml", **(asked(root, tmp_path / "run") | {"weight-by": "entropy"}))
    done = invoke(train_student_command, "--config", config, "--epochs", 2, "--balance")
    assert done.exit_code == 0, done.output
    options = load_run(tmp_path / "run").config["training"]["options"]
    assert (options["steps"], options["weight_by"], options["balance"]) == (6, None, True)


def test_flags_win_over_the_file_even_where_they_are_defaults(root, tmp_path):
    config = write(tmp_path / "c.yaml", **asked(root, tmp_path / "run"), seed=3, tail="mean", lr="1e-3")
    done = invoke(train_student_command, "--config", config, "--seed", 0, "--model-arg", "width=3")
    assert done.exit_code == 0, done.output
    options = load_run(tmp_path / "run").config["training"]["options"]
    assert (options["seed"], options["tail"], options["lr"]) == (0, "mean", 1e-3)
    assert options["model_args"] == {"width": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch-sise": 4}, "has the unknown key 'batch-sise'; did you mean 'batch-size'"),
        ({"config": "x"}, "has the unknown key 'config'"),
        ({"batch-size": "four"}, "batch-size is 'four'; it must be a whole number"),
        ({"batch-size": True}, "batch-size is True; it must be a whole number"),
        ({"lr": "fast"}, "lr is 'fast'; it must be a number"),
        ({"inconsistent": 1}, "inconsistent is 1; it must be true or false"),
        ({"precision": "fp8"}, "precision is 'fp8'; it must be one of float32, bf16, fp16"),
        ({"where": 3}, "where is 3; it must be text"),
        ({"model-arg": "width=2"}, "model-arg is 'width=2'; it must be a mapping, as {width: 8}"),
        ({"also": [1]}, "also is [1]; it must be text or a list of texts"),
        ({"student": None}, "--student is given neither on the command line nor in a --config FILE"),
        ({"store": None}, "STORE... is given neither on the command line nor in a --config FILE"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_in_a_line(root, tmp_path, values, message):
    config = write(tmp_path / "c.yaml", **(asked(root, tmp_path / "run") | values))
    done = invoke(train_student_command, "--config", config)
    assert isinstance(done.exception, RunError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "holds a list; it must map options to values"), ("a: [", "is not YAML that can be used: line 2")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    (tmp_path / "c.yaml").write_text(content)
    done = invoke(train_student_command, "--config", tmp_path / "c.yaml")
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    missing = invoke(train_student_command, "--config", tmp_path / "none.yaml")
    assert "cannot be read: No such file or directory" in str(missing.exception)


def test_an_argument_that_is_not_yaml_is_refused():
    done = invoke(train_student_command, "--model-arg", "width=[")
    assert done.exit_code == 2
    assert "'width=[': the value is not YAML that can be used (line" in done.output


def test_a_teachers_config_repeats_it_too(root, tmp_path):
    small = ["--model-arg", "width=2", "--model-arg", "mels=16", "--model-arg", "hop_ms=40"]
    first = invoke(
        train_teacher_command, root / "labels.csv", "--audio-root", root / "audio", "--label-column", "label",
        "--model", "cnn4", *small, "--out", tmp_path / "a", "--steps", 3, "--batch-size", 6, "--device", "cpu",
        "--precision", "bf16", "--accumulate", 2,
    )  # fmt: skip
    assert first.exit_code == 0, first.output
    again = invoke(train_teacher_command, "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert load_run(tmp_path / "a").digest == load_run(tmp_path / "b").digest


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"precision": "half"}, RunError, "--precision is 'half'; it must be one of float32, bf16, fp16"),
        ({"accumulate": 20}, RunError, "--accumulate 20 asks for more parts than --batch-size 12 has clips"),
        ({"accumulate": 2, "similarity": "sp"}, RunError, "--accumulate 2 with the term sp: it compares all clips"),
        ({"lr": 1e38}, RunError, r"--lr is 1e\+38; it must be more than 0 and at most 1e\+30"),
        ({"clip_norm": 0.0}, RunError, "--clip-norm is 0; it must be more than 0"),
        ({"ema": 1.0}, RunError, "--ema is 1; it must be more than 0 and less than 1"),
        ({"floor": 1.5}, RunError, "--floor is 1.5; allowed are 0 to 1"),
        ({"warm_up": -1}, RunError, "--warm-up is -1; it must be at least 0"),
        ({"epoch_steps": -1}, RunError, "--epoch-steps is -1; it must be at least 0"),
        ({"weight_decay": -0.1}, RunError, "--weight-decay is -0.1; allowed are 0 to 1"),
        ({"optimizer": "sgd"}, RunError, "--optimizer is 'sgd'; it must be one of adamw, adam, adam8bit"),
        ({"preset": "ced-tinny"}, RunError, "no preset 'ced-tinny'; did you mean 'ced-tiny'?"),
        ({"preset": "ced-tiny"}, RunError, "--preset ced-tiny keeps weights by the mAP of labelled audio; give --eval"),
        ({"preset": "ced-tiny", "select_by": "loss"}, RunError, "it is preset ced-tiny's, so give --hold-out SHARE"),
        ({"checkpoint_every": 0}, RunError, "--checkpoint-every is 0"),
        ({"hold_out": 1.0}, RunError, "--hold-out is 1; it must be at least 0 and less than 1"),
        ({"hold_out": 0.999999}, MismatchError, "leaves nothing to learn from: it holds out 18 of 18 files"),
        ({"patience": -1}, RunError, "--patience is -1; it must be at least 0"),
        ({"average_best": -1}, RunError, "--average-best is -1; it must be at least 0"),
        ({"select_by": "mAP"}, RunError, "--select-by mAP says what --patience and --average-best go by"),
        ({"select_by": "mAP", "patience": 2}, RunError, "--select-by mAP needs labelled audio; give --eval MANIFEST"),
        ({"eval_every": 2, "hold_out": 0}, RunError, "there is no --eval MANIFEST and nothing is held out"),
        ({"eval_every": 2}, RunError, "there is no --eval MANIFEST and nothing is held out"),  # of 18 files
        ({"patience": 2, "hold_out": 0}, RunError, "go by the loss of held-out files, and --hold-out 0 leaves none"),
        ({"new_head": True}, RunError, "there is no --init SPEC"),
        ({"init": "ced:none.pt"}, RunError, "--init"),
        ({"balance": True, "weight_by": "1"}, RunError, "--balance and --weight-by are both given"),
        ({"weight_by": "-1"}, RunError, "--weight-by '-1' is -1 for clip 0"),
        ({"label_weight": 1.0}, RunError, "--label-weight is given without --label-column"),
        ({"label_weight": 1.0, "label_column": "labels"}, SourceError, "have no column 'labels' to take labels from"),
        ({"mixup": -1.0}, RunError, "--mixup is -1"),
        ({"mixup": 0.5, "similarity": "iusp"}, RunError, "--mixup and --term iusp are both given"),
        ({"cache_mib": -1}, RunError, "--cache-mib is -1; it must be at least 0"),
        ({"device": "meta"}, UsageError, "--device meta cannot be used here; give auto, cpu or cuda"),
    ],
)
def test_options_that_cannot_be_right_are_refused_before_any_work(root, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train_student(StudentOptions(**student_values(root, tmp_path / "run", **changes)))
    assert not (tmp_path / "run").exists()


def test_a_store_without_relations_is_refused_for_similarity(tmp_path):
    from tests.small_store import make_store

    make_store(tmp_path / "store")
    values = student_values(tmp_path, tmp_path / "run", similarity="iusp", audio_root="nowhere")
    with pytest.raises(MismatchError, match=r"relations.*logitstore build … .*--relations"):
        train_student(StudentOptions(**values))
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_written_when_asked_for_and_missed_in_a_line(root, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values = student_values(root, tmp_path / "run", similarity="both", hold_out=0.3, tensorboard=True, epochs=2)
    train_student(StudentOptions(**values))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"step/loss", "step/target", "step/iusp", "step/sp", "step/lr", "epoch/loss", "epoch/held_out_loss"} <= names
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [record for record in log if record["event"] == "step"]
    assert [each.value for each in events.Scalars("step/iusp")] == pytest.approx([each["iusp"] for each in steps])

    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"--tensorboard needs the package 'tensorboard'; install it with: pip"):
        train_student(StudentOptions(**values | {"out": str(tmp_path / "other")}))
    assert not (tmp_path / "other").exists()


def test_a_training_that_was_begun_before_there_was_an_option_goes_on(tmp_path):
    """What makes a training what it is does not hold --label-separator unless it is given."""
    values = {"manifest": "m.csv", "label_column": "label", "model": "cnn4", "out": str(tmp_path)}
    for options, there in ((TeacherOptions(**values), False), (TeacherOptions(**values, label_separator=","), True)):
        about = identity("train-teacher", options, ("manifest", "audio_root", "out"))
        assert ("label_separator" in about["options"]) is there
