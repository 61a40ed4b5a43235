"""What it took to answer a query: which parts of which tables were decoded, what filters spared, and DuckDB's plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from logitstore.store.sql.lazy import LazyTable

_MOST_NAMED = 4
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass
class Explanation:
    """What a query does, kept by :func:`logitstore.store.sql.query.stream_query` while it is answered.

    ``tables`` are those that the query reads, by name; ``ask_plan`` asks DuckDB for its plan, when the answer is read.
    """

    tables: dict[str, Any] = field(default_factory=dict)
    ask_plan: Callable[[], str | None] = lambda: None
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    plan: str | None = None

    def finish(self) -> None:
        """To be called when the answer has been read to its end, and before it is closed."""
        self.seconds = time.monotonic() - self.begun
        self.plan = self.ask_plan()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; see ``docs/json.md``."""
        return {"seconds": self.seconds, "tables": list(self._tables()), "plan": self.plan}

    def _tables(self) -> Sequence[dict[str, Any]]:
        found = []
        for name, table in self.tables.items():
            if not isinstance(table, LazyTable):  # small, and made of what opening the store has read already
                found.append({"table": name, "rows": table.num_rows, "parts": 0, "scans": []})
                continue
            scans = [
                {
                    "columns": list(scan.columns), "decoded": list(scan.decoded), "skipped": scan.skipped,
                    "rows": scan.rows, "passed": scan.passed, "bytes": scan.bytes, "seconds": scan.seconds,
                }
                for scan in table.scans
            ]  # fmt: skip
            rows = sum(part.rows for part in table.parts)
            found.append({"table": name, "rows": rows, "parts": len(table.parts), "scans": scans})
        return found

    def lines(self) -> list[str]:
        """The same for people, the plan left out: a line for each scan of a table."""
        tables = self._tables()
        width = max([7, *(len(table["table"]) for table in tables)])
        lines = [f"{'explain':<{width}}  answered in {self.seconds:.2f} s"]
        for table in tables:
            name, whole = f"{table['table']:<{width}}  ", f"{table['parts']:,}"
            if not table["parts"]:
                lines.append(f"{name}{_counted(table['rows'], 'row')}, known without decoding anything")
            elif not table["scans"]:
                lines.append(f"{name}not read")
            for scan in table["scans"]:
                decoded = scan["decoded"]
                skipped = f" ({scan['skipped']:,} ruled out by filters)" if scan["skipped"] else ""
                passed = f", {scan['passed']:,} of them handed on" if scan["passed"] < scan["rows"] else ""
                lines += [
                    f"{name}columns {', '.join(scan['columns'])}",
                    f"{'':<{width}}  {len(decoded):,} of {whole} parts decoded{skipped}{_named(decoded)}",
                    f"{'':<{width}}  {_counted(scan['rows'], 'row')}, {size(scan['bytes'])}{passed}; decoding took "
                    f"{scan['seconds']:.2f} s",
                ]
        return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _named(names: Sequence[str]) -> str:
    shown = sorted(names)[:_MOST_NAMED]
    return f": {', '.join(shown)}{', …' if len(names) > len(shown) else ''}" if shown else ""


def size(count: int) -> str:
    """A number of bytes for people: ``3.1 MB``."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return _counted(count, "byte")
