"""What whoever started this process says of it, in its environment: one of several of ``torchrun``, or of an array job.

Processes of ``torchrun`` know of each other and work on the same thing. Tasks of an array (Slurm, Kubernetes, AWS
Batch, Grid Engine, PBS, LSF) are started apart, each with a number, and each does its own part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from logitstore.errors import UsageError
from logitstore.texts import shown

#: Environment variables that torchrun sets for each process.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: How many tasks an array has, where its environment tells only which of them this is.
PARTS = "LOGITSTORE_PARTS"


def processes() -> int:
    """How many processes work together, as torchrun says; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _TORCHRUN) else 1


def rank() -> int:
    """Which of :func:`processes` this is, from 0 on."""
    return int(os.environ["RANK"]) if processes() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return rank() == 0


def own_cores() -> int:
    """How many of this machine's cores are for this process: torchrun's processes share them."""
    return max(1, (os.cpu_count() or 1) // processes_here())


def processes_here() -> int:
    """How many of :func:`processes` are on this machine."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(here) if processes() > 1 and here.isdecimal() and int(here) else 1


@dataclass(frozen=True)
class Array:
    """A kind of array job: the variables that say which task this is, and of how many.

    :param index: the variable of the task's number. :param count: of the number of tasks; None where none says it.
    :param first: of the smallest number, :param last: of the largest, :param step: of the step between numbers, each
        None where none says it; numbers then begin at ``base``, with a step of 1, as where :data:`PARTS` is set.
    """

    name: str
    index: str
    count: str | None = None
    first: str | None = None
    last: str | None = None
    step: str | None = None
    base: int = 0


ARRAYS = (
    Array(
        "Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP",
    ),
    Array("Kubernetes", "JOB_COMPLETION_INDEX"),
    Array("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    Array("Grid Engine", "SGE_TASK_ID", None, "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE", base=1),
    Array("PBS", "PBS_ARRAY_INDEX"),
    Array("LSF", "LSB_JOBINDEX", base=1),
)  # fmt: skip


def array_part(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Which task of an array job this is, from 0 on, and of how many.

    Where :data:`PARTS` is set, tasks count from the launcher's first number on, whatever else is said of this array: it
    may hold but a few of them, started again.

    :param environment: this process's by default.
    :raises UsageError: it is none, or its environment does not say of how many, or says what cannot be.
    """
    said = os.environ if environment is None else environment
    array = next((each for each in ARRAYS if said.get(each.index, "undefined") not in ("", "undefined")), None)
    if array is None:
        known = ", ".join(f"{each.index} ({each.name})" for each in ARRAYS)
        raise UsageError(f"--shards auto needs an array job, and the environment has none of {known}; give A:B")

    def number(variable: str | None, otherwise: int) -> int:
        text = None if variable is None else said.get(variable)
        if text is None:
            return otherwise
        if not text.isdecimal():
            raise UsageError(f"--shards auto: {variable} is {shown(text)}, which is no number; give A:B")
        return int(text)

    first, step, count = array.base, 1, number(PARTS, 0)
    if not count:
        first, step, count = number(array.first, first), number(array.step, 1) or 1, number(array.count, 0)
        if not count and array.last is not None and array.last in said:
            count = (number(array.last, 0) - first) // step + 1
        if count == 1 and first > array.base:
            raise UsageError(
                f"--shards auto: task {first} is the only one of its array ({array.name}), and is not told of how many "
                f"it was one; set {PARTS} to their number, counted from {array.base} on, or give A:B"
            )
    if count < 1:
        raise UsageError(
            f"--shards auto: {array.index} ({array.name}) says which task this is, and nothing of how many; set "
            f"{PARTS} to their number"
        )
    index, rest = divmod(number(array.index, 0) - first, step)
    if rest or not 0 <= index < count:
        raise UsageError(
            f"--shards auto: {array.index} is {number(array.index, 0)}, and {count} tasks from {first} on, every "
            f"{step}, do not have that number; number them without gaps, or give A:B"
            if step > 1
            else f"--shards auto: {array.index} is {number(array.index, 0)}, and {count} tasks are numbered from "
            f"{first} to {first + count - 1}; number them without gaps, or give A:B"
        )
    return index, count


def part_of(count: int, index: int, parts: int) -> range:
    """The ``index``-th of so many even parts of ``count`` things in a row."""
    return range(count * index // parts, count * (index + 1) // parts)
