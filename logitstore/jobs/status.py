"""How far the build of a store is, from its commits and claims alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logitstore.store import claims
from logitstore.store.clip_files import clip_files
from logitstore.store.reader import open_store


@dataclass(frozen=True)
class Status:
    """Blocks of a store.

    ``views`` is the highest view of any block plus one; a shard counts as done when it has them all. Before the first
    commit there is no telling how many views are wanted, and every shard is missing.
    """

    location: str
    clips: int
    views: int
    done: int
    claimed: tuple[int, ...]
    missing: int
    shards: int
    failures: tuple[tuple[int, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "store": self.location,
            "clips": self.clips,
            "views": self.views,
            "shards": self.shards,
            "done": self.done,
            "claimed": list(self.claimed),
            "missing": self.missing,
            "failures": [{"clip": clip, "path": path, "reason": reason} for clip, path, reason in self.failures],
        }

    def render(self) -> str:
        """The lines that ``logitstore status`` prints."""
        state = "finished" if not self.missing else "not finished: run the same build again to go on"
        lines = [
            f"store      {self.location}, {state}",
            f"clips      {self.clips:,} x {self.views} views",
            f"blocks     {self.done:,} of {self.shards:,} shards done, {len(self.claimed):,} claimed, "
            f"{self.missing:,} missing",
            f"failures   {len(self.failures):,}",
        ]
        lines += [f"           clip {clip}, {path}: {reason}" for clip, path, reason in self.failures[:20]]
        if len(self.failures) > 20:
            lines.append(f'           … all of them: logitstore inspect {self.location} "FROM failures"')
        return "\n".join(lines)


def status(location: str) -> Status:
    """The status of the store at ``location``."""
    store = open_store(location)
    per_shard = store.manifest.shard_clips
    rows = [file.metadata.num_rows for file in clip_files(store).values()]
    shards = sum(-(-part // per_shard) for part in rows)
    covered: dict[int, int] = {}
    for commit in store.commits:
        covered[commit.shard] = covered.get(commit.shard, 0) + commit.views
    done = sum(1 for views in covered.values() if views == store.views) if store.views else 0
    return Status(
        location=location,
        clips=sum(rows),
        views=store.views,
        done=done,
        claimed=tuple(claims.claimed_shards(store.storage)),
        missing=shards - done,
        shards=shards,
        failures=tuple(store.failures()),
    )
