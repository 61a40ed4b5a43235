"""Trainings from an object store, in several processes, of which there are more or fewer after an interruption."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest
import torch

from logitstore.store.storage import open_storage
from logitstore.training.runs import load_run
from students.options import StudentOptions
from students.train import train_student
from tests.heard import SMALL, make_heard, python, student_values
from tests.s3 import s3_server
from tests.stores import contents
from tests.training.test_distributed import TORCHRUN, flags

pytestmark = pytest.mark.usefixtures("one_thread")

#: Each process has its own dropout, and statistics of its own share; without them they are one process.
ALIKE = {
    "model_args": SMALL | {"dropout": 0.0}, "batch_size": 9, "freeze_bn": True, "lr": 1e-3, "checkpoint_every": 2,
    "hold_out": 0.0,
}  # fmt: skip
CLIPS = 27

# Trainings one after the other, forked before any thread is there, whose processes end as if they were killed.
STAGES = """
import json, os, sys, traceback
import torch, torch._dynamo  # which optimisers import when first used, slowly
import torch.distributed.nn.functional
import logitstore.training.loop
from logitstore.store import requests
from logitstore.training.loop import FitProgress
from students.options import StudentOptions
from students.train import train_student
torch.set_num_threads(1)

class Killed(Exception):
    pass

def child(rank, size, values, last):
    number = os.fork()
    if number:
        return number
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1")
    def stop(step, clips, loss):
        if step == last:
            raise Killed
    said = []
    try:
        train_student(StudentOptions(**values), FitProgress(step=stop, note=said.append))
    except Killed:
        pass
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os.write(1, (json.dumps([rank, said, requests.sent().to_dict()]) + "\\n").encode())
    os._exit(0)

values, stages, ports = json.loads(sys.argv[1])
for (size, last), port in zip(stages, ports):
    os.environ["MASTER_PORT"] = str(port)
    numbers = [child(rank, size, values, last) for rank in range(size)]
    if any([os.waitpid(number, 0)[1] for number in numbers]):
        sys.exit(1)
    os.write(1, b"stage\\n")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"), clips=CLIPS, views=1, ending="flac")


@pytest.fixture(scope="module")
def url(root):
    """The same store on an object store."""
    with s3_server() as server:
        boto3.client("s3", endpoint_url=server, region_name="us-east-1").create_bucket(Bucket="logits")
        open_storage("s3://logits/heard").put_many(contents(root / "store"))
        yield "s3://logits/heard"


def steps_of(run):
    return [record for record in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "step" in record]


def assert_alike(one, other):
    """The same batches, and the same weights but for the order of sums."""
    left, right = load_run(one).model.state_dict(), load_run(other).model.state_dict()
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=2e-4, atol=2e-6, msg=f"{name} differs")
    steps = [[record for record in steps_of(run) if record["event"] == "step"] for run in (one, other)]
    assert len(steps[0]) == len(steps[1])
    for mine, theirs in zip(*steps, strict=True):
        assert theirs == mine | {name: pytest.approx(mine[name], rel=1e-4) for name in ("loss", "target")}


def free_ports(count):
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def test_a_training_goes_on_with_fewer_and_with_more_processes(root, url, tmp_path):
    changes = ALIKE | {"epochs": 4}
    train_student(StudentOptions(**student_values(root, tmp_path / "one", **changes)))
    values = student_values(
        root, tmp_path / "run", **changes, store=url, audio_cache=str(tmp_path / "cache"), audio_cache_size=0.01
    )
    stages = [(2, 5), (1, 9), (3, None)]  # how many processes, and the step that they are killed after
    done = python("-c", STAGES, json.dumps([values, stages, free_ports(3)]))
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "one", tmp_path / "run")
    changed = [record for record in steps_of(tmp_path / "run") if record["event"] == "processes"]
    assert changed == [
        {"event": "processes", "step": 4, "before": 2, "now": 1},
        {"event": "processes", "step": 8, "before": 1, "now": 3},
    ]
    assert load_run(tmp_path / "run").config["training"]["processes"] == 3
    told = [[json.loads(line) for line in part.splitlines()] for part in done.stdout.split("stage\n")[:-1]]
    assert [sorted(rank for rank, _, _ in stage) for stage in told] == [[0, 1], [0], [0, 1, 2]]
    assert "step 8: goes on with 3 processes in the place of 1; the batches are the same" in str(told[2])
    blocks = len(list((root / "store" / "commits").iterdir()))
    for stage in told:
        for _, _, sent in stage:  # manifest, clip table; commits; of a block what holds its targets and draws, once
            assert sent["gets"] <= 2 + 3 * blocks
            assert sent["puts"] == sent["heads"] == sent["deletes"] == 0
    assert len(list((tmp_path / "cache").glob("??/*.pcm"))) == CLIPS  # of all processes and stages


def test_a_killed_process_is_started_again_by_torchrun(root, url, tmp_path):
    changes = ALIKE | {"epochs": 40}
    values = student_values(root, tmp_path / "run", **changes, store=url, audio_cache=str(tmp_path / "cache"))
    command = [sys.executable, *TORCHRUN, "--max-restarts", "1", "-m", "logitstore", "train-student", *flags(values)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = tmp_path / "run" / "log.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                          cwd=Path(__file__).parents[2]) as job:  # fmt: skip
        until = time.monotonic() + 60
        while not (log.exists() and len(log.read_bytes()) > 2000):
            assert job.poll() is None, job.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        victim = max(int(child) for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split())
        os.kill(victim, signal.SIGKILL)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    train_student(StudentOptions(**student_values(root, tmp_path / "one", **changes)))
    assert_alike(tmp_path / "one", tmp_path / "run")
    assert not [record for record in steps_of(tmp_path / "run") if record["event"] == "processes"]
