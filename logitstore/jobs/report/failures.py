"""Which clips have no targets, and why."""

from __future__ import annotations

from logitstore.jobs.report.page import Note, Part, Section, Table, count

PART = {"place": 95, "class": "Failures"}
_REASONS, _SHOWN = 20, 100


class Failures(Part):
    """Reasons, the most frequent first, and the first of the clips."""

    def section(self) -> Section:
        """Of every store: that there is none is worth a sentence."""
        failures = self.report.store.failures()
        title = "Failures"
        if not failures:
            return Section("failures", title, "", [Note("No clip failed.", "good")])
        reasons: dict[str, list[int]] = {}
        for each in failures:
            reasons.setdefault(each.reason, []).append(each.clip)
        rows = sorted(
            ((reason, len(clips), clips[0]) for reason, clips in reasons.items()), key=lambda r: (-r[1], r[0])
        )
        more = "" if len(failures) <= _SHOWN else f"{len(failures) - _SHOWN:,} more are left out."
        return Section(
            "failures",
            title,
            f"{count(len(failures), 'clip')} could not be heard, and so without targets.",
            [
                Table(
                    "Reasons",
                    ("reason", "clips", "first clip"),
                    ("", ",", ","),
                    rows[:_REASONS],
                    "" if len(rows) <= _REASONS else f"{len(rows) - _REASONS:,} rarer reasons are left out.",
                ),
                Table(
                    "Clips that failed",
                    ("clip", "path", "starts at, s", "reason"),
                    (",", "", ",.2f", ""),
                    [(each.clip, each.path, each.start_s, each.reason) for each in failures[:_SHOWN]],
                    more,
                ),
            ],
        )
