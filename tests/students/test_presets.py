"""Presets: the published values, what wins over them, and what is said and refused."""

import json

import pytest
import yaml
from click.testing import CliRunner

from logitstore.cli.train_student import train_student_command
from logitstore.errors import RunError
from logitstore.options import read_config
from logitstore.training.options import warm_up_of
from logitstore.training.schedule import learning_rate
from students import presets
from students.options import StudentOptions
from students.train import train_student
from tests.heard import make_heard, student_values

PLACES = {"store": "s", "audio_root": "a", "out": "r"}
WHOLE = 300 * 6250
BALANCED = 300 * 643  # 20,550 clips in batches of 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"), clips=18)


def invoke(*arguments):
    return CliRunner().invoke(train_student_command, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("name", "steps", "peak", "end"),
    # the ends reckoned by hand: .1 + .9 / 2 (1 - cos(pi W / N)) of the peak, W / N = 1 / 30 and 5,000 / 192,900
    [
        ("ced-tiny", WHOLE, 1e-3, 0.102465),
        ("ced-base", WHOLE, 3e-4, 0.102465),
        ("ced-mini-balanced", BALANCED, 1e-3, 0.101491),
        ("ced-small-balanced", BALANCED, 3e-4, 0.101491),
    ],
)
def test_the_schedule_is_the_published_one(name, steps, peak, end):
    options = StudentOptions(**PLACES, preset=name)
    rising = warm_up_of(options, steps, 0.5)
    assert rising == (5000 if name.endswith("balanced") else 62_500)

    def rate(step):
        return learning_rate(
            step, steps, options.lr, warm_up=options.warm_up, floor=options.floor, cosine=options.cosine
        )

    assert rate(0) == pytest.approx(peak / rising)
    assert rate(rising // 2 - 1) == pytest.approx(peak / 2)
    assert rate(rising - 1) == rate(rising) == pytest.approx(peak)
    assert rate(rising + steps // 2) == pytest.approx(0.55 * peak)  # half of the cosine
    assert rate(steps - 1) == pytest.approx(end * peak, rel=1e-5)
    assert 0.101 * peak < rate(steps - 1) < 0.103 * peak  # as measured of CED's own code


def test_the_values_are_the_published_ones():
    always = {
        "optimizer": "adam8bit", "weight_decay": 0, "epochs": 300, "precision": "fp16", "average_best": 4,
        "patience": 10, "select_by": "mAP", "hold_out": 0, "tail": "zero", "ema": None, "clip_norm": None,
        "accumulate": 1, "balance": False, "floor": 0.1,
    }  # fmt: skip
    whole = {"batch_size": 128, "epoch_steps": 6250, "eval_every": 3, "mixup": None, "warm_up": 62_500}
    balanced = {"batch_size": 32, "epoch_steps": None, "eval_every": 5, "mixup": 0.5, "warm_up": 5000}
    for size in ("tiny", "mini", "small", "base"):
        for name, own in ((f"ced-{size}", whole), (f"ced-{size}-balanced", balanced)):
            options = StudentOptions(**PLACES, preset=name)
            expected = always | own | {"student": f"ced-{size}"}
            assert {key: getattr(options, key) for key in expected} == expected
    assert len(presets.names()) == 8


def test_every_value_can_be_given_otherwise_also_as_the_default_and_as_none():
    changed = {
        "student": "cnn4", "optimizer": "adamw", "weight_decay": 0.01, "precision": "float32", "batch_size": 32,
        "select_by": "loss", "hold_out": 0.1, "average_best": 0, "patience": 0, "epoch_steps": 0, "cosine": "rest",
        "lr": 5e-3, "floor": 0.0, "warm_up": 0, "eval_every": 1, "epochs": 7, "tail": "mean",
    }  # fmt: skip
    options = StudentOptions(**PLACES, preset="ced-tiny", **changed)
    unset = {"average_best": None, "patience": None, "epoch_steps": None}
    assert {name: getattr(options, name) for name in changed} == changed | unset
    assert changed.keys() == dict(presets.find("ced-tiny").values).keys()
    assert StudentOptions(**PLACES, preset="ced-tiny-balanced", mixup=0).mixup is None
    shorter = StudentOptions(**PLACES, preset="ced-tiny", steps=100)
    assert (shorter.steps, shorter.epochs) == (100, None)


def test_a_config_that_is_printed_says_all_of_it_and_is_the_same_without_the_preset(tmp_path):
    given = ["s", "--audio-root", "a", "--out", "r"]
    done = invoke(*given, "--preset", "ced-tiny-balanced", "--mixup", "0", "--print-config")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# preset ced-tiny-balanced\n")
    values = yaml.safe_load(done.stdout)
    assert "preset" not in values
    assert "mixup" not in values
    assert (values["student"], values["warm-up"], values["lr"], values["cosine"]) == ("ced-tiny", 5000, 1e-3, "all")
    assert not (tmp_path / "r").exists()
    (tmp_path / "c.yaml").write_text(done.stdout)
    again = invoke("--config", tmp_path / "c.yaml", "--print-config")
    assert again.stdout == done.stdout.partition("\n")[2]
    # a file can name a preset too, and what it says beside wins
    (tmp_path / "c.yaml").write_text("preset: ced-base\nwarm-up: 7\nsteps: 9\n")
    named = yaml.safe_load(invoke(*given, "--config", tmp_path / "c.yaml", "--lr", "0.5", "--print-config").stdout)
    assert (named["student"], named["warm-up"], named["steps"], named["lr"]) == ("ced-base", 7, 9, 0.5)
    assert "epochs" not in named
    missing = invoke("s", "--audio-root", "a", "--preset", "ced-tiny", "--print-config")
    assert str(missing.exception) == "--out is given neither on the command line nor in a --config FILE"


def test_a_run_says_what_its_preset_misses_and_records_what_it_did(root, tmp_path, caplog):
    changes = {
        "preset": "ced-tiny-balanced", "student": "ced-tiny", "model_args": {"dim": 16, "depth": 1, "heads": 2},
        "optimizer": "adam", "precision": "float32", "eval_manifest": str(root / "labels.csv"), "label_column": "label",
        "steps": 4, "epochs": None, "warm_up": 2,
    }  # fmt: skip
    values = student_values(root, tmp_path / "run", **changes)
    trained = train_student(StudentOptions(**values))
    assert "random weights" in caplog.text
    assert "give --init ced:FILE --new-head" in caplog.text
    others = "--optimizer adam (there adam8bit), --precision float32 (there fp16), --steps 4 (there 300 epochs)"
    assert f"preset ced-tiny-balanced, but for {others}, --batch-size 12" in caplog.text
    about = json.loads((tmp_path / "run" / "training.json").read_text())
    assert about["preset"] == "ced-tiny-balanced"
    assert "preset" not in about["options"]
    assert (about["options"]["weight_decay"], about["options"]["mixup"], about["options"]["cosine"]) == (0, 0.5, "all")
    assert trained.result.averaged[0]["mAP"] >= trained.result.averaged[-1]["mAP"]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [record["lr"] for record in log if record["event"] == "step"]
    # half a warm-up of 2, and half of a cosine over 4 steps: .1 + .9 / 2 (1 + cos(pi / 4)) at its second
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3 * 0.868198])
    again = train_student(
        StudentOptions(
            **read_config(str(tmp_path / "run" / "config.yaml"), StudentOptions) | {"out": str(tmp_path / "b")}
        )
    )
    assert (tmp_path / "b" / "log.jsonl").read_bytes() == (tmp_path / "run" / "log.jsonl").read_bytes()
    assert again.result.loss == trained.result.loss


def test_a_warm_up_that_a_shorter_training_does_not_reach_is_refused(root, tmp_path):
    values = student_values(
        root, tmp_path / "run", preset="ced-tiny", eval_manifest=str(root / "labels.csv"), label_column="label"
    )
    with pytest.raises(RunError, match="--warm-up is 62500 steps and the training has 25000; give at most as many"):
        train_student(StudentOptions(**values | {"optimizer": "adam", "precision": "float32"}))
