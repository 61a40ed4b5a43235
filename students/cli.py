"""The command ``train-student``."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from logitstore.cli.common import STARTS_OVER, key_values, run


@click.command("train-student")
@click.argument("store")
@click.option(
    "--also", multiple=True, metavar="STORE", help="Another store to learn from, as if both were one. Repeatable."
)
@click.option(
    "--audio-root",
    required=True,
    multiple=True,
    metavar="DIR",
    help="The audio that the store was built from; of several stores one for all, or one for each in their order.",
)
@click.option(
    "--student", required=True, metavar="NAME", help="cnn4, cnn6, cnn10, cnn14, ced-tiny, -mini, -small, -base."
)
@click.option(
    "--model-arg", "model_args", multiple=True, metavar="K=V", callback=key_values, help="As width=8. Repeatable."
)
@click.option("--out", required=True, metavar="RUN", help="The run folder to write.")
@click.option(
    "--where", metavar="SQL", help="Learn only from the clips for which this holds; columns of table `clips`."
)
@click.option("--epochs", type=int, help="Epoch e uses view e mod V.  [default: 600 steps or more, all views equally]")
@click.option("--steps", type=int, help="Number of steps, instead of --epochs.")
@click.option("--batch-size", default=32, show_default=True, help="Clips a step.")
@click.option(
    "--lr", type=float, help="Highest learning rate.  [default: cnn4 5e-3; ced-small, -base 3e-4; others 1e-3]"
)
@click.option("--loss", type=click.Choice(["bce", "kl"]), help="[default: bce for sigmoid targets, kl for softmax]")
@click.option("--temperature", default=1.0, show_default=True, help="Of the loss kl.")
@click.option(
    "--tail",
    type=click.Choice(["zero", "mean", "half", "random", "uniform"]),
    default="zero",
    show_default=True,
    help="Fill of the classes that a target does not hold.",
)
@click.option("--inconsistent", is_flag=True, help="The ablation: fresh draws against the stored targets.")
@click.option("--eval", "eval_manifest", metavar="MANIFEST", help="Labelled audio to measure mAP on.")
@click.option("--eval-audio-root", metavar="DIR", help="Its audio.  [default: --audio-root]")
@click.option("--eval-where", metavar="SQL", help="Measure on the rows of MANIFEST for which this holds.")
@click.option("--eval-every", type=int, metavar="N", help="Measure every N epochs.  [default: ten times in all]")
@click.option("--label-column", metavar="NAME", help="The column of labels in MANIFEST.")
@click.option("--seed", default=0, show_default=True, help="Of weights, order, dropout and fresh draws.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--amp", is_flag=True, help="Train in mixed precision.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option(
    "--cache-mib", default=1024, show_default=True, help="Decoded audio to keep in memory, for each set of clips."
)
def train_student_command(cache_mib: int, audio_root: tuple[str, ...], **options: Any) -> None:
    """Train a student from STORE, label-free, on exactly what the teachers heard.

    \b
    Example:
      train-student store --audio-root audio --student cnn4 --model-arg width=8 --out runs/student
      train-student store --audio-root audio --student ced-tiny --out runs/tiny \\
          --eval labels.csv --eval-where "fold = 5" --label-column label
      train-student store-1 --also store-2 --audio-root audio-1 --audio-root audio-2 --student cnn4 --out runs/both
    """
    from students.report import TrainingProgress, render
    from students.train import StudentOptions, train_student

    root = audio_root[0] if len(audio_root) == 1 else audio_root
    asked = StudentOptions(**options, audio_root=root, cache_bytes=cache_mib << 20)
    with TrainingProgress() as progress:
        trained = train_student(asked, progress.callbacks())
    click.echo(render(trained))


def main() -> NoReturn:
    """Console script."""
    run(train_student_command, STARTS_OVER)
