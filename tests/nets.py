"""A small form of every net here, and every head on one of them: what a model goes through, all of these go through."""

from __future__ import annotations

import os
from typing import Any

from logitstore.models.pooling import POOLS
from logitstore.models.registry import names
from tests.heard import SMALL

#: Whether every net is tried with every head and exported: ``LOGITSTORE_NETS=full``, minutes; else some of them.
FULL = os.environ.get("LOGITSTORE_NETS", "") == "full"

_CED = {"dim": 32, "depth": 1, "heads": 2, "frames": 96}
_BANDS = {"mels": 32, "hop_ms": 40}
#: Arguments that make a net small, where it has such.
ARGS: dict[str, dict[str, Any]] = {
    "cnn4": SMALL,
    "mobile": {"width": 0.1, **_BANDS},
    **{name: {"sample_rate": 8000} for name in ("cnn6", "cnn10", "cnn14", "cnn14-decision-level-att")},
    **dict.fromkeys(("densenet-121", "densenet-63", "densenet-small", "densenet-tiny"), _BANDS),
    **{f"ced-{size}": _CED for size in ("tiny", "mini", "small", "base")},
}
#: One net of each architecture but the PANNs, which have no small form, and each head on some net.
_SOME = (
    ("cnn-lstm-tiny", None), ("crnn", None), ("densenet-tiny", "attention"), ("mobile", "max"), ("cnn4", "mean"),
    ("cnn4", "feature-attention"), ("ced-tiny", "multi-attention"), ("cnn4", "cnn14-attention"),
)  # fmt: skip
#: (net, head), the head None for the net's own.
CASES: tuple[tuple[str, str | None], ...] = (
    tuple((name, pool) for name in names() for pool in (None, *POOLS)) if FULL else _SOME
)


def args_of(name: str, pool: str | None) -> dict[str, Any]:
    """Arguments of the small form of a net with a head."""
    return ARGS.get(name, {}) | ({} if pool is None else {"pool": pool})


def called(case: tuple[str, str | None]) -> str:
    """What to call a net with a head."""
    return case[0] if case[1] is None else f"{case[0]}, {case[1]}"
