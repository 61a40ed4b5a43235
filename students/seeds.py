"""Seeds of independent streams, so that one ``--seed`` decides everything and no stream disturbs another."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: str | int) -> int:
    """An integer in [0, 2**63) that depends on nothing but the parts: BLAKE2b of them, separated by zero bytes."""
    content = b"\0".join(str(part).encode() for part in parts)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1
