"""The command ``train-teacher``."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from logitstore.cli.common import GOES_ON, key_values, run
from logitstore.cli.training_options import loop_options


@click.command("train-teacher")
@click.argument("manifest", required=False)
@click.option("--audio-root", metavar="DIR", help="What the manifest's paths are relative to.")
@click.option("--label-column", metavar="NAME", help="The column of labels; several are joined by ';'.")
@click.option("--where", metavar="SQL", help="Train only on the rows of the manifest for which this holds.")
@click.option("--model", metavar="NAME", help="cnn4, cnn6, cnn10, cnn14, mobile, ced-tiny, -mini, -small, -base.")
@click.option(
    "--model-arg", "model_args", multiple=True, metavar="K=V", callback=key_values, help="As width=16. Repeatable."
)
@click.option("--out", metavar="RUN", help="The run folder to write.")
@click.option("--classes", metavar="FILE", help="Class names, one a line.  [default: the labels, sorted by name]")
@click.option(
    "--scores",
    type=click.Choice(["sigmoid", "softmax"]),
    default="sigmoid",
    show_default=True,
    help="sigmoid: any number of labels a row; softmax: one.",
)
@click.option(
    "--recipe", metavar="NAME|FILE", help="Augmentation.  [default: roll, gain ±6 dB, time and frequency mask]"
)
@click.option(
    "--clip-seconds", type=float, help="Longer files are cut.  [default: 10, or the longest file where that is shorter]"
)
@click.option("--epochs", type=int, help="[default: 10, or as many as make 400 steps]")
@click.option("--eval-where", metavar="SQL", help="Measure mAP on the rows of the manifest for which this holds.")
@click.option("--eval-every", type=int, metavar="N", help="Measure every N epochs.  [default: five times in all]")
@loop_options
@click.pass_context
def train_teacher_command(context: click.Context, /, config: str | None, **given: Any) -> None:
    """Train a teacher on the labelled audio of MANIFEST.

    \b
    Example:
      train-teacher labels.csv --audio-root audio --label-column label --where "fold < 5" --eval-where "fold = 5" \\
          --model cnn4 --out runs/teacher

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    """
    from logitstore.cli.training_progress import TrainingProgress, render
    from logitstore.training.config import merged
    from teachers.train import TeacherOptions, train_teacher

    options = merged(context, config, given)
    cache_mib = options.pop("cache_mib")
    asked = TeacherOptions(**options, cache_bytes=cache_mib << 20)
    with TrainingProgress() as progress:
        trained = train_teacher(asked, progress.callbacks())
    click.echo(render(trained))


def main() -> NoReturn:
    """Console script."""
    run(train_teacher_command, GOES_ON)
