"""The command ``export-student``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from logitstore.cli.common import run, stderr

if TYPE_CHECKING:
    from logitstore.jobs.export_student import Export, Exported

_MB = 1e6


@click.command("export-student")
@click.argument("run_folder", metavar="RUN")
@click.option("--onnx", required=True, metavar="OUT.onnx", help="The file to write; its sidecar is OUT.onnx.json.")
@click.option("--int8", is_flag=True, help="Write OUT.int8.onnx too, with 8-bit weights, and say what it costs.")
@click.option(
    "--activation-bits",
    type=click.Choice([8, 16]),
    default=8,
    show_default=True,
    help="Of convolutional students with --int8: 16 is several times nearer, of the same size, and as slow as floats.",
)
@click.option(
    "--calibrate",
    metavar="AUDIO",
    help="Audio that ranges of 8-bit activations are measured on; a folder or a manifest.  [default: that of --eval]",
)
@click.option("--eval", "eval_manifest", metavar="MANIFEST", help="Labelled audio to measure mAP on.")
@click.option("--label-column", metavar="NAME", help="The column of labels in MANIFEST.")
@click.option("--audio-root", metavar="DIR", help="What the paths of the manifests are relative to.")
@click.option("--eval-where", metavar="SQL", help="Measure on the rows of MANIFEST for which this holds.")
@click.option("--clip-seconds", type=float, help="Longer files are cut.  [default: as in the run's training]")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def export_student_command(run_folder: str, as_json: bool, **options: Any) -> None:
    """Write the student of RUN as an ONNX file: waveforms in, probabilities out.

    The file takes any number of clips of any length. Before it is put in place onnxruntime runs it, and its
    probabilities must be the student's to 1e-4. With its sidecar it is a teacher, onnx:OUT.onnx.

    \b
    Example:
      export-student runs/student --onnx student.onnx
      export-student runs/student --onnx student.onnx --int8 --calibrate audio \\
          --eval labels.csv --audio-root audio --eval-where "fold = 5" --label-column label
    """
    import json

    from rich.status import Status

    from logitstore.jobs.export_student import ExportOptions, export_student

    with Status("", console=stderr) as status:
        if not stderr.is_terminal:
            status.stop()
        found = export_student(ExportOptions(run=run_folder, **options), status.update)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else render(found))


def render(found: Export) -> str:
    """What was written, how near it is, and what it costs."""
    lines = [
        f"{found.run}: {found.scores} probabilities of {found.classes} classes, of any number of clips at "
        f"{found.sample_rate} Hz of {found.least_samples} samples or more"
    ]
    for file in found.files:
        lines += [f"wrote {_size(file, found.files[0])}", f"  {_difference(file, found.sample_rate)}"]
    if found.mAP is not None:
        named = [("run", found.mAP), *(("float" if file.method is None else "int8", file.mAP) for file in found.files)]
        lines += [f"mAP of the {name:<5}  {value:.4f}" for name, value in named if value is not None]
    return "\n".join(lines)


def _size(file: Exported, first: Exported) -> str:
    if file.method is None:
        return f"{file.path}: {file.bytes / _MB:.2f} MB"
    ways = {
        "static": "8-bit weights, ranges of the activations measured on audio",
        "dynamic": "8-bit weights of matrix products, ranges found as it runs",
    }
    return f"{file.path}: {file.bytes / _MB:.2f} MB, {file.bytes / first.bytes:.0%} of it; {ways[file.method]}"


def _difference(file: Exported, rate: int) -> str:
    found = file.agreement
    clips = sorted({clips for clips, _ in found.batches})
    seconds = sorted(samples / rate for _, samples in found.batches)
    return (
        f"differs from the run by at most {found.largest:.2g} (mean {found.mean:.2g}) on {file.heard}: "
        f"{len(found.batches)} batches of {_span(clips, '')} clips, {_span(seconds, '.2f')} s"
    )


def _span(values: Sequence[float], form: str) -> str:
    """The lowest and the highest of rising values, or the one that they all are."""
    low, high = f"{values[0]:{form}}", f"{values[-1]:{form}}"
    return low if low == high else f"{low} to {high}"


def main() -> NoReturn:
    """Console script."""
    run(export_student_command)


if __name__ == "__main__":
    main()
