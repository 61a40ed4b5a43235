"""What the runs are, how large and how fast."""

from __future__ import annotations

from logitstore.jobs.report.charts import bars
from logitstore.jobs.report.page import Content, Part, Section, Table, count, lasting, sized
from logitstore.jobs.report.runs import labels

PART = {"place": 105, "class": "Cost"}


class Cost(Part):
    """A row for each run."""

    def section(self) -> Section | None:
        """Nothing without runs."""
        runs = self.report.runs
        if not runs:
            return None
        names = labels(runs)
        rows = []
        for name, run in zip(names, runs, strict=True):
            result = run.result
            rows.append(
                (
                    name,
                    run.config["model"],
                    len(run.config["classes"]),
                    run.parameters,
                    run.weight_bytes / 1e6,
                    None if run.macs is None else run.macs / 1e6,
                    run.clips_per_second,
                    _number(result.get("steps")),
                    _number(result.get("seconds"), 1 / 60),
                    _number(result.get("clips_per_second")),
                    _number(result.get("loss")),
                )
            )
        table = Table(
            "Runs",
            (
                "run",
                "model",
                "classes",
                "parameters",
                "MB",
                "million MACs",
                "clips/s here",
                "steps",
                "trained, min",
                "clips/s in training",
                "final loss",
            ),
            ("", "", ",", ",", ",.2f", ",.1f", ",.1f", ",.0f", ",.1f", ",.1f", ".4g"),
            rows,
        )
        content: list[Content] = [table]
        if len(runs) > 1:
            content = [
                bars(
                    "Parameters",
                    "Weights of the model.",
                    [(n, r.parameters) for n, r in zip(names, runs, strict=True)],
                    "parameters",
                    ",.0f",
                    "run",
                ),
                bars(
                    "Clips a second",
                    "On the CPU that made this page, eight at a time.",
                    [(n, r.clips_per_second) for n, r in zip(names, runs, strict=True)],
                    "clips/s",
                    ",.1f",
                    "run",
                ),
                table,
            ]
        first = runs[0]
        lead = (
            f"{count(len(runs), 'run')}. MACs are of one clip of {lasting(first.clip_seconds)}; speed was measured on "
            f"the CPU that made this page. The smallest has {min(r.parameters for r in runs):,} parameters "
            f"({sized(min(r.weight_bytes for r in runs))})."
        )
        return Section("runs", "The runs", lead, content)


def _number(value: object, scale: float = 1.0) -> float | None:
    """A number of a document; None for anything else."""
    return float(value) * scale if type(value) in (int, float) else None  # type: ignore[arg-type]
