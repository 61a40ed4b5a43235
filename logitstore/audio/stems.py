"""Audio files by their names without endings: for tables that name recordings and not files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from logitstore.audio.audiofile import AUDIO_SUFFIXES


class Stems:
    """Keys of audio, found by their path without the ending, or by the last part of that where it is the only one.

    :param keys: of a source, as ``a/b.wav``.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys: dict[str, list[str]] = {}
        for key in keys:
            whole = posixpath.splitext(key)[0]
            for name in {key, whole, posixpath.basename(key), posixpath.basename(whole)}:
                self._keys.setdefault(name, []).append(key)

    def find(self, name: str) -> str | None:
        """The key of a name; None where nothing, or more than one file, is called so."""
        found = self._keys.get(name, [])
        return found[0] if len(found) == 1 else None

    def several(self, name: str) -> list[str]:
        """All files that are called so."""
        return self._keys.get(name, [])


def has_ending(name: str) -> bool:
    """Whether a name ends like a file of audio."""
    return posixpath.splitext(name)[1].lower() in AUDIO_SUFFIXES
