"""The audio of a store's clips: one audio root for all of them, or one for each piece."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from logitstore.errors import UsageError
from logitstore.store.pieces import Pieces

if TYPE_CHECKING:
    from logitstore.audio.clips import ClipAudio
    from logitstore.audio.source import Source
    from logitstore.store.keys import StoredKeys

#: Where audio is: a folder or packed audio, or an open source.
AudioRoot: TypeAlias = "Source | str | os.PathLike[str]"


def open_sources(store: Pieces, audio_root: AudioRoot | Sequence[AudioRoot]) -> list[Source]:
    """The audio of a store: one source for all of its clips, or one for each of the stores that are read as one.

    :raises UsageError: another number of audio roots.
    """
    from logitstore.audio.sources import open_audio

    roots: list[Any] = list(audio_root) if isinstance(audio_root, list | tuple) else [audio_root]
    stores = len(store.pieces)
    if len(roots) not in (1, stores):
        raise UsageError(
            f"{len(roots)} audio roots for {stores} store{'s' * (stores > 1)}; give one for all of them, or one for "
            "each in their order"
        )
    return [open_audio(os.fspath(root)) if isinstance(root, str | os.PathLike) else root for root in roots]


def clip_keys(store: Pieces, sources: Sequence[Source]) -> list[StoredKeys]:
    """The keys of the clips of each source."""
    return [store.keys] if len(sources) == 1 else [piece.keys for piece in store.pieces]


def clip_audio(store: Pieces, audio_root: AudioRoot | Sequence[AudioRoot], cache_bytes: int = 0) -> ClipAudio:
    """The decoded clips of a store by their numbers, at its rate; nothing is decoded yet.

    :param cache_bytes: how much decoded audio to keep.
    :raises UsageError: another number of audio roots.
    """
    from logitstore.audio.clips import joined_clips

    sources = open_sources(store, audio_root)
    return joined_clips(sources, clip_keys(store, sources), store.manifest.sample_rate, cache_bytes)
