"""Digests of content, all BLAKE2b, and the seeds of independent random streams that are derived by them.

What a store, a run or a teacher is known by is a digest of 128 bits, written in hexadecimal.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def hasher(content: bytes = b"") -> hashlib.blake2b:
    """A BLAKE2b of 128 bits to feed more content to; ``.hexdigest()`` is then as :func:`digest` gives it."""
    return hashlib.blake2b(content, digest_size=16)


def digest(content: bytes) -> str:
    """BLAKE2b with 128 bits, in hexadecimal, of some bytes."""
    return hasher(content).hexdigest()


def file_digest(path: Path) -> str:
    """The :func:`digest` of a file's content, read in pieces.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()


def small_digest(content: bytes) -> int:
    """An integer in [0, 2**64) that depends on nothing but the content: BLAKE2b of 64 bits, little-endian."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def derived_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) for one stream, so that one ``--seed`` decides everything and no stream disturbs another.

    :param parts: the name of the stream, the seed, and whatever else tells it from others.
    """
    return small_digest(b"\0".join(str(part).encode() for part in parts)) >> 1
