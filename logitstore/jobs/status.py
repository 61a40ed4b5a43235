"""How far the build of a store is: its summary, and what builders have claimed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from logitstore.errors import CorruptStoreError
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.manifest import NOT_COVERED, member_names
from logitstore.store.format.parts import part_names
from logitstore.store.piece import open_piece
from logitstore.store.pieces import Failure
from logitstore.store.reader import open_store
from logitstore.store.requests import Requests, sent, since
from logitstore.store.shards import missing_views
from logitstore.store.summary import Summary, failure_lines, summarise
from logitstore.texts import in_lines

_MOST_HOST = 60  # characters that are shown


@dataclass(frozen=True, kw_only=True)
class Status(Summary):
    """Blocks of a store that are done, claimed and missing.

    A shard counts as done when it has all views of the store. Before the first commit there is no telling how many
    views are wanted, and every shard is missing.
    """

    claimed: tuple[int, ...]
    failures: tuple[Failure, ...]
    requests: Requests | None = None

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
            "requests": None if self.requests is None else self.requests.to_dict(),
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
            *([f"requests   {self.requests}"] if self.requests is not None else []),
        ]
        lines[3:3] = [
            f"teachers   the digest of {name} does not cover {what}: a change of it is not noticed"
            for name, what in self.not_covered
        ]
        return in_lines(lines)


def status(location: str) -> Status:
    """The status of the store at ``location``."""
    before = sent()
    store = open_store(location)
    return Status(
        **vars(summarise(store, measured=False)) | {"location": location},
        claimed=tuple(claims.claimed_shards(store.storage)),
        failures=tuple(store.failures()),
        requests=since(before),
    )


@dataclass(frozen=True)
class Look:
    """What is to be seen of a build at one moment, from the names of its commits and from its claims alone.

    ``views`` that are made of ``all_views``, summed over clips, where a clip has as many as any has by now: None before
    the first block is finished. ``done`` of the ``shards`` have all of them. ``builders``: how many shards the builders
    of each host have claimed.
    """

    views: int
    all_views: int | None
    done: int
    shards: int
    builders: dict[str, int]

    @property
    def finished(self) -> bool:
        """Whether nothing is missing, and nobody makes more."""
        return 0 < self.shards == self.done and not self.builders

    def __str__(self) -> str:
        hosts = ", ".join(f"{host[:_MOST_HOST]} ({count:,})" for host, count in sorted(self.builders.items()))
        return f"{self.done:,} of {self.shards:,} shards, " + (f"at work: {hosts}" if hosts else "nobody at work")


def watch(location: str, seconds: float) -> Iterator[Look]:
    """Looks at a store while it is built, the last one when it is finished.

    :param seconds: between two looks.
    :raises NotAStoreError: there is no store yet.
    """
    piece, sizes = open_piece(location), list[int]()  # clips of every shard
    while True:
        spans, claimed = commits.spans(piece.storage), claims.live_claims(piece.storage)
        if not spans and not part_names(piece.storage):  # it was begun a moment ago
            yield Look(0, None, 0, 0, {})
            time.sleep(seconds)
            continue
        if not sizes or max([*spans, *claimed], default=0) >= len(sizes):  # a part of the clip table is new
            piece = open_piece(location)
            each = piece.manifest.shard_clips
            sizes = [min(each, count - first) for count in piece.part_clips for first in range(0, count, each)]
        views = max((span.view_stop for of in spans.values() for span in of), default=0)
        beyond = max([*spans, *claimed], default=-1)
        if beyond >= len(sizes):
            raise CorruptStoreError(
                f"{location}: there is something of shard {beyond}, and the clip table has {len(sizes)} shards; "
                "restore the files of the clip table from a copy"
            )
        made = sum(sizes[s] * sum(span.view_stop - span.view_start for span in of) for s, of in spans.items())
        done = sum(not missing_views(of, views) for of in spans.values())
        builders = Counter(claim.host for claim in claimed.values())
        look = Look(made, sum(sizes) * views or None, done, len(sizes), dict(builders))
        yield look
        if look.finished:
            return
        time.sleep(seconds)
