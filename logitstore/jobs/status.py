"""How far the build of a store is: its summary, and what builders have claimed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.store import claims
from logitstore.store.format.manifest import NOT_COVERED, member_names
from logitstore.store.pieces import Failure
from logitstore.store.reader import open_store
from logitstore.store.summary import Summary, failure_lines, summarise
from logitstore.texts import in_lines


@dataclass(frozen=True, kw_only=True)
class Status(Summary):
    """Blocks of a store that are done, claimed and missing.

    A shard counts as done when it has all views of the store. Before the first commit there is no telling how many
    views are wanted, and every shard is missing.
    """

    claimed: tuple[int, ...]
    failures: tuple[Failure, ...]

    @property
    def missing(self) -> int:
        """Number of shards that are not done."""
        return self.shards - self.shards_finished

    @property
    def not_covered(self) -> list[tuple[str, str]]:
        """(teacher, what): what the digest of a teacher cannot tell apart, as the manifest says."""
        names = member_names(self.manifest)
        return [
            (name, str(what))
            for name, member in zip(names, self.manifest.teachers, strict=True)
            for what in member.contract.get(NOT_COVERED, ())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "store": self.location,
            "clips": self.clips,
            "views": self.views,
            "shards": self.shards,
            "done": self.shards_finished,
            "claimed": list(self.claimed),
            "missing": self.missing,
            "quality": None if self.kept is None else asdict(self.kept),
            "not_covered": [{"teacher": name, "what": what} for name, what in self.not_covered],
            "failures": [vars(failure) for failure in self.failures],
        }

    def render(self) -> str:
        """The lines that ``logitstore status`` prints."""
        state = "finished" if not self.missing else "not finished: run the same build again to go on"
        lines = [
            f"store      {self.location}, {state}",
            f"clips      {self.clips:,} x {self.views} views",
            f"blocks     {self.shards_finished:,} of {self.shards:,} shards done, {len(self.claimed):,} claimed, "
            f"{self.missing:,} missing",
            *([f"quality    {self.kept}"] if self.kept is not None else []),
            *([f"frames     {self.frame_sizes()}"] if self.manifest.frames is not None else []),
            *failure_lines(self.failures, self.location, 20),
        ]
        lines[3:3] = [
            f"teachers   the digest of {name} does not cover {what}: a change of it is not noticed"
            for name, what in self.not_covered
        ]
        return in_lines(lines)


def status(location: str) -> Status:
    """The status of the store at ``location``."""
    store = open_store(location)
    return Status(
        **vars(summarise(store, measured=False)) | {"location": location},
        claimed=tuple(claims.claimed_shards(store.storage)),
        failures=tuple(store.failures()),
    )
