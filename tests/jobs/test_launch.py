"""Builds as launchers start them: by torchrun, with a rank that dies, and as tasks of an array job."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from logitstore.errors import UsageError
from logitstore.jobs.build.job import Progress, build
from logitstore.jobs.status import status
from tests.stores import contents, inside, options, write_audio

SCALING = Path(__file__).parents[2] / "docs" / "scaling"
SLOW = '''
"""A tone teacher that is slow enough to be killed, and says when it was asked."""
import os, pathlib, time
import tones

def slow():
    teacher = tones.plain()
    forward = teacher.forward
    def slowly(waveforms, masks=None):
        if "RANK" in os.environ:
            pathlib.Path(f"asked-{os.environ['RANK']}-{os.getpid()}").touch()
            time.sleep(0.3)
        return forward(waveforms, masks)
    teacher.forward = slowly
    return teacher
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Audio, and the store that one process makes of it, in the current folder."""
    folder = tmp_path_factory.mktemp("launched")
    write_audio(folder / "audio", 24)
    with inside(folder):
        (folder / "slow.py").write_text(SLOW)
        build(asked(folder, out=folder / "single"))
        yield folder


def environment(root, **more):
    """What the files of ``docs/scaling`` are told."""
    told = {
        "AUDIO": "audio", "TEACHER": "python:slow:slow", "VIEWS": "3", "DEVICE": "cpu",
        "MORE": "--topk 4 --clip-seconds 1 --batch-size 5 --shard-clips 4",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(SCALING.parents[1]), str(root)]),
    }  # fmt: skip
    return os.environ | told | more


def asked(root, **changes):
    values = {"teachers": ["python:slow:slow"], "shard_clips": 4, "batch_size": 5, "clip_seconds": 1.0, "workers": 1}
    return options(root, **(values | changes))


def test_ranks_of_torchrun_finish_what_one_that_was_killed_has_begun(root):
    """torchrun starts the ranks again when one dies; they go on from what the store holds, byte for byte."""
    process = subprocess.Popen(
        [SCALING / "torchrun.sh", "2"], cwd=root, env=environment(root, STORE="together"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not list((root / "together").glob("commits/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    (second,) = root.glob("asked-1-*")
    os.kill(int(second.name.split("-")[2]), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert contents(root / "together") == contents(root / "single")
    assert len(list(root.glob("asked-*"))) == 4, "both were started again"
    assert out.count("store      together") == 1
    assert err.count("2 processes share the work; this one speaks for all") == 2
    assert err.count("recipe ced, for every teacher takes masks") == 1  # then the store says it


def test_tasks_of_an_array_make_their_parts_and_no_other(root, monkeypatch):
    out = root / "array"
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    said = []
    for task, shards in ((4, [4, 5]), (1, [0]), (2, [1, 2]), (3, [3])):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        before = {path.stem for path in out.glob("commits/*")}
        build(asked(root, out=out, shards="auto"), Progress(note=said.append))
        made = {int(path.stem.split("-")[0]) for path in out.glob("commits/*") if path.stem not in before}
        assert made == set(shards)
    assert "part 4 of 4 of the shards, as the environment says of this task" in said
    assert status(str(out)).missing == 0
    assert contents(out) == contents(root / "single")


def test_more_tasks_than_shards_leave_some_with_nothing_to_do(root, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    monkeypatch.setenv("LOGITSTORE_PARTS", "8")
    assert build(asked(root, out=root / "many", shards="auto")).made_views == 0
    monkeypatch.delenv("LOGITSTORE_PARTS")
    with pytest.raises(UsageError, match="set LOGITSTORE_PARTS to their number"):
        build(asked(root, out=root / "never", shards="auto"))
    assert not (root / "never").exists()


def test_the_files_of_slurm_and_kubernetes_build_a_store_together(root):
    """sbatch is replaced by a loop over indexes, here the first two of an array of three; a pod does the last part."""
    script = (SCALING / "slurm.sh").read_text()
    assert re.search(r"^#SBATCH --array=0-63$", script, re.MULTILINE)
    slurm = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_CPUS_PER_TASK": "1"}
    for index in range(2):
        told = environment(root, STORE="apart", SLURM_ARRAY_TASK_ID=str(index), **slurm)
        subprocess.run([SCALING / "slurm.sh"], cwd=root, env=told, check=True, capture_output=True)
    assert status(str(root / "apart")).missing == 2

    job = yaml.safe_load((SCALING / "kubernetes.yaml").read_text())
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert int(told["LOGITSTORE_PARTS"]) == spec["completions"]
    told = environment(root, **(told | {"AUDIO": "audio", "STORE": "apart", "TEACHER": "python:slow:slow"}))
    told |= {"LOGITSTORE_PARTS": "3", "JOB_COMPLETION_INDEX": "2", "DEVICE": "cpu"}
    command = [
        re.sub(r"\$\((\w+)\)", lambda name: told[name[1]], each) for each in container["command"] + container["args"]
    ]
    command = [each.replace("--views=10", "--views=3") for each in command] + told["MORE"].split()
    subprocess.run(command, cwd=root, env=told, check=True, capture_output=True)
    assert contents(root / "apart") == contents(root / "single")
