"""How much time, memory and temporary disk space one query may take."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from logitstore.errors import QueryLimitError, UsageError

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

#: The environment variables that change the limits where no option does.
VARIABLES = {
    "timeout": "LOGITSTORE_SQL_TIMEOUT",
    "memory": "LOGITSTORE_SQL_MEMORY",
    "temp_space": "LOGITSTORE_SQL_TEMP_SPACE",
}


@dataclass(frozen=True)
class Limits:
    """What one query may take before it is ended with a :class:`~logitstore.errors.QueryLimitError`.

    :param timeout: seconds that the query may work, not counting what is done with its rows; 0 for no limit.
    :param memory: bytes of memory; what does not fit goes to temporary files where the query's steps allow it.
    :param temp_space: bytes of temporary files; 0 for none.
    """

    timeout: float = 120.0
    memory: int = 384 * 10**6
    temp_space: int = 500 * 10**6

    @staticmethod
    def of(timeout: str | None = None, memory: str | None = None, temp_space: str | None = None) -> Limits:
        """Limits as a user writes them; what is None is taken from the environment, else it is the default.

        :raises UsageError: a value is no number of seconds or no size.
        """
        found: dict[str, Any] = {}
        given = {"timeout": timeout, "memory": memory, "temp_space": temp_space}
        for name, variable in VARIABLES.items():
            text, source = given[name], f"--{name.replace('_', '-')}"
            if text is None:
                text, source = os.environ.get(variable), variable
            if text is not None:
                found[name] = _seconds(text, source) if name == "timeout" else _bytes(text, source, name == "memory")
        return Limits(**found)

    @staticmethod
    def of_filter() -> Limits:
        """The limits of an expression over the rows of a manifest, which takes a moment: the default time is short."""
        found = Limits.of()
        return found if VARIABLES["timeout"] in os.environ else replace(found, timeout=_FILTER_TIMEOUT)

    def exceeded(self, name: str, more: str = "") -> QueryLimitError:
        """The error of a query that went beyond one of the limits, by its name."""
        what = {
            "timeout": f"the query was ended after {self.timeout:g} s",
            "memory": f"the query needs more than {size(self.memory)} of memory",
            "temp_space": f"the query needs more than {size(self.temp_space)} of temporary disk space",
        }[name]
        option = f"--{name.replace('_', '-')}"
        return QueryLimitError(
            f"{what}{more}; narrow it with WHERE or LIMIT, or raise that limit with {option} of inspect or "
            f"{VARIABLES[name]}{' (0: no limit)' if name == 'timeout' else ''}"
        )


def size(count: int) -> str:
    """A number of bytes as it can be given again: ``384MB``."""
    for unit in ("TB", "GB", "MB", "KB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.10g}{unit}"
    return str(count)


def _seconds(text: str, source: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text.strip()):
        raise UsageError(f"{source} is {text!r}; give seconds such as 60, or 0 for no limit")
    return float(text)


def _bytes(text: str, source: str, positive: bool) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"{source} is {text!r}; give a size such as 500MB or 2GB")
    count = int(float(found[1]) * _UNITS.get((found[2] or "").upper(), 1))
    if positive and count < _SMALLEST:
        raise UsageError(f"{source} is {text!r}; a query needs at least {size(_SMALLEST)}")
    return count


_SMALLEST = 32 * 10**6
_FILTER_TIMEOUT = 15.0  # seconds; of a million rows it takes less than one
