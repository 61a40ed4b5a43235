"""The command ``train-teacher``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NoReturn

from logitstore.cli.command import GOES_ON, answer, command, next_steps, run
from logitstore.options import JsonOptions, Option, only
from teachers.options import TeacherOptions


@dataclass(frozen=True, kw_only=True)
class _TrainTeacher(JsonOptions, TeacherOptions):
    curve: Annotated[
        bool,
        Option("Draw the learning curve on stderr at the end, also where that is no terminal.", group="Output"),
    ] = False


@command("train-teacher", _TrainTeacher)
def train_teacher_command(options: _TrainTeacher) -> None:
    """Train a teacher on the labelled audio of MANIFEST.

    \b
    Example:
      train-teacher labels.csv --audio-root audio --label-column label --where "fold < 5" --eval-where "fold = 5" \\
          --model cnn4 --out runs/teacher

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    """
    from logitstore.cli.afterwards import after_teacher
    from logitstore.cli.progress import TrainingProgress, render_training, training_document
    from teachers.train import train_teacher

    with TrainingProgress() as progress:
        trained = train_teacher(only(options, TeacherOptions), progress.callbacks())
    progress.show_curve(options.out, options.curve)
    answer(options, training_document(trained), render_training(trained))
    next_steps(*after_teacher(options.out, options.manifest, options.audio_root))


def main() -> NoReturn:
    """Console script."""
    run(train_teacher_command, GOES_ON)
