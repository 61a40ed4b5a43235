"""Students: models, losses, and the data and training that come from a store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from students.data import ReplayDataset

__all__ = ["ReplayDataset"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from students import data

        return getattr(data, name)
    raise AttributeError(f"module 'students' has no attribute {name!r}")
