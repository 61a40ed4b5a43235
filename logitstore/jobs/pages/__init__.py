"""What the pages share that people look at: the report, the listening page. Colours and type are in ``theme.css``."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def asset(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(__name__).joinpath(name).read_text("utf-8")
