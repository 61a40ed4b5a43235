"""Several processes that train one model: the same steps as one process, the same samples, one writer."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from logitstore.errors import RunError
from logitstore.launched import processes
from logitstore.training import processes as training_processes
from logitstore.training.processes import Group, joined, own_device
from logitstore.training.runs import load_run
from students.options import StudentOptions
from students.train import train_student
from teachers.train import TeacherOptions, train_teacher
from tests.heard import SMALL, make_heard, python, student_values
from tests.nets import CASES, args_of, called

ALIKE = SMALL | {"dropout": 0.0}  # each process has its own dropout
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "localhost:0")  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"), clips=27, views=1)


def flags(values):
    """A student's options as the command takes them."""
    arguments = [values["store"]]
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if name == "model_args":
            arguments += [part for key, each in value.items() for part in ("--model-arg", f"{key}={each}")]
        elif name == "terms":
            arguments += [part for each in value for part in ("--term", each)]
        elif value is True:
            arguments.append(option)
        elif name != "store" and value is not None:
            arguments += [option, str(value)]
    return arguments


# Several trainings in one pair of processes, each as the command runs them, so that torch is loaded once.
MANY = """
import json, sys
import torch
from logitstore.cli.train_student import train_student_command
from logitstore.training.loop import FitProgress
from students.options import StudentOptions
from students.train import train_student
torch.distributed.init_process_group("gloo")

def stop(step, clips, loss):
    if step == 5:
        raise KeyboardInterrupt

for number, arguments in enumerate(json.load(open(sys.argv[1]))):
    try:
        if isinstance(arguments, dict):
            train_student(StudentOptions(**arguments), FitProgress(step=stop))
        else:
            train_student_command.main(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        continue
    except ValueError as error:
        print("refused", number, error, flush=True)
torch.distributed.destroy_process_group()
"""

# What runs beside the main thread once a training's processes have parted.
THREADS = """
import glob, os, time
import torch
from torch.nn.parallel import DistributedDataParallel
from logitstore.training.processes import joined

with joined("cpu") as group:
    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    model(torch.ones(3, 2)).sum().backward()
    del model

def running():
    try:
        return sum("gloo" in open(path).read() for path in glob.glob("/proc/self/task/*/comm"))
    except OSError:  # one ended meanwhile
        return running()

until = time.monotonic() + 5
while running() and time.monotonic() < until:  # a thread that was joined is listed a moment longer
    time.sleep(0.05)
os.write(1, f"{group.rank} {running()}\\n".encode())  # in one piece: both write to one pipe
"""


