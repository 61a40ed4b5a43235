"""Run audio taggers once, keep what they said and exactly what they heard, distil any number of students."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logitstore.store.reader import Store, open_store

__all__ = ["Store", "open_store"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from logitstore.store import reader

        return getattr(reader, name)
    raise AttributeError(f"module 'logitstore' has no attribute {name!r}")
