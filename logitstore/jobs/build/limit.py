"""What limited a build: what the teachers' own thread spent its time on, and what the others worked for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.audio.ahead import DECODE
from logitstore.jobs.build.block import ENCODE, FORWARD, TOP_K, WAIT_AUDIO, WAIT_WRITE, WRITE
from logitstore.stages import Stages
from logitstore.views.render import RENDER

#: What the time of a build goes into, by the stages of the thread that asks the teachers; the rest is none of these.
_PARTS = {"forward": FORWARD, "audio": WAIT_AUDIO, "writing": WAIT_WRITE, "top-k": TOP_K}
_REST = "rest"
_SAID = {
    "forward": "the teachers' forward",
    "audio": "audio, which the teachers waited for",
    "writing": "writing, which the teachers waited for",
    "top-k": "taking the top-k",
    _REST: "what is not of single views: the start, checks, the end",
}


@dataclass(frozen=True)
class Limit:
    """Where the time of a build went.

    ``shares`` of the time by what it went into: the teachers' ``forward``, waiting for ``audio``, waiting for
    ``writing``, ``top-k``, and the ``rest``; they sum to 1. ``by``: the largest of them. ``stages``: seconds of each
    stage that works beside the teachers, summed over its threads.
    """

    by: str
    shares: dict[str, float]
    stages: dict[str, float]

    @classmethod
    def of(cls, stages: Stages, seconds: float) -> Limit | None:
        """What limited a build of so many seconds; None where this process asked no teacher.

        :param stages: of this process.
        """
        spent = {part: stages.seconds.get(stage, 0.0) for part, stage in _PARTS.items()}
        if not spent["forward"] or seconds <= 0:
            return None
        whole = max(seconds, sum(spent.values()))
        shares = {part: each / whole for part, each in spent.items()}
        shares[_REST] = 1.0 - sum(shares.values())
        beside = {name: stages.seconds.get(name, 0.0) for name in (DECODE, RENDER, ENCODE, WRITE)}
        return cls(max(shares, key=shares.__getitem__), shares, beside)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def render(self) -> str:
        """One line for people."""
        shares = sorted(self.shares.items(), key=lambda each: -each[1])
        others = ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares if part != self.by)
        beside = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.stages.items())
        return f"{_SAID[self.by]}: {100 * self.shares[self.by]:.0f} % of the time ({others}; beside it {beside})"
