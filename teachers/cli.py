"""The command ``train-teacher``."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from logitstore.cli.common import STARTS_OVER, key_values, run


@click.command("train-teacher")
@click.argument("manifest")
@click.option("--audio-root", metavar="DIR", help="What the manifest's paths are relative to.")
@click.option("--label-column", required=True, metavar="NAME", help="The column of labels; several are joined by ';'.")
@click.option("--where", metavar="SQL", help="Train only on the rows of the manifest for which this holds.")
@click.option(
    "--model", required=True, metavar="NAME", help="cnn4, cnn6, cnn10, cnn14, ced-tiny, -mini, -small, -base."
)
@click.option(
    "--model-arg", "model_args", multiple=True, metavar="K=V", callback=key_values, help="As width=16. Repeatable."
)
@click.option("--out", required=True, metavar="RUN", help="The run folder to write.")
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
@click.option("--steps", type=int, help="Number of steps, instead of --epochs.")
@click.option("--batch-size", default=32, show_default=True, help="Clips a step.")
@click.option(
    "--lr", type=float, help="Highest learning rate.  [default: cnn4 5e-3; ced-small, -base 3e-4; others 1e-3]"
)
@click.option("--eval-where", metavar="SQL", help="Measure mAP on the rows of the manifest for which this holds.")
@click.option("--eval-every", type=int, metavar="N", help="Measure every N epochs.  [default: five times in all]")
@click.option("--seed", default=0, show_default=True, help="Of weights, order, dropout and draws.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--amp", is_flag=True, help="Train in mixed precision.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option(
    "--cache-mib", default=1024, show_default=True, help="Decoded audio to keep in memory, for each set of clips."
)
def train_teacher_command(cache_mib: int, **options: Any) -> None:
    """Train a teacher on the labelled audio of MANIFEST.

    \b
    Example:
      train-teacher labels.csv --audio-root audio --label-column label --where "fold < 5" --eval-where "fold = 5" \\
          --model cnn4 --out runs/teacher
    """
    from students.report import TrainingProgress, render
    from teachers.train import TeacherOptions, train_teacher

    asked = TeacherOptions(**options, cache_bytes=cache_mib << 20)
    with TrainingProgress() as progress:
        trained = train_teacher(asked, progress.callbacks())
    click.echo(render(trained))


def main() -> NoReturn:
    """Console script."""
    run(train_teacher_command, STARTS_OVER)
