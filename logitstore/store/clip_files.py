"""The files of a store's clip table, opened without reading them whole, and checked against the commits."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from logitstore.digests import digest
from logitstore.errors import CorruptStoreError
from logitstore.store.storage import LocalStorage

if TYPE_CHECKING:
    from logitstore.store.reader import Store


def clip_files(store: Store) -> dict[str, pq.ParquetFile]:
    """The files of the clip table by name, in the order of their rows.

    :raises CorruptStoreError: one is missing, or is not the one that was committed.
    """
    names = list(store.storage.names("clips"))
    known = {commit.clip_table: commit.clip_table_digest for commit in store.commits}
    missing = sorted(set(known) - set(names)) or ([] if names else ["clips/00000.parquet"])
    if missing:
        raise CorruptStoreError(f"{store.location}: {missing[0]} is missing; restore it")
    return {name: open_clip_file(store, name, known.get(name)) for name in names}


def open_clip_file(store: Store, name: str, known: str | None = None) -> pq.ParquetFile:
    """A file of the clip table, checked against the commits if a digest is known."""
    if isinstance(store.storage, LocalStorage):
        source: Any = store.storage.root / name
        with source.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    else:  # read whole once: its digest needs every byte
        if name not in store.clip_contents:
            store.clip_contents[name] = store.storage.get(name)
        content = store.clip_contents[name]
        source, found = pa.BufferReader(content), digest(content)
    if known is not None and known != found:
        raise CorruptStoreError(f"{store.location}: {name} is not the file that was committed; restore it")
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise CorruptStoreError(f"{store.location}: {name} is damaged ({reason}); restore it") from error
