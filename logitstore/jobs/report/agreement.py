"""How far the runs agree with what the store holds of the clips that they held out."""

from __future__ import annotations

from logitstore.jobs.report.charts import bars
from logitstore.jobs.report.page import Content, Note, Part, Section, Table
from logitstore.jobs.report.runs import labels

PART = {"place": 120, "class": "Agreed"}


class Agreed(Part):
    """Agreement of every run, side by side; the classes and the views where each is worst."""

    def section(self) -> Section | None:
        """A sentence where no run held clips out."""
        runs = self.report.runs
        if not runs:
            return None
        title = "How far the runs agree with their teachers"
        found = [(name, run.agreement) for name, run in zip(labels(runs), runs, strict=True)]
        known = [(name, each) for name, each in found if each is not None]
        without = [name for name, each in found if each is None]
        content: list[Content] = []
        if known:
            if len(known) > 1:
                content.append(
                    bars(
                        "Same first class",
                        "Percent of held-out views.",
                        [(n, 100 * a.top1) for n, a in known],
                        "percent",
                        ".1f",
                        "run",
                    )
                )
                content.append(
                    bars(
                        "Divergence from the store",
                        "Nats a held-out view; less is nearer.",
                        [(n, a.kl) for n, a in known],
                        "nats",
                        ".3f",
                        "run",
                    )
                )
            content.append(
                Table(
                    "Held-out clips",
                    ("run", "views", "clips", "same first class", "first five", "divergence, nats", "mAP", "ECE"),
                    ("", ",", ",", ".1%", ".1%", ".4f", ".4f", ".4f"),
                    [(n, a.views, a.clips, a.top1, a.top5, a.kl, a.mAP, a.ece) for n, a in known],
                    "mAP and calibration are against the classes that the store's teachers decide for.",
                )
            )
            rows = [(n, c.name, c.views, c.average_precision, c.mean_a, c.mean_b) for n, a in known for c in a.by_class]
            content.append(
                Table(
                    "Classes where each run is weakest",
                    ("run", "class", "views", "AP", "p of the store", "p of the run"),
                    ("", "", ",", ".3f", ".2f", ".2f"),
                    rows,
                )
            )
            views = [
                (n, v.path, v.second, v.view, v.kl, f"{v.a[0]} {v.a[1]:.2f}", f"{v.b[0]} {v.b[1]:.2f}")
                for n, a in known
                for v in a.worst
            ]
            content.append(
                Table(
                    "Views where each run is furthest",
                    ("run", "path", "starts at, s", "view", "nats", "store", "run's answer"),
                    ("", "", ",.2f", ",", ".2f", "", ""),
                    views,
                )
            )
        if without:
            content.append(Note(f"{', '.join(without)} held no clips out (--hold-out), so nothing can be told there."))
        return Section(
            "agreement", title, "Measured at the end of training, on clips that the run did not learn from.", content
        )
