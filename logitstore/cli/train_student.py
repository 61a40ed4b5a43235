"""The command ``train-student``."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from logitstore.cli.common import GOES_ON, key_values, run
from logitstore.cli.training_options import loop_options


@click.command("train-student")
@click.argument("store", required=False)
@click.option(
    "--also", multiple=True, metavar="STORE", help="Another store to learn from, as if both were one. Repeatable."
)
@click.option(
    "--audio-root",
    multiple=True,
    metavar="DIR",
    help="The audio that the store was built from; of several stores one for all, or one for each in their order.",
)
@click.option(
    "--student",
    metavar="NAME",
    help="cnn4, cnn6, cnn10, cnn14, mobile, ced-tiny, -mini, -small, -base.",
)
@click.option(
    "--model-arg", "model_args", multiple=True, metavar="K=V", callback=key_values, help="As width=8. Repeatable."
)
@click.option(
    "--init", metavar="SPEC", help="Weights to start from: ced:FILE, a published checkpoint, or a run folder."
)
@click.option("--new-head", is_flag=True, help="Make the head of --init anew.")
@click.option("--out", metavar="RUN", help="The run folder to write.")
@click.option(
    "--where", metavar="SQL", help="Learn only from the clips for which this holds; columns of table `clips`."
)
@click.option("--balance", is_flag=True, help="Draw clips so that classes are even, by the stored probabilities.")
@click.option(
    "--weight-by", metavar="SQL", help="Draw clips in proportion to an expression over tables `views`, `clips`."
)
@click.option("--epochs", type=int, help="Epoch e uses view e mod V.  [default: 600 steps or more, all views equally]")
@click.option("--loss", type=click.Choice(["bce", "kl"]), help="[default: bce for sigmoid targets, kl for softmax]")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of the loss kl.")
@click.option(
    "--tail",
    type=click.Choice(["zero", "mean", "half", "random", "uniform"]),
    default="zero",
    show_default=True,
    help="Fill of the classes that a target does not hold.",
)
@click.option(
    "--similarity",
    type=click.Choice(["iusp", "sp", "both"]),
    help="Learn the teachers' relations too (build --relations).",
)
@click.option(
    "--similarity-weight", type=float, default=1.0, show_default=True, metavar="W", help="Weight of their loss."
)
@click.option(
    "--label-weight",
    type=float,
    default=0.0,
    show_default=True,
    metavar="W",
    help="Weight of the loss against the labels that clips of the store have in --label-column.",
)
@click.option(
    "--term",
    "terms",
    multiple=True,
    metavar="NAME=W",
    help="Add a term to the loss, or change its weight. Repeatable.",
)
@click.option("--label-column", metavar="NAME", help="The column of labels, in MANIFEST and in the store's clip table.")
@click.option(
    "--mixup", type=float, metavar="A", help="Mix log-mels of a batch, shares from Beta(A, A); no teacher heard it."
)
@click.option("--inconsistent", is_flag=True, help="The ablation: fresh draws against the stored targets.")
@click.option("--hold-out", type=float, metavar="SHARE", help="Files to measure the loss on, not to learn from.")
@click.option("--patience", type=int, metavar="N", help="Stop after N evaluations without a better one.")
@click.option("--average-best", type=int, metavar="N", help="Keep the mean of the weights of the best N evaluations.")
@click.option(
    "--select-by",
    type=click.Choice(["loss", "mAP"]),
    default="loss",
    show_default=True,
    help="What is better: loss of held-out clips (5 % unless --hold-out says), or mAP of --eval.",
)
@click.option("--eval", "eval_manifest", metavar="MANIFEST", help="Labelled audio to measure mAP on.")
@click.option("--eval-audio-root", metavar="DIR", help="Its audio.  [default: --audio-root]")
@click.option("--eval-where", metavar="SQL", help="Measure on the rows of MANIFEST for which this holds.")
@click.option("--eval-every", type=int, metavar="N", help="Measure every N epochs.  [default: ten times in all]")
@loop_options
@click.pass_context
def train_student_command(context: click.Context, /, config: str | None, **given: Any) -> None:
    """Train a student from STORE, label-free, on exactly what the teachers heard.

    \b
    Example:
      train-student store --audio-root audio --student cnn4 --model-arg width=8 --out runs/student
      train-student store --audio-root audio --student ced-tiny --init ced:tiny_mae_as_10s.pt --new-head \\
          --out runs/tiny --eval labels.csv --eval-where "fold = 5" --label-column label
      train-student store-1 --also store-2 --audio-root audio-1 --audio-root audio-2 --student cnn4 --out runs/both
      torchrun --nproc-per-node 2 -m logitstore train-student --config runs/tiny/config.yaml --out runs/again

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    """
    from logitstore.cli.training_progress import TrainingProgress, render
    from logitstore.training.config import merged
    from students.train import StudentOptions, train_student

    options = merged(context, config, given)
    roots, cache_mib = options.pop("audio_root"), options.pop("cache_mib")
    root = roots[0] if len(roots) == 1 else tuple(roots)
    asked = StudentOptions(**options, audio_root=root, cache_bytes=cache_mib << 20)
    with TrainingProgress() as progress:
        trained = train_student(asked, progress.callbacks())
    if progress.first:
        click.echo(render(trained))


def main() -> NoReturn:
    """Console script."""
    run(train_student_command, GOES_ON)
