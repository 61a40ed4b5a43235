"""Killed trainings: whatever moment, the same command ends with the same log and the same weights, bit for bit."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from logitstore.errors import RunError
from logitstore.models.registry import default_lr, names
from logitstore.training import precision
from logitstore.training.checkpoints import Checkpoints, DamagedCheckpoint, decode, encode, mean_weights
from logitstore.training.loop import Epoch, _items
from logitstore.training.processes import Group
from logitstore.training.runlog import RunLog
from logitstore.training.runs import load_run
from logitstore.training.schedule import DEFAULTS, EARLIER_RATES, Defaults
from students.options import StudentOptions
from students.train import train_student
from teachers.train import TeacherOptions, train_teacher
from tests.heard import SMALL, make_heard, python, student_values

#: Everything at once that a checkpoint must hold: dropout, EMA, the best weights, weights of sampling, batch mixup.
RICH = {
    "ema": 0.9, "average_best": 2, "patience": 50, "hold_out": 0.2, "mixup": 0.5, "accumulate": 2, "clip_norm": 1.0,
    "balance": True, "epoch_steps": 4, "epochs": 12, "eval_every": 2, "checkpoint_every": 3, "label_weight": 0.5,
    "label_column": "label",
}  # fmt: skip
SIMILAR = {"similarity": "both", "epochs": 14, "hold_out": 0.2, "checkpoint_every": 2,
           "precision": "fp16" if precision._cpu_can(torch.float16) else "bf16"}  # fmt: skip

# Forks before any thread is there, so that a killed training costs no start of an interpreter.
FORKS = """
import json, os, signal, sys, time
import torch, torch._dynamo  # which optimisers import when first used, slowly
import logitstore.training.loop
from students.options import StudentOptions
from students.train import train_student
torch.set_num_threads(1)

def child(values, before=lambda: None):
    number = os.fork()
    if number:
        return number
    try:
        before()
        train_student(StudentOptions(**values))
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)

def ended(number):
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
"""

# Kills a training some time after its first step; at last lets it go on to its end.
KILLS = (
    FORKS
    + """
values, delays = json.loads(sys.argv[1])
log, folder = (os.path.join(values["out"], name) for name in ("log.jsonl", "checkpoints"))
written = lambda: os.stat(log).st_mtime_ns if os.path.exists(log) else 0
killed = []
for delay in delays:
    before, number = written(), child(values)
    while written() == before:
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(number, signal.SIGKILL)
    killed.append([ended(number), os.path.isdir(folder)])
killed.append([ended(child(values)), os.path.isdir(folder)])
print(json.dumps(killed))
"""
)

# Trainings that die by their own hand while they write, at the n-th time that they would sync a file.
DIE = (
    FORKS
    + """
def dying(after):
    fsync, calls = os.fsync, []
    def instead(descriptor):
        calls.append(descriptor)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)
    os.fsync = instead

