"""The requests that this process has sent to object stores and web servers: counted by kind, as they are paid for."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Requests:
    """How many requests of each kind; each try counts.

    ``listings`` are pages of a listing, of up to 1,000 names; ``again`` those among all of them that were sent again,
    because a server was busy or an answer did not come.
    """

    gets: int = 0
    puts: int = 0
    listings: int = 0
    heads: int = 0
    deletes: int = 0
    again: int = 0

    @property
    def total(self) -> int:
        """All requests."""
        return self.gets + self.puts + self.listings + self.heads + self.deletes

    def __sub__(self, before: Requests) -> Requests:
        return Requests(**{name: count - getattr(before, name) for name, count in asdict(self).items()})

    def __str__(self) -> str:
        kinds = {"GET": self.gets, "PUT": self.puts, "LIST": self.listings, "HEAD": self.heads, "DELETE": self.deletes}
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        return f"{self.total:,}: {shown}" + (f"; {self.again:,} of them sent again" if self.again else "")

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return {"total": self.total, **asdict(self)}


_counts = dict.fromkeys((field.name for field in fields(Requests)), 0)
_lock = threading.Lock()


def count(kind: str, number: int = 1) -> None:
    """Count a request that is sent now.

    :param kind: a field of :class:`Requests`. :param number: -1 takes back one that was not sent after all.
    """
    with _lock:
        _counts[kind] += number


def sent() -> Requests:
    """What this process has sent until now."""
    with _lock:
        return Requests(**_counts)


def since(before: Requests) -> Requests | None:
    """What this process has sent since a moment that :func:`sent` told; None for nothing, as of a store in a folder."""
    made = sent() - before
    return made if made.total else None
