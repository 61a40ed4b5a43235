"""Tar shards, as WebDataset writes them: the key is shard/member."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio
from logitstore.audio.packed import Index, Packed, column_of
from logitstore.audio.source import check_columns, first_line, text_key
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_SIDECARS = (".json", ".txt", ".cls")
_SIDECAR_BYTES = 1 << 20


class TarSource(Packed):
    """WebDataset shards: audio members, and json, txt and cls members of the same WebDataset key as columns."""

    kind = "tar"
    suffixes = (".tar",)

    def _list(self, name: str) -> pa.Table:
        import pyarrow as pa

        keys, samples = [], []
        sidecars: dict[str, dict[str, Any]] = {}
        file = self.root / name
        with _opened_tar(file) as members, file.open("rb") as stream:
            for member, offset, size in members:
                base, suffix = _webdataset(member)
                if suffix in AUDIO_SUFFIXES:
                    keys.append(f"{name}/{text_key(member, str(file))}")
                    samples.append(base)
                elif suffix in _SIDECARS and size <= _SIDECAR_BYTES:
                    stream.seek(offset)
                    sidecars.setdefault(base, {}).update(_sidecar(stream.read(size), suffix, f"{file}: {member}"))
        columns = sorted({column for values in sidecars.values() for column in values})
        table = pa.table({"path": pa.array(keys, pa.string())})
        check_columns(columns, str(file))
        for column in columns:
            values = [sidecars.get(sample, {}).get(column) for sample in samples]
            table = table.append_column(column, column_of(values))
        return table

    def read(self, path: str) -> Audio:
        name, member = self._split(path)
        place = self._indexed(name, self._index).find(member)
        if place is None:
            raise AudioError("no such member in the tar")
        return _window(self.root / name, *place)

    def _index(self, name: str) -> Index:
        try:
            with _opened_tar(self.root / name) as listed:
                members = [entry for entry in listed if _webdataset(entry[0])[1] in AUDIO_SUFFIXES]
        except SourceError:
            raise AudioError("the tar cannot be listed") from None
        return Index.of([m[0] for m in members], [m[1] for m in members], [m[2] for m in members])


@contextmanager
def _opened_tar(path: Path) -> Iterator[Iterator[tuple[str, int, int]]]:
    """The regular members of a tar that are not hidden, as (name, offset, size)."""
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed below; only its opening is in the try
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"{path}: not readable as an uncompressed tar: {first_line(error)}") from None
    with tar:
        yield _members(tar, path)


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, int, int]]:
    while True:
        try:
            member = tar.next()
        except (tarfile.TarError, OSError) as error:
            raise SourceError(f"{path}: the tar breaks off: {first_line(error)}; pack it again") from None
        if member is None:
            return
        tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
        name = posixpath.normpath(member.name)
        hidden = any(part.startswith(".") for part in name.split("/"))
        if member.isreg() and not member.issparse() and not hidden:
            yield name, member.offset_data, member.size


def _webdataset(member: str) -> tuple[str, str]:
    """The key of a member (up to the first dot of its file name) and its last ending."""
    folder, _, file = member.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}", posixpath.splitext(file)[1].lower()


def _sidecar(content: bytes, suffix: str, what: str) -> dict[str, Any]:
    try:
        text = content.decode()
        value = json.loads(text) if suffix == ".json" else text.strip()
    except ValueError as error:
        raise SourceError(f"{what}: not readable as {suffix[1:]}: {first_line(error)}") from None
    if suffix == ".json":
        fields = value.items() if isinstance(value, dict) else [("json", value)]
        return {str(name): field for name, field in fields if isinstance(field, str | int | float)}
    if suffix == ".cls" and value.lstrip("-").isdecimal():
        return {"cls": int(value)}
    return {suffix[1:]: value}


def _window(path: Path, offset: int, size: int) -> BinaryIO:
    try:
        return cast(BinaryIO, io.BufferedReader(_Window(path, offset, size), 1 << 16))
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from None


class _Window(io.RawIOBase):
    """Bytes [offset, offset + size) of a file, as a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._at))]
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(view) if len(view) else 0
        self._at += count or 0
        return count or 0

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
