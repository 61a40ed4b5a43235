"""The command ``train-teacher``."""

from __future__ import annotations

from typing import NoReturn

import click

from logitstore.cli.command import GOES_ON, command, run
from teachers.options import TeacherOptions


@command("train-teacher", TeacherOptions)
def train_teacher_command(options: TeacherOptions) -> None:
    """Train a teacher on the labelled audio of MANIFEST.

    \b
    Example:
      train-teacher labels.csv --audio-root audio --label-column label --where "fold < 5" --eval-where "fold = 5" \\
          --model cnn4 --out runs/teacher

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    """
    from logitstore.cli.progress import TrainingProgress, render_training
    from teachers.train import train_teacher

    with TrainingProgress() as progress:
        trained = train_teacher(options, progress.callbacks())
    click.echo(render_training(trained))


def main() -> NoReturn:
    """Console script."""
    run(train_teacher_command, GOES_ON)