print(json.dumps([ended(child(values, lambda: dying(after))) for values, after in json.loads(sys.argv[1])]))
"""
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"))


class Killed(Exception):  # noqa: N818 - no error
    """In the place of a kill, where the moment matters and the process need not end."""


def learn(root, out, **changes):
    return train_student(StudentOptions(**student_values(root, out, **changes)))


def interrupted(root, out, step, **changes):
    """A training that ends as if killed just after some step."""
    from logitstore.training.loop import FitProgress

    def stop(number, clips, loss):
        if number == step:
            raise Killed

    with pytest.raises(Killed):
        train_student(StudentOptions(**student_values(root, out, **changes)), FitProgress(step=stop))


def assert_same_run(left, right):
    assert (left / "log.jsonl").read_bytes() == (right / "log.jsonl").read_bytes()
    first, second = load_run(left), load_run(right)
    assert first.digest == second.digest
    results = [{**run.config["result"], "seconds": 0, "clips_per_second": 0} for run in (first, second)]
    assert results[0] == results[1]
    assert not (right / "checkpoints").exists()


@pytest.mark.parametrize("changes", [RICH, SIMILAR], ids=["rich", "similar"])
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(root, tmp_path, changes):
    whole = learn(root, tmp_path / "whole", **changes)
    moments = random.Random(len(changes))
    delays = [0.3 * whole.result.seconds * moments.random() for _ in range(4)]
    done = python("-c", KILLS, json.dumps([student_values(root, tmp_path / "killed", **changes), delays]))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert outcomes[-1] == [0, False], done.stderr
    assert [-9, True] in outcomes, outcomes
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_process_that_dies_while_it_writes_leaves_what_was_there(root, tmp_path):
    changes = {"epochs": 3, "checkpoint_every": 1}
    moments = (1, 4, 5, 9, 12)
    trainings = [[student_values(root, tmp_path / f"run-{after}", **changes), after] for after in moments]
    done = python("-c", DIE, json.dumps(trainings))
    assert json.loads(done.stdout) == [-9] * len(moments), done.stderr
    learn(root, tmp_path / "whole", **changes)
    for after in moments:
        learn(root, tmp_path / f"run-{after}", **changes)
        assert_same_run(tmp_path / "whole", tmp_path / f"run-{after}")


def test_every_step_of_a_run_is_a_place_to_go_on_from(root, tmp_path):
    changes = {"epochs": 2, "checkpoint_every": 1, "ema": 0.5, "average_best": 1, "hold_out": 0.2, "eval_every": 1}
    steps = learn(root, tmp_path / "whole", **changes).result.steps
    for step in range(1, steps + 1):
        interrupted(root, tmp_path / f"at-{step}", step, **changes)
        learn(root, tmp_path / f"at-{step}", **changes)
        assert_same_run(tmp_path / "whole", tmp_path / f"at-{step}")


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(root, tmp_path):
    learn(root, tmp_path / "whole", checkpoint_every=2)
    interrupted(root, tmp_path / "run", 9, checkpoint_every=2)
    there = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in there] == ["step-000000006.ckpt", "step-000000008.ckpt"]
    there[1].write_bytes(there[1].read_bytes()[:-100])
    trained = learn(root, tmp_path / "run", checkpoint_every=2)
    assert trained.notes == (
        "checkpoint step-000000008.ckpt is damaged (its content is not what its digest says) and was passed over",
    )
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    interrupted(root, tmp_path / "lost", 9, checkpoint_every=2)
    for path in (tmp_path / "lost" / "checkpoints").iterdir():
        path.write_bytes(b"")
    trained = learn(root, tmp_path / "lost", checkpoint_every=2)
    assert trained.notes[-1] == "no checkpoint is whole: the training started over"
    assert_same_run(tmp_path / "whole", tmp_path / "lost")


def test_changed_options_and_checkpoints_of_other_trainings_are_refused(root, tmp_path):
    interrupted(root, tmp_path / "run", 5, checkpoint_every=2)
    with pytest.raises(
        RunError, match=r"holds another training \(options.lr: there 0.005, asked 0.001; options.tail: "
    ):
        learn(root, tmp_path / "run", lr=1e-3, tail="mean")
    wider = SMALL | {"width": 3}
    interrupted(root, tmp_path / "wider", 5, checkpoint_every=2, model_args=wider)
    for path in (tmp_path / "wider" / "checkpoints").iterdir():
        shutil.copy(path, tmp_path / "run" / "checkpoints")
    with pytest.raises(
        RunError,
        match=r"holds a checkpoint of another training \(options.model_args.width: there 3, asked 2\); remove it",
    ):
        learn(root, tmp_path / "run")


def test_options_that_change_nothing_may_change_on_the_way(root, tmp_path):
    learn(root, tmp_path / "whole")
    interrupted(root, tmp_path / "run", 5, checkpoint_every=2)
    learn(root, tmp_path / "run", workers=2, checkpoint_every=5, cache_mib=0)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_moments_of_8_bits_go_on_as_they_were(root, tmp_path):
    pytest.importorskip("bitsandbytes")
    changes = {"optimizer": "adam8bit", "model_args": SMALL | {"width": 8}, "checkpoint_every": 2, "epochs": 2}
    learn(root, tmp_path / "whole", **changes)
    interrupted(root, tmp_path / "run", 5, **changes)
    learn(root, tmp_path / "run", **changes)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


#: What no release recorded before there were these options and the number of the defaults.
UNRECORDED = ("cosine", "optimizer", "weight_decay")


def as_before(about):
    """What an earlier release recorded of a training."""
    kept = {name: value for name, value in about["options"].items() if name not in UNRECORDED}
    return {name: value for name, value in about.items() if name != "defaults"} | {"options": kept}


def test_a_run_goes_on_with_the_defaults_that_it_was_begun_with(root, tmp_path, monkeypatch):
    small = {"student": "ced-tiny", "model_args": {"dim": 16, "depth": 1, "heads": 2}, "lr": 0.1}
    # the first defaults as if they were today's, which is what an earlier release had
    with monkeypatch.context() as before:
        before.setattr("logitstore.training.train.DEFAULTS", DEFAULTS[:1])
        learn(root, tmp_path / "whole", **small)
        interrupted(root, tmp_path / "run", 5, checkpoint_every=2, **small)
    for run in ("whole", "run"):
        for path in (tmp_path / run).glob("*.json"):
            there = json.loads(path.read_text())
            changed = (
                there | {"training": as_before(there["training"])} if path.name == "run.json" else as_before(there)
            )
            path.write_text(json.dumps(changed))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        found = decode(path.read_bytes())
        path.write_bytes(encode(found.values | {"about": as_before(found.values["about"])}, found.tensors))
    monkeypatch.setattr("logitstore.training.train.DEFAULTS", (*DEFAULTS, Defaults(floor=0.5, weight_decay=0.2)))
    assert learn(root, tmp_path / "whole", **small).before
    learn(root, tmp_path / "run", **small)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    begun = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (begun["defaults"], begun["options"]["floor"], begun["options"]["weight_decay"]) == (1, 0.01, 0.01)
    with pytest.raises(RunError, match=r"\(options.floor: there 0.01, asked 0.5\)"):
        learn(root, tmp_path / "run", floor=0.5, **small)
    learn(root, tmp_path / "new", **small)
    new = json.loads((tmp_path / "new" / "training.json").read_text())
    assert (new["defaults"], new["options"]["floor"]) == (len(DEFAULTS) + 1, 0.5)
    # and position embeddings, which decayed then, do not any more
    monkeypatch.setattr("logitstore.training.train.DEFAULTS", DEFAULTS[:1] * 2 + (replace(DEFAULTS[0], spared=True),))
    learn(root, tmp_path / "spared", **small)
    assert load_run(tmp_path / "spared").digest != load_run(tmp_path / "whole").digest


def test_a_run_goes_on_with_the_rate_that_was_its_nets_own_when_it_was_begun(root, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr("logitstore.training.train.default_lr", lambda name: 1e-3)
        interrupted(root, tmp_path / "run", 3, checkpoint_every=2)
    learn(root, tmp_path / "whole", lr=1e-3)
    with pytest.raises(RunError, match=r"options.lr: there 0.001, asked 0.005"):
        learn(root, tmp_path / "run")
    monkeypatch.setattr("logitstore.training.train.EARLIER_RATES", {"cnn4": (1e-3,)})
    learn(root, tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert EARLIER_RATES.keys() <= set(names())
    assert all(default_lr(name) not in rates for name, rates in EARLIER_RATES.items())


def test_a_log_that_is_not_the_checkpoints_is_refused(root, tmp_path):
    interrupted(root, tmp_path / "run", 5, checkpoint_every=2)
    log = tmp_path / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"clips": 12', b'"clips": 13'))
    with pytest.raises(RunError, match="is not the log that the checkpoint was taken with; restore it"):
        learn(root, tmp_path / "run", checkpoint_every=2)


def test_a_teacher_goes_on_too(root, tmp_path):
    from logitstore.training.loop import FitProgress

    def teach(out, progress=None):
        return train_teacher(
            TeacherOptions(
                manifest=str(root / "labels.csv"), audio_root=str(root / "audio"), label_column="label", model="cnn4",
                model_args=SMALL, out=str(out), steps=12, batch_size=12, device="cpu", checkpoint_every=4,
            ),
            progress,
        )  # fmt: skip

    def stop(number, clips, loss):
        if number == 10:
            raise Killed

    teach(tmp_path / "whole")
    with pytest.raises(Killed):
        teach(tmp_path / "run", FitProgress(step=stop))
    begun = []
    teach(tmp_path / "run", FitProgress(start=lambda steps, done: begun.append((steps, done))))
    assert begun[0][1] >= 8
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_checkpoint_holds_what_was_put_in_and_nothing_executable(tmp_path):
    values, tensors = {"done": 3, "loss": 0.1, "list": [1, 2]}, {"a": torch.arange(3.0), "rng": [torch.get_rng_state()]}
    content = encode(values, tensors)
    found = decode(content)
    assert found.values == values
    assert torch.equal(found.tensors["a"], tensors["a"])
    assert torch.equal(found.tensors["rng"][0], tensors["rng"][0])
    for place in (5, 60, 150, len(content) - 40):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(DamagedCheckpoint):
            decode(bytes(damaged))
    with pytest.raises(DamagedCheckpoint, match="no header"):
        decode(b"")


def test_two_states_are_kept_and_the_weights_that_they_name(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weights = {"w": torch.ones(2)}
    for step, named in ((1, [1]), (2, [1, 2]), (3, [2]), (4, [2])):
        checkpoints.save_weights(step, weights)
        checkpoints.save(step, {"done": step}, {}, named)
    (tmp_path / "checkpoints" / f".step-000000005.ckpt.partial-{os.getpid()}").write_bytes(b"half")
    checkpoints.save(5, {"done": 5}, {}, [2])
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000004.ckpt", "step-000000005.ckpt", "weights-000000002.ckpt"]
    assert checkpoints.newest()[0].values["done"] == 5
    (tmp_path / "checkpoints" / "weights-000000002.ckpt").unlink()
    found, notes = checkpoints.newest()
    assert found is None
    assert len(notes) == 3
    with pytest.raises(RunError, match="which --average-best needs, cannot be read"):
        checkpoints.weights(2)


def test_the_mean_of_weights_leaves_counters_alone():
    states = [
        {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(7)},
        {"w": torch.tensor([3.0, 5.0]), "n": torch.tensor(9)},
    ]
    mean = mean_weights(states)
    assert torch.equal(mean["w"], torch.tensor([2.0, 4.0]))
    assert mean["n"] == 7
    assert mean["w"].dtype == torch.float32


def test_a_log_is_cut_back_to_where_a_checkpoint_left_it(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.write({"step": 0})
    place = log.sync()
    log.write({"step": 1})
    log.close()
    again = RunLog(tmp_path / "log.jsonl", place)
    again.write({"step": 2})
    again.close()
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 0}\n{"step": 2}\n'


def test_a_full_disk_is_one_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path / "log.jsonl")
    log.write({"step": 0})
    with pytest.raises(RunError, match=r"log\.jsonl' cannot be written: No space left on device; make room"):
        log.sync()
    log.close()


def test_where_a_training_was_is_restored_and_not_replayed():
    asked, made = [], []

    def epochs(number):
        asked.append(number)
        return Epoch(
            [np.arange(4) + 4 * step for step in range(10)], lambda positions: made.append(positions) or [0] * 4
        )

    there = SimpleNamespace(over=False, done=700, epoch=70, position=7, epoch_clips=28)
    items = list(_items(epochs, 705, torch.device("cpu"), Group(), there))
    assert asked == [70, 71]
    assert [positions[0] for positions in made] == [28, 32, 36, 0, 4]
    assert [(item.epoch, item.position) for item in items if item.batch] == [
        (70, 7),
        (70, 8),
        (70, 9),
        (71, 0),
        (71, 1),
    ]
