"""The command ``train-student``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NoReturn

from logitstore.cli.command import GOES_ON, answer, command, next_steps, run
from logitstore.options import JsonOptions, Option, only
from students.options import StudentOptions


@dataclass(frozen=True, kw_only=True)
class _TrainStudent(JsonOptions, StudentOptions):
    curve: Annotated[
        bool,
        Option("Draw the learning curve on stderr at the end, also where that is no terminal.", group="Output"),
    ] = False


@command("train-student", _TrainStudent)
def train_student_command(options: _TrainStudent) -> None:
    """Train a student from STORE, without labels, on exactly what the teachers heard.

    \b
    Example:
      train-student store --audio-root audio --student cnn4 --model-arg width=8 --out runs/student
      train-student store --audio-root audio --student ced-tiny --init ced:tiny_mae_as_10s.pt --new-head \\
          --out runs/tiny --eval labels.csv --eval-where "fold = 5" --label-column label
      train-student store-1 --also store-2 --audio-root audio-1 --audio-root audio-2 --student cnn4 --out runs/both
      torchrun --nproc-per-node 2 -m logitstore train-student --config runs/tiny/config.yaml --out runs/again

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    """
    from logitstore.cli.afterwards import after_student
    from logitstore.cli.progress import TrainingProgress, render_training, training_document
    from students.train import train_student

    with TrainingProgress() as progress:
        trained = train_student(only(options, StudentOptions), progress.callbacks())
    progress.show_curve(options.out, options.curve)
    if progress.first:
        answer(options, training_document(trained), render_training(trained))
        next_steps(*after_student(options.out, options.stores, options.audio_roots))


def main() -> NoReturn:
    """Console script."""
    run(train_student_command, GOES_ON)
