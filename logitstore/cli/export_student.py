"""The command ``export-student``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from logitstore.cli.agreement import agreement_lines
from logitstore.cli.command import answer, command, next_steps, run
from logitstore.jobs.options import ExportOptions
from logitstore.options import JsonOptions
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from logitstore.jobs.export_student import Export, Exported

_MB = 1e6


@dataclass(frozen=True, kw_only=True)
class _ExportStudent(JsonOptions, ExportOptions):
    pass


@command("export-student", _ExportStudent)
def export_student_command(options: _ExportStudent) -> None:
    """Write the student of RUN as an ONNX file: waveforms in, probabilities out.

    The file takes any number of clips of any length. Before it is put in place onnxruntime runs it, and its
    probabilities must be the student's to 1e-4. The file says its classes, rate and front end itself, and so is a
    teacher, onnx:OUT.onnx.

    \b
    Example:
      export-student runs/student --out student.onnx
      export-student runs/student --out student.onnx --int8 --calibrate audio \\
          --eval labels.csv --audio-root audio --eval-where "fold = 5" --label-column label
    """
    from logitstore.cli.afterwards import after_export_student
    from logitstore.cli.progress import working
    from logitstore.jobs.export_student import export_student

    with working("exporting") as stage:
        found = export_student(options, stage)
    answer(options, found.to_dict(), render(found))
    next_steps(*after_export_student(options.run, [file.path for file in found.files]))


def render(found: Export) -> str:
    """What was written, how near it is, and what it costs."""
    lines = [
        f"{found.run}: {found.scores} probabilities of {found.classes} classes, of any number of clips at "
        f"{found.sample_rate} Hz of {found.least_samples} samples or more"
    ]
    for file in found.files:
        lines += [f"wrote {_size(file, found.files[0])}", f"  {_difference(file, found.sample_rate)}"]
        if file.weights is not None:
            kept = "; ".join(f"{count:,} {why}" for why, count in file.weights.floating.items())
            lines.append(f"  {file.weights.eight_bits:,} weights of 8 bits; floats: {kept or 'none'}")
        lines += [f"  warning: {file.warning}"] if file.warning else []
    if found.mAP is not None:
        named = [("run", found.mAP), *(("float" if file.method is None else "int8", file.mAP) for file in found.files)]
        lines += [f"mAP of the {name:<5}  {value:.4f}" for name, value in named if value is not None]
    for file in found.files:
        if file.compared is not None:
            lines += ["", f"{file.path} (B) against the run (A), on {file.compared.heard}:", ""]
            lines += agreement_lines(file.compared.agreement)
    return in_lines(lines)


def _size(file: Exported, first: Exported) -> str:
    if file.method is None:
        return f"{file.path}: {file.bytes / _MB:.2f} MB"
    ways = {
        "static": "8-bit weights, ranges of the activations measured on audio",
        "dynamic": "8-bit weights, ranges of matrix products found as it runs",
    }
    return f"{file.path}: {file.bytes / _MB:.2f} MB, {file.bytes / first.bytes:.0%} of it; {ways[file.method]}"


def _difference(file: Exported, rate: int) -> str:
    found = file.agreement
    clips = sorted({clips for clips, _ in found.batches})
    seconds = sorted(samples / rate for _, samples in found.batches)
    return (
        f"differs from the run by at most {found.largest:.2g} (mean {found.mean:.2g}), with the same first class "
        f"for {found.top1:.1%} of the clips, on {file.heard}: "
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
