"""What a launcher's environment says of a process: its part of an array job, its place among those of torchrun."""

import pytest

from logitstore import launched
from logitstore.errors import UsageError
from logitstore.launched import array_part, part_of

SLURM = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10"}
ALONE = {  # as of `sbatch --array=17`
    "SLURM_ARRAY_TASK_ID": "17", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "17",
    "SLURM_ARRAY_TASK_MAX": "17",
}  # fmt: skip
SGE_ALONE = {"SGE_TASK_ID": "17", "SGE_TASK_FIRST": "17", "SGE_TASK_LAST": "17", "SGE_TASK_STEPSIZE": "1"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (SLURM, (2, 3)),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_MAX": "14"}, (2, 3)),
        ({"JOB_COMPLETION_INDEX": "0", "LOGITSTORE_PARTS": "4"}, (0, 4)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "7", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}, (7, 8)),
        ({"SGE_TASK_ID": "7", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "10", "SGE_TASK_STEPSIZE": "3"}, (2, 4)),
        ({"PBS_ARRAY_INDEX": "3", "LOGITSTORE_PARTS": "4"}, (3, 4)),
        (ALONE | {"LOGITSTORE_PARTS": "64"}, (17, 64)),
        (SGE_ALONE | {"LOGITSTORE_PARTS": "64"}, (16, 64)),
        (ALONE | {name: "0" for name in ALONE if not name.endswith("COUNT")}, (0, 1)),
        (SGE_ALONE | dict.fromkeys(SGE_ALONE, "1"), (0, 1)),
        ({"LSB_JOBINDEX": "1", "LOGITSTORE_PARTS": "4"}, (0, 4)),
        ({"SGE_TASK_ID": "undefined", "PBS_ARRAY_INDEX": "0", "LOGITSTORE_PARTS": "1"}, (0, 1)),
    ],
)
def test_the_part_of_an_array_job_is_read_from_its_environment(environment, part):
    assert array_part(environment) == part


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, r"has none of SLURM_ARRAY_TASK_ID \(Slurm\), JOB_COMPLETION_INDEX \(Kubernetes\), .*; give A:B"),
        ({"JOB_COMPLETION_INDEX": "2"}, "and nothing of how many; set LOGITSTORE_PARTS to their number"),
        ({"JOB_COMPLETION_INDEX": "4", "LOGITSTORE_PARTS": "4"}, "is 4, and 4 tasks are numbered from 0 to 3"),
        ({"JOB_COMPLETION_INDEX": "1", "LOGITSTORE_PARTS": "four"}, "LOGITSTORE_PARTS is 'four', which is no number"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "17"}, "number them without gaps, or give A:B"),  # as of --array=10,11,17
        (SLURM | {"SLURM_ARRAY_TASK_ID": "13", "SLURM_ARRAY_TASK_STEP": "2"}, "every 2, do not have that number"),
        ({"LSB_JOBINDEX": "0", "LOGITSTORE_PARTS": "4"}, "are numbered from 1 to 4"),
        (ALONE, r"task 17 is the only one of its array \(Slurm\), .*; set LOGITSTORE_PARTS to .*, counted from 0 on"),
        (SGE_ALONE, "set LOGITSTORE_PARTS to their number, counted from 1 on"),
        (ALONE | {"LOGITSTORE_PARTS": "17"}, "is 17, and 17 tasks are numbered from 0 to 16"),
    ],
)
def test_an_environment_that_does_not_say_is_refused(environment, words):
    with pytest.raises(UsageError, match=words):
        array_part(environment)


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (3, 10), (0, 2), (488, 64), (1, 1)])
def test_parts_are_even_and_hold_all_once(count, parts):
    all_parts = [part_of(count, index, parts) for index in range(parts)]
    assert [each for part in all_parts for each in part] == list(range(count))
    assert max(map(len, all_parts)) - min(map(len, all_parts)) <= 1


def test_processes_of_torchrun_share_the_cores_and_only_the_first_speaks(monkeypatch):
    assert (launched.processes(), launched.rank(), launched.is_first()) == (1, 0, True)
    monkeypatch.setattr(launched.os, "cpu_count", lambda: 16)
    assert launched.own_cores() == 16
    for name, value in {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "h",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (launched.processes(), launched.rank(), launched.is_first()) == (8, 5, False)
    assert launched.own_cores() == 4
