"""How the runs learnt: their losses, step by step, and what was measured while they trained."""

from __future__ import annotations

from logitstore.jobs.report.charts import lines
from logitstore.jobs.report.page import Content, Part, Section
from logitstore.jobs.report.runs import labels, series

PART = {"place": 110, "class": "Learning"}
#: Records of a log that are no measure of it.
_ASIDE = frozenset(("step", "epoch", "clips", "view", "loss", "held_out_clips", "lr"))
_MOST_CHARTS = 8


class Learning(Part):
    """A chart of the mean loss of every epoch, one of the learning rate, one of every further measure."""

    def section(self) -> Section | None:
        """Nothing without runs."""
        runs = self.report.runs
        if not runs:
            return None
        names = labels(runs)
        content: list[Content] = []
        logs = [
            (name, *series(run.epochs if len(run.epochs) > 1 else run.steps, "loss"))
            for name, run in zip(names, runs, strict=True)
        ]
        final = min(((float(ys[-1]), name) for name, _, ys in logs if len(ys)), default=None)
        says = "No loss was logged." if final is None else f"{final[1]} ends lowest, at {final[0]:.4g}."
        positive = all((ys > 0).all() for _, _, ys in logs)
        content.append(lines("Training loss", says, logs, "step", "loss", log=positive and _wide(logs)))
        keys = sorted({key for run in runs for record in run.epochs for key in record} - _ASIDE)
        for key in keys[:_MOST_CHARTS]:
            found = [(name, *series(run.epochs, key)) for name, run in zip(names, runs, strict=True)]
            if max(len(xs) for _, xs, _ in found) < 2:
                continue  # one number is no curve; the parts about agreement and cost have it
            best = [(name, float(ys[-1])) for name, _, ys in found if len(ys)]
            ends = "; ".join(f"{name} ends at {value:.4g}" for name, value in best[:3])
            content.append(lines(key.replace("_", " ").capitalize(), ends + ".", found, "step", key, points=True))
        rates = [(name, *series(run.steps, "lr")) for name, run in zip(names, runs, strict=True)]
        if any(len(xs) for _, xs, _ in rates):
            content.append(
                lines("Learning rate", "As the schedule gave it.", rates, "step", "learning rate", least=0.0)
            )
        lead = "The loss of one run can be compared with that of another only where both learnt the same targets."
        return Section("learning", "How the runs learnt", lead, content)


def _wide(logs: list) -> bool:  # type: ignore[type-arg]
    """Whether losses go over more than a decade, so that only a logarithmic axis shows their end."""
    return any(len(ys) and ys.max() > 10 * ys.min() for _, _, ys in logs)
