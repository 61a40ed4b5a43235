"""``logitstore evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from logitstore.cli.common import stderr

if TYPE_CHECKING:
    from logitstore.jobs.evaluate import Evaluation

_MOST_NAMED = 10


@click.command("evaluate")
@click.argument("manifest")
@click.option("--audio-root", metavar="DIR", help="What the manifest's paths are relative to.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="A teacher or student: a run folder, ced:FILE, hf:ID_OR_PATH, onnx:FILE or python:MODULE:FACTORY. Repeatable.",
)
@click.option("--teacher-weight", "weights", multiple=True, type=float, help="Weight of a teacher in the ensemble.")
@click.option(
    "--average",
    type=click.Choice(["probability", "logit"]),
    default="probability",
    show_default=True,
    help="What of the members is averaged.",
)
@click.option("--classes", metavar="FILE", help="Score only the classes named in this file, one a line.")
@click.option("--label-column", required=True, metavar="NAME", help="The column of labels; several are joined by ';'.")
@click.option("--where", metavar="SQL", help="Score only the rows of the manifest for which this holds.")
@click.option(
    "--clip-seconds", type=float, help="Longer files are cut.  [default: 10, or the longest file where that is shorter]"
)
@click.option("--sample-rate", type=int, help="Rate of the clips in Hz.  [default: the highest of the teachers]")
@click.option("--batch-size", default=32, show_default=True, help="Clips a batch.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--amp", is_flag=True, help="Run the models in mixed precision.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def evaluate_command(as_json: bool, **options: Any) -> None:
    """Score teachers, students and their ensemble on the labelled audio of MANIFEST.

    Labels are matched to classes by name, or by any of index, MID and display name where the classes are AudioSet's.
    The scores of a file that is cut into several clips are averaged.

    \b
    Example:
      logitstore evaluate labels.csv --audio-root audio --label-column label --where "fold = 5" \\
          --teacher runs/t1 --teacher runs/t2
    """
    import json

    from rich.progress import Progress

    from logitstore.jobs.evaluate import EvaluateOptions, evaluate

    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task("clips", total=None)
        found = evaluate(EvaluateOptions(**options), lambda done, total: bar.update(task, completed=done, total=total))
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else render(found))


def render(found: Evaluation) -> str:
    """A table of the metrics and what they were measured on."""
    named = [*found.members, *([("ensemble", found.ensemble)] if found.ensemble else [])]
    width = max(len("teacher"), *(len(name) for name, _ in named))
    lines = [f"{'teacher':<{width}}     mAP  micro AUPRC  macro AUPRC"]
    lines += [
        f"{name:<{width}}  {metrics.mAP:6.4f}  {metrics.micro_auprc:11.4f}  {metrics.macro_auprc:11.4f}"
        for name, metrics in named
    ]
    metrics = named[0][1]
    lines += [
        "",
        f"{found.rows:,} files in {found.clips:,} clips of {found.clip_seconds:g} s at {found.sample_rate} Hz; "
        f"{metrics.classes} classes, {metrics.left_out} left out for having no positives",
        "AUPRC is average precision (no interpolation), so the macro AUPRC is the mAP",
    ]
    if found.failures:
        lines.append(f"{len(found.failures)} clips could not be decoded and are left out:")
        lines += [f"  {path}: {reason}" for path, reason in found.failures[:_MOST_NAMED]]
        lines += ["  …"] if len(found.failures) > _MOST_NAMED else []
    return "\n".join(lines)