def log_of(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def assert_close_runs(single, several):
    left, right = load_run(single).model.state_dict(), load_run(several).model.state_dict()
    for name, tensor in left.items():
        torch.testing.assert_close(
            right[name], tensor, rtol=2e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    mine, theirs = log_of(single), log_of(several)
    assert [record["event"] for record in mine] == [record["event"] for record in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name == "averaged":
                assert [each["step"] for each in other[name]] == [each["step"] for each in value]
                continue
            assert other[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name


def test_two_processes_step_as_one_does(root, tmp_path):
    shared = {"model_args": ALIKE, "batch_size": 9, "epochs": 3, "freeze_bn": True, "lr": 1e-3}
    settings = {
        "plain": {"hold_out": 0.2, "ema": 0.5, "eval_every": 1, "average_best": 2, "clip_norm": 0.01},
        "similar": {"terms": ["iusp=3", "sp=30"], "batch_size": 7},
        "recurrent": {"student": "cnn-lstm-tiny", "model_args": {"pool": "attention"}},
        "mixed": {"mixup": 0.5, "accumulate": 2, "label_weight": 0.5, "label_column": "label", "balance": True},
    }
    for name, changes in settings.items():
        train_student(StudentOptions(**student_values(root, tmp_path / f"one-{name}", **(shared | changes))))
    asked = [
        flags(student_values(root, tmp_path / f"two-{name}", **(shared | changes)))
        for name, changes in settings.items()
    ]
    nets = {
        called(case): {"student": case[0], "model_args": args_of(*case), "epochs": None, "steps": 2, "hold_out": 0.0}
        for case in CASES
    }
    asked += [flags(student_values(root, tmp_path / f"net-{name}", **changes)) for name, changes in nets.items()]
    refused = [
        flags(student_values(root, tmp_path / "tiny", **(shared | {"batch_size": 2}))),
        flags(student_values(root, tmp_path / "two-plain", **(shared | settings["plain"] | {"lr": 2e-3}))),
    ]
    again = student_values(root, tmp_path / "again", **(shared | settings["mixed"] | {"checkpoint_every": 2}))
    lost = flags(student_values(root, tmp_path / "lost", **(shared | {"lr": 1e30})))
    (tmp_path / "asked.json").write_text(json.dumps([*asked, again, flags(again), *refused, lost]))
    (tmp_path / "many.py").write_text(MANY)
    done = python(*TORCHRUN, str(tmp_path / "many.py"), str(tmp_path / "asked.json"))
    assert done.returncode == 0, done.stderr
    for name in settings:
        assert_close_runs(tmp_path / f"one-{name}", tmp_path / f"two-{name}")
    for name in nets:  # each with dropout of its own, so that nothing is there to compare them with
        assert load_run(tmp_path / f"net-{name}").config["training"]["processes"] == 2
    for name in ("log.jsonl", "model.safetensors"):  # interrupted at step 5, gone on from 4
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "two-mixed" / name).read_bytes()
    assert done.stdout.count("trained    9 steps") == 4  # rank 0 alone speaks
    config = load_run(tmp_path / "two-plain").config["training"]
    assert config["processes"] == 2
    for text in (  # each process refuses for itself
        "2 processes share each batch, and the smallest has 2 clips",
        "options.lr: there 0.001, asked 0.002",
        "lower --lr (it was",  # neither waits for the other when the weights come to nothing
    ):
        assert done.stdout.count(text) == 2, text


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_thread_of_the_process_group_outlives_it(tmp_path):
    # one that still runs when the interpreter ends aborts the process, sometimes
    (tmp_path / "threads.py").write_text(THREADS)
    done = python(*TORCHRUN, str(tmp_path / "threads.py"), PYTHONPATH=".")
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 0"], done.stdout + done.stderr


def test_processes_of_torchrun_are_known_by_their_environment(monkeypatch):
    assert processes() == 1
    with joined("cpu") as group:
        assert group == Group()
    for name, value in {"RANK": 1, "WORLD_SIZE": 3, "LOCAL_RANK": 1, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert processes() == 3
    assert own_device("cpu") == "cpu"
    with pytest.raises(
        RunError, match="--device cuda:0 names one GPU for 3 processes; give cuda, and each takes its own"
    ):
        own_device("cuda:0")
    with pytest.raises(RunError, match="process 1 of this machine has no GPU of its own: there are 0"):
        own_device("cuda")


def test_processes_that_do_not_all_come_are_not_waited_for_for_long(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(training_processes, "_MEETING", timedelta(seconds=0.1))
    with pytest.raises(RunError, match=r"process 1 of 2 has waited 0:00:00.1\d* for the others, and not all came"):
        training_processes._meet(store, 1, 2)
    training_processes._meet(store, 0, 2)  # the other is there by now


def test_a_teacher_under_torchrun_is_refused(root, tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(RunError, match="train-teacher runs in one process, and torchrun started 2"):
        train_teacher(
            TeacherOptions(
                manifest=str(root / "labels.csv"), label_column="label", model="cnn4", out=str(tmp_path / "run")
            )
        )


def test_one_process_is_told_its_own_values():
    group = Group()
    assert group.told({"a": [1, 2.5]}) == {"a": [1, 2.5]}
    assert group.by_first(lambda: 3) == 3
    assert group.gatherer([4]) is None
    assert torch.equal(group.sum(torch.ones(2)), torch.ones(2))
    assert np.array_equal(group.all_of(torch.arange(3))[0], np.arange(3))
