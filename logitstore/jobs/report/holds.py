"""What the store is: how many clips, of what, heard by whom, under which recipe."""

from __future__ import annotations

from typing import Any

from logitstore.jobs.report.page import Content, Facts, Numbers, Part, Section, Table, lasting, sized
from logitstore.jobs.report.views import Views
from logitstore.store.format.manifest import member_names

PART = {"place": 10, "class": "Holds"}


class Holds(Part):
    """The first part: large numbers, then what ``logitstore inspect`` says, then the teachers and the ops."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        self.seconds = 0.0

    def see(self, views: Views) -> None:
        """Add up the audio of clips that have targets."""
        self.seconds += float(views.seconds[views.counts > 0].sum())

    def section(self) -> Section:
        """Of every store."""
        summary, manifest = self.report.summary, self.report.summary.manifest
        numbers = [
            (f"{summary.clips:,}", "clips"),
            (lasting(self.seconds), "of audio with targets"),
            (f"{summary.stored_views:,}", "views stored"),
            (f"{len(manifest.classes):,}", "classes"),
            (sized(summary.store_bytes), "on disk"),
            ("–" if summary.bytes_a_view is None else f"{summary.bytes_a_view:.1f}", "bytes a view"),
        ]
        left_out = ("store", "tables")
        content: list[Content] = [
            Numbers(numbers),
            Facts([(name, text) for name, text in summary.lines() if name not in left_out]),
        ]
        total = sum(member.weight for member in manifest.teachers) or 1.0
        teachers = [
            (name, member.weight / total, member.scores, member.sample_rate, member.digest[:16])
            for name, member in zip(member_names(manifest), manifest.teachers, strict=True)
        ]
        content.append(
            Table("Teachers", ("teacher", "weight", "scores", "rate, Hz", "digest"), ("", ".1%", "", ",", ""), teachers)
        )
        ops = [
            (op.name, "masks" if op.spectrogram else "waveform", ", ".join(f"{k} {_plain(v)}" for k, v in _rest(op)))
            for op in manifest.recipe.ops
        ]
        if ops:
            content.append(
                Table("Ops of the recipe, in their order", ("op", "changes", "parameters"), ("", "", ""), ops)
            )
        lead = (
            f"What {'one teacher' if len(teachers) == 1 else f'an ensemble of {len(teachers)} teachers'} said of "
            f"{summary.views:,} view{'s' * (summary.views != 1)} of each clip, under the recipe {manifest.recipe.name}."
        )
        return Section("store", "What the store is", lead, content)


def _rest(op: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in op.to_dict().items() if name != "op"]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
